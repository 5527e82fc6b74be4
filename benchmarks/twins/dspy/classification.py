import sys
from typing import Literal

import dspy

dspy.configure(lm=dspy.LM("openai/gpt-4o-mini", api_base=sys.argv[1], api_key="none"))


class Sort(dspy.Signature):
    """Sort what a customer writes."""

    message: str = dspy.InputField()
    team: Literal["billing", "helpdesk"] = dspy.OutputField()


def metric(example, prediction, trace=None):
    return example.team == prediction.team


rows = [dspy.Example(message=f"I was charged {n} times", team="billing").with_inputs("message") for n in range(12)]
model = dspy.LabeledFewShot(k=16).compile(dspy.Predict(Sort), trainset=rows)
print(dspy.Evaluate(devset=rows, metric=metric, display_progress=False)(model))
