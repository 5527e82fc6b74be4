"""`summary`: what a program is made of and costs."""

import pytest

import promptgrad as pg
from promptgrad import lm, nn
from promptgrad.testing import Fields


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.facts = nn.Predict("question -> facts: list[str]", demos=[{"question": "?", "facts": ["a"]}])
        self.answer = nn.ChainOfThought("question, facts: list[str] -> answer")
        self.answer.requires_grad_(requires_grad=False)

    def forward(self, question):
        return self.answer(question=question, facts=self.facts(question=question).facts)


def test_without_inputs_nothing_is_sent():
    found = pg.summary(Two())
    assert [(one.path, one.trained, one.demos, one.lm) for one in found.modules] == [
        ("facts", 2, 1, ""),
        ("answer", 0, 0, ""),
    ]
    assert found.spent is None
    assert all(one.prompt > 20 and one.spent is None for one in found.modules)
    assert "question, facts: list[str] -> reasoning, answer" in repr(found)
    assert "calls" not in repr(found)


def test_with_inputs_each_module_has_its_calls():
    model = Two().to(lm.FunctionLM(Fields(facts='["it rains"]', answer="yes"), name="scripted"))
    found = nn.summary(model, question="Does it rain?")
    assert [one.spent.calls for one in found.modules] == [1, 1]
    assert found.spent.calls == 2
    assert found.spent.tokens == sum(one.spent.tokens for one in found.modules)
    assert repr(found).splitlines()[-1].split()[:2] == ["Two", "2"]


def test_the_demos_of_a_selector_are_chosen_and_a_single_call_has_its_line():
    one = nn.Predict("question -> answer").to(lm.FunctionLM(Fields(answer="yes"), name="scripted"))
    one.demos.data = nn.Neighbours([pg.Example(question="?", answer="a").with_inputs("question")])
    found = nn.summary(one, "Really?")
    assert (found.modules[0].demos, found.modules[0].spent.calls) == (-1, 1)
    assert "chosen" in repr(found)
    with pytest.raises(TypeError, match=r"summary takes a program, an nn\.Module, not list"):
        nn.summary([])
