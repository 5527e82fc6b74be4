import sys

import dspy

dspy.configure(lm=dspy.LM("openai/gpt-4o-mini", api_base=sys.argv[1], api_key="none"))
rows = [dspy.Example(question=f"{n}?", answer="ok").with_inputs("question") for n in range(24)]
metric = dspy.evaluate.answer_exact_match
optimizer = dspy.BootstrapFewShot(metric=metric)
better = optimizer.compile(dspy.ChainOfThought("question -> answer"), trainset=rows[:16])
better.save("better.json")
served = dspy.ChainOfThought("question -> answer")
served.load("better.json")
print(dspy.Evaluate(devset=rows[16:], metric=metric, display_progress=False)(served))
