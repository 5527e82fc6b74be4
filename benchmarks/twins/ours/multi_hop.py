import sys

import promptgrad as pg
from promptgrad import nn

pg.configure(lm=pg.LM("openai/gpt-4o-mini", base_url=sys.argv[1], api_key="none"))


def find(query, k):
    return [f"what is known of {query}"][:k]


class MultiHop(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.ChainOfThought("question, notes: list[str] -> query")
        self.answer = nn.ChainOfThought("question, notes: list[str] -> answer")

    def forward(self, question):
        notes = []
        for _ in range(2):
            notes += find(self.query(question=question, notes=notes).query, k=1)
        return self.answer(question=question, notes=notes)


print(MultiHop()(question="Where was the inventor of the telephone born?").answer)
