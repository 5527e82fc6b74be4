import sys

import dspy
import numpy as np

dspy.configure(lm=dspy.LM("openai/gpt-4o-mini", api_base=sys.argv[1], api_key="none"))
passages = ["The Seine flows through Paris.", "The Tiber flows through Rome.", "The Po flows through Turin."]


class RAG(dspy.Module):
    def __init__(self):
        super().__init__()
        embedder = dspy.Embedder(lambda texts: np.array([[len(text), 1.0] for text in texts]))
        self.search = dspy.retrievers.Embeddings(embedder=embedder, corpus=passages, k=2)
        self.answer = dspy.ChainOfThought("context: list[str], question -> answer")

    def forward(self, question):
        return self.answer(context=self.search(question).passages, question=question)


print(RAG()(question="Which river flows through Rome?").answer)
