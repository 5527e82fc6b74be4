import sys

import promptgrad as pg
from promptgrad import nn

pg.configure(lm=pg.LM("openai/gpt-4o-mini", base_url=sys.argv[1], api_key="none"))
rows = [pg.Example(complaint=f"Parcel {n} is late").with_inputs("complaint") for n in range(8)]
judge = nn.Judge("The reply apologizes and says what will happen.", labels=False)
print(pg.evaluate(nn.Predict("complaint -> reply"), rows, judge))
