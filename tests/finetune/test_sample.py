"""Samples: what the program itself would send, with the reply that was right."""

from __future__ import annotations

from typing import Any

import pytest

import promptgrad as pg
from promptgrad import lm, nn
from promptgrad.data import Example
from promptgrad.errors import DataError, InputError
from promptgrad.finetune import Conversation, collect, labeled
from promptgrad.metrics import exact_match

EXAMPLES = [Example(question=q, answer=q.upper()).with_inputs("question") for q in ("a", "b", "c")]


def upper(messages: Any) -> str:
    question = messages[-1]["content"].split("\n")[1]
    return f"Sure!\n[[ ## answer ## ]]\n{question.upper() if question != 'b' else 'wrong'}"


def program() -> nn.Predict:
    return nn.Predict("question -> answer", instruction="Say it loud.").to(lm.FunctionLM(upper))


def test_runs_that_went_right() -> None:
    one = program()
    made = collect(one, EXAMPLES, exact_match)
    assert (made.runs, made.right, made.errors, len(made)) == (3, 2, 0, 2)
    assert repr(made) == "Collected(2 samples of 2 of 3 runs, 0 errors)"
    first = made.samples[0]
    assert [m.role for m in first.messages] == ["system", "user"]
    assert [{"role": m.role, "content": m.content} for m in first.messages] == one.render(question="a")
    assert first.reply == "Sure!\n[[ ## answer ## ]]\nA"  # exactly as it came
    assert first.example_id == EXAMPLES[0].id


@pytest.mark.parametrize("kind", ["calculator", "retriever"])
def test_calls_of_functions_are_no_samples(kind: str) -> None:
    @pg.op(kind=kind)
    def same(text: str) -> str:
        return str(text)

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.solve = program()

        def forward(self, question: str) -> Any:
            return self.solve(question=same(question))

    made = collect(Both(), EXAMPLES, exact_match)
    assert [sample.path for sample in made] == ["solve", "solve"]


def test_a_threshold_and_several_runs() -> None:
    made = collect(program(), EXAMPLES, exact_match, threshold=0.0, n=2)
    assert (made.runs, made.right, len(made)) == (6, 6, 6)
    assert [s.example_id for s in made] == [e.id for e in EXAMPLES for _ in range(2)]


def test_a_failed_run_is_counted_apart() -> None:
    def fails(messages: Any) -> str:
        if "\nb" in messages[-1]["content"]:
            raise ValueError("no")
        return upper(messages)

    made = collect(nn.Predict("question -> answer").to(lm.FunctionLM(fails)), EXAMPLES, exact_match)
    assert (made.runs, made.right, made.errors) == (3, 2, 1)


def test_frozen_parameters_are_no_hindrance() -> None:
    one = program().requires_grad_(False)
    assert len(collect(one, EXAMPLES, exact_match)) == 2
    assert not any(p.requires_grad for p in one.parameters())


def test_a_teacher_with_demos_teaches_the_bare_prompt() -> None:
    student = program()
    teacher = nn.Predict("question -> answer", instruction="Other words.", demos=[Example(question="x", answer="X")])
    teacher.to(lm.FunctionLM(upper))
    first = collect(student, EXAMPLES, exact_match, teacher=teacher).samples[0]
    assert [{"role": m.role, "content": m.content} for m in first.messages] == student.render(question="a")
    assert first.reply == "[[ ## answer ## ]]\nA\n\n[[ ## completed ## ]]"  # as the adapter writes it


def test_another_language_model_as_teacher() -> None:
    student = nn.Predict("question -> answer").to(lm.FunctionLM(lambda messages: "?"))
    assert len(collect(student, EXAMPLES, exact_match)) == 0
    made = collect(student, EXAMPLES, exact_match, teacher=lm.FunctionLM(upper))
    assert len(made) == 2
    assert made.samples[0].reply == "Sure!\n[[ ## answer ## ]]\nA"


def test_every_call_of_a_program_is_a_sample() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.say = nn.Predict("question -> answer")
            self.check = nn.Predict("answer -> verdict: bool")

        def forward(self, question: str) -> Any:
            answer = self.say(question=self.say(question=question).answer).answer
            self.check(answer=answer)
            return answer

    def reply(messages: Any) -> str:
        return "true" if "verdict" in messages[0]["content"] else upper(messages)

    made = collect(Twice().to(lm.FunctionLM(reply)), [EXAMPLES[0]], exact_match)
    assert [s.path for s in made] == ["say", "say", "check"]
    with pytest.raises(DataError, match="the teacher called 'say', and the program has no such module"):
        collect(program(), [EXAMPLES[0]], exact_match, teacher=Twice().to(lm.FunctionLM(reply)))


def test_labels() -> None:
    one = nn.Predict("question -> answer: int").to(lm.FunctionLM(lambda messages: "?"))
    made = labeled(one, [Example(question="1 + 1", answer="2"), Example(question="no label")])
    assert (made.runs, made.right, len(made)) == (2, 1, 1)
    assert made.samples[0].reply == "[[ ## answer ## ]]\n2\n\n[[ ## completed ## ]]"
    assert [{"role": m.role, "content": m.content} for m in made.samples[0].messages] == one.render(question="1 + 1")


def test_labels_that_do_not_fit() -> None:
    one = nn.ChainOfThought("question -> answer: int").to(lm.FunctionLM(lambda messages: "?"))
    with pytest.raises(DataError, match=r"ChainOfThought lacks reasoning.*Give a metric="):
        labeled(one, [Example(question="1 + 1", answer=2)])
    with pytest.raises(InputError, match="does not fit the program"):
        labeled(nn.Predict("question -> answer: int").to(lm.FunctionLM(upper)), [Example(question="1", answer="two")])
    several = nn.ModuleDict({"one": program(), "two": program()})
    with pytest.raises(DataError, match=r"the fields of several modules \(one, two\), so it is not clear whose"):
        labeled(several, EXAMPLES)
    for function in (labeled, lambda p, d: collect(p, d, exact_match)):
        with pytest.raises(DataError, match="the data is empty"):
            function(one, [])


def test_a_sample_is_a_value() -> None:
    sample = Conversation((lm.Message("user", "x"),), "y")
    assert sample == Conversation((lm.Message("user", "x"),), "y")
