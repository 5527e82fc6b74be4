import sys

import promptgrad as pg
from promptgrad import nn, optim

pg.configure(lm=pg.LM("openai/gpt-4o-mini", base_url=sys.argv[1], api_key="none"))
rows = [pg.Example(question=f"{n}?", answer="ok").with_inputs("question") for n in range(24)]
metric = pg.metrics.exact_match
better = pg.compile(nn.ChainOfThought("question -> answer"), rows[:16], metric, optimizer=optim.BootstrapFewShot)
pg.save(better.state_dict(), "better.json")
served = nn.ChainOfThought("question -> answer")
served.load_state_dict(pg.load("better.json"))
print(pg.evaluate(served, rows[16:], metric))
