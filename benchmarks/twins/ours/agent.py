import sys

import promptgrad as pg

pg.configure(lm=pg.LM("openai/gpt-4o-mini", base_url=sys.argv[1], api_key="none"))


def weather(town: str) -> str:
    """The weather in a town."""
    return f"sun in {town}"


print(pg.nn.ReAct("question -> answer", tools=[weather], max_steps=4)(question="How is Rome?").answer)
