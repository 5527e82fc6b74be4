import sys
from typing import Literal

import promptgrad as pg
from promptgrad import nn, optim

pg.configure(lm=pg.LM("openai/gpt-4o-mini", base_url=sys.argv[1], api_key="none"))


class Sort(pg.Signature):
    """Sort what a customer writes."""

    message: str = pg.Input()
    team: Literal["billing", "helpdesk"] = pg.Output()


rows = [pg.Example(message=f"I was charged {n} times", team="billing").with_inputs("message") for n in range(12)]
metric = pg.metrics.exact_match(field="team")
model = pg.compile(nn.Predict(Sort), rows, metric, optimizer=optim.LabeledFewShot)
print(pg.evaluate(model, rows, metric))
