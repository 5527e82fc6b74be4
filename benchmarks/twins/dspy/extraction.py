import sys

import dspy
from pydantic import BaseModel


class Guest(BaseModel):
    name: str
    people: int


class Read(dspy.Signature):
    """Read the booking."""

    message: str = dspy.InputField()
    guest: Guest = dspy.OutputField()


lm = dspy.LM("openai/gpt-4o-mini", api_base=sys.argv[1], api_key="none")
dspy.configure(lm=lm, adapter=dspy.JSONAdapter())
print(dspy.Predict(Read)(message="A table for 4, Ada").guest)
