"""A state that 0.1 saved: it is read as it was, into a program of today."""

import json

import promptgrad as pg
from promptgrad import nn

SAVED = r"""{
 "format": "promptgrad.state",
 "version": 1,
 "promptgrad": "0.1.0",
 "state": {
  "find.instruction": "Find it, shortly.",
  "find.demos": [],
  "answer.instruction": "Given the fields `question`, `size`, produce the fields `answer`, `ok`.",
  "answer.demos": [
   {
    "question": "a",
    "size": 3,
    "answer": "b",
    "ok": true
   }
  ],
  "_meta": {
   "schema": 1,
   "program": "QA",
   "kinds": {
    "find.instruction": "instruction",
    "find.demos": "demos",
    "answer.instruction": "instruction",
    "answer.demos": "demos"
   },
   "fields": {
    "find": {
     "inputs": {
      "question": "str",
      "notes": "list[str]"
     },
     "outputs": {
      "reasoning": "str",
      "query": "str"
     }
    },
    "answer": {
     "inputs": {
      "question": "str",
      "size": "int"
     },
     "outputs": {
      "answer": "str",
      "ok": "bool"
     }
    }
   },
   "lms": {}
  }
 }
}"""


class QA(nn.Module):
    def __init__(self):
        super().__init__()
        self.find = nn.ChainOfThought("question, notes: list[str] -> query")
        self.answer = nn.Predict("question, size: int -> answer, ok: bool")

    def forward(self, question):
        return self.answer(question=self.find(question=question, notes=[]).query, size=1)


def test_a_state_of_0_1_is_loaded(tmp_path):
    path = tmp_path / "state.json"
    path.write_text(json.dumps(json.loads(SAVED)))
    program = QA()
    found = program.load_state_dict(pg.load(path))
    assert (found.missing, found.unexpected, found.invalid) == ((), (), {})
    assert program.find.instruction.data == "Find it, shortly."
    assert program.answer.demos.data == (pg.Example(question="a", size=3, answer="b", ok=True),)
    pg.save(program, tmp_path / "again.json")
    other = QA()
    other.load_state_dict(pg.load(tmp_path / "again.json"))
    assert other.answer.request(question="q", size=2).digest() == program.answer.request(question="q", size=2).digest()
