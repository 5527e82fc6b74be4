import sys

import dspy

dspy.configure(lm=dspy.LM("openai/gpt-4o-mini", api_base=sys.argv[1], api_key="none"))
report = "all is well\n" * 50_000 + "the pump stands still\n"
print(dspy.RLM("report, question -> answer", max_iters=4)(report=report, question="What failed?").answer)
