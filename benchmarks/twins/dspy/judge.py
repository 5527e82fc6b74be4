import sys

import dspy

dspy.configure(lm=dspy.LM("openai/gpt-4o-mini", api_base=sys.argv[1], api_key="none"))
rows = [dspy.Example(complaint=f"Parcel {n} is late").with_inputs("complaint") for n in range(8)]


class Judge(dspy.Signature):
    """Score from 0 to 1: the reply apologizes and says what will happen."""

    complaint: str = dspy.InputField()
    reply: str = dspy.InputField()
    score: float = dspy.OutputField()


judge = dspy.ChainOfThought(Judge)


def metric(example, prediction, trace=None):
    return judge(complaint=example.complaint, reply=prediction.reply).score


print(dspy.Evaluate(devset=rows, metric=metric, display_progress=False)(dspy.Predict("complaint -> reply")))
