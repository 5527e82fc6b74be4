import sys

import promptgrad as pg

pg.configure(lm=pg.LM("openai/gpt-4o-mini", base_url=sys.argv[1], api_key="none"))
print(pg.nn.ProgramOfThought("question -> answer: int")(question="What is 12 times 37?").answer)
