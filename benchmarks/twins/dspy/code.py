import sys

import dspy

dspy.configure(lm=dspy.LM("openai/gpt-4o-mini", api_base=sys.argv[1], api_key="none"))
print(dspy.ProgramOfThought("question -> answer: int")(question="What is 12 times 37?").answer)
