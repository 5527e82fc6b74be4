"""Where only one call can be to blame, the feedback is the critique, and nobody is asked."""

import pytest

import promptgrad as pg
from promptgrad import nn
from promptgrad.autograd import Loss
from promptgrad.data import Example
from promptgrad.lm import FunctionLM
from promptgrad.testing import Fields
from tests.autograd.programs import Call, ScriptedCritic, row, texts

WORDS = Fields(word="cat", name="red", critique="bad", critique_of_word="bad word")


def always_wrong(example, output):
    return pg.Score(0.0)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.pick = nn.Predict("text -> word")
        self.paint = nn.Predict("word -> name")

    def forward(self, text):
        return self.paint(word=self.pick(text=text).word)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.pick = nn.Predict("text -> word")

    def forward(self, text):
        return self.pick(text=f"more of {self.pick(text=text).word}")


EXAMPLE = Example(text="wolf", word="grey").with_inputs("text")


def asked(model, *, critic=None, inputs=None, lm=None):
    """How many critic calls a failure of the program takes."""
    model.to(lm or FunctionLM(WORDS))
    return nn.MetricLoss(always_wrong, critic)(model.map([EXAMPLE]), [EXAMPLE]).backward(inputs=inputs).calls


def test_the_feedback_is_the_critique_with_the_call_as_its_evidence():
    model = nn.Predict("text -> word")
    assert asked(model) == 0
    (critique,) = model.instruction.grad.critiques
    assert critique.text == "the word should be grey"
    assert (critique.target, critique.verdict, critique.example_id) == ("instruction", "wrong", EXAMPLE.id)
    assert critique.evidence == {
        "inputs": {"text": "wolf"},
        "outputs": {"word": "cat"},
        "feedback": ("the word should be grey",),
    }
    assert len(model.demos.grad.traces) == 1


def test_a_critic_that_is_named_is_asked():
    assert asked(nn.Predict("text -> word"), critic=FunctionLM(WORDS)) == 1
    assert asked(nn.Predict("text -> word"), critic=nn.Critic()) == 1
    assert asked(nn.Predict("text -> word"), critic=nn.Critic(spare=True)) == 0
    model = nn.Predict("text -> word").to(FunctionLM(WORDS))
    loss = nn.MetricLoss(always_wrong)(model.map([EXAMPLE]), [EXAMPLE])
    assert loss.backward(FunctionLM(WORDS)).calls == 1


def test_a_default_for_the_process_says_who_divides_blame_not_that_there_is_any():
    model = nn.Predict("text -> word").to(FunctionLM(WORDS))
    with pg.context(critic=FunctionLM(WORDS)):
        assert nn.MetricLoss(always_wrong)(model.map([EXAMPLE]), [EXAMPLE]).backward().calls == 0


def test_a_frozen_call_passes_the_feedback_on():
    model = Two()
    model.paint.requires_grad_(requires_grad=False)
    assert asked(model) == 0
    assert [critique.text for critique in model.pick.instruction.grad.critiques] == ["the word should be grey"]


def test_where_two_calls_can_be_to_blame_somebody_is_asked():
    assert asked(Two()) > 0
    assert asked(Twice()) > 0, "two calls of one module"


def test_a_call_of_which_no_gradient_is_wanted_can_be_to_blame_all_the_same():
    model = Two()
    assert asked(model, inputs=[model.paint.instruction]) == 1


def test_a_parameter_in_the_programs_own_text_can_be_to_blame_as_well():
    class Told(nn.Module):
        def __init__(self):
            super().__init__()
            self.persona = pg.Parameter("a pirate")
            self.pick = nn.Predict("text -> word")

        def forward(self, text):
            return self.pick(text=f"{self.persona}")

    assert asked(Told()) == 1


def test_a_loss_without_any_critic_needs_none():
    solve = Call("solve", lambda q: "x")
    Loss([row(lambda q: solve(q=q).out, EXAMPLE, feedback="shorter", q="1")]).backward()
    assert texts(solve.instruction) == ["shorter"]


def test_a_critic_of_your_own_is_asked():
    solve, critic = Call("solve", lambda q: "x"), ScriptedCritic()
    assert Loss([row(lambda q: solve(q=q).out, EXAMPLE, q="1")], critic).backward().calls == 1


@pytest.mark.parametrize("adapter", ["chat", "pocket"])
def test_a_model_that_writes_from_critiques_alone_gets_critiques(adapter):
    def answer(messages):
        return "cat" if adapter == "pocket" else WORDS(messages)

    lm = FunctionLM(answer, "worker", adapter=adapter)
    assert asked(nn.Predict("text -> answer", instruction="give the first word"), lm=lm) == (
        1 if adapter == "pocket" else 0
    )


def test_hooks_of_the_call_see_the_feedback():
    seen = []
    model = nn.Predict("text -> word")
    model.register_full_backward_hook(lambda module, blame, feedback: seen.append((dict(blame), feedback)))
    asked(model)
    assert seen == [({"instruction": ("the word should be grey",)}, ("the word should be grey",))]
