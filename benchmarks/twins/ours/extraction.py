import sys

from pydantic import BaseModel

import promptgrad as pg
from promptgrad import nn


class Guest(BaseModel):
    name: str
    people: int


class Read(pg.Signature):
    """Read the booking."""

    message: str = pg.Input()
    guest: Guest = pg.Output()


lm = pg.LM("openai/gpt-4o-mini", base_url=sys.argv[1], api_key="none", adapter="json")
print(nn.Predict(Read).to(lm)(message="A table for 4, Ada").guest)
