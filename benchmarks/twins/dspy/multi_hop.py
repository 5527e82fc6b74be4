import sys

import dspy

dspy.configure(lm=dspy.LM("openai/gpt-4o-mini", api_base=sys.argv[1], api_key="none"))


def find(query, k):
    return [f"what is known of {query}"][:k]


class MultiHop(dspy.Module):
    def __init__(self):
        super().__init__()
        self.query = dspy.ChainOfThought("question, notes: list[str] -> query")
        self.answer = dspy.ChainOfThought("question, notes: list[str] -> answer")

    def forward(self, question):
        notes = []
        for _ in range(2):
            query = self.query(question=question, notes=notes).query
            notes += find(query, k=1)
        return self.answer(question=question, notes=notes)


print(MultiHop()(question="Where was the inventor of the telephone born?").answer)
