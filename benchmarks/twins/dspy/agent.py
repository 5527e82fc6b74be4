import sys

import dspy

dspy.configure(lm=dspy.LM("openai/gpt-4o-mini", api_base=sys.argv[1], api_key="none"))


def weather(town: str) -> str:
    """The weather in a town."""
    return f"sun in {town}"


print(dspy.ReAct("question -> answer", tools=[weather], max_iters=4)(question="How is Rome?").answer)
