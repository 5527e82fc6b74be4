import sys

import promptgrad as pg

pg.configure(lm=pg.LM("openai/gpt-4o-mini", base_url=sys.argv[1], api_key="none"))
report = "all is well\n" * 50_000 + "the pump stands still\n"
print(pg.nn.RLM("report, question -> answer", max_steps=4)(report=report, question="What failed?").answer)
