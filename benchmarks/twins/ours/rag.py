import sys

import promptgrad as pg
from promptgrad import nn, retrieve

pg.configure(lm=pg.LM("openai/gpt-4o-mini", base_url=sys.argv[1], api_key="none"))
passages = ["The Seine flows through Paris.", "The Tiber flows through Rome.", "The Po flows through Turin."]


class RAG(nn.Module):
    def __init__(self):
        super().__init__()
        self.search = nn.Retrieve(retrieve.Dense(passages, lambda texts: [[len(text), 1.0] for text in texts]), k=2)
        self.answer = nn.ChainOfThought("context: list[str], question -> answer")

    def forward(self, question):
        return self.answer(context=self.search(question), question=question)


print(RAG()(question="Which river flows through Rome?").answer)
