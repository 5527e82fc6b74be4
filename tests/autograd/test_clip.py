import pytest

import promptgrad as pg
from promptgrad import nn
from promptgrad.autograd import Critique, Gradient, Parameter, Trace, clip_grad_tokens_

TRACE = Trace("e", "solve", 0, {}, {}, 1.0)


def parameter(*critiques, name="p", grad=True):
    made = Parameter("Answer.")
    if grad:
        records = [
            Critique(f"{name}{n}", name, 0, "instruction", text, support=s) for n, (text, s) in enumerate(critiques)
        ]
        made.grad = Gradient([*records, TRACE])
    return made


def texts(made):
    return [critique.text for critique in made.grad.critiques]


def test_the_bound_is_over_all_parameters_and_the_total_before_is_returned():
    first = parameter(("one two", 1), ("three four five", 3), name="first")
    second = parameter(("six seven", 2), ("eight", 1), name="second")
    none = parameter(grad=False)
    assert clip_grad_tokens_(iter([first, none, second]), 6) == 8
    assert (texts(first), texts(second)) == (["three four five"], ["six seven", "eight"])
    assert first.grad.traces == second.grad.traces == (TRACE,)
    assert none.grad is None
    assert clip_grad_tokens_([first, second], 6) == 6
    assert clip_grad_tokens_([first, second], 0) == 6
    assert texts(first) == texts(second) == []
    assert first.grad.traces == (TRACE,)


def test_within_the_bound_nothing_changes():
    one = parameter(("one two", 1))
    before = one.grad
    assert clip_grad_tokens_(one, 2) == 2
    assert one.grad is before
    assert clip_grad_tokens_([], 5) == clip_grad_tokens_(parameter(grad=False), 5) == 0


def test_a_parameter_given_twice_counts_once():
    one = parameter(("one two", 1), ("three four", 1))
    assert clip_grad_tokens_([one, one], 2) == 4
    assert texts(one) == ["one two"]


def test_it_clips_alone_as_gradient_clip_does():
    one = parameter(("a b c", 1), ("d e", 2), ("f", 1))
    clipped = one.grad.clip(4)
    clip_grad_tokens_(one, 4)
    assert one.grad == clipped


def test_between_backward_and_step_it_bounds_what_a_step_reads():
    lm = pg.lm.FunctionLM(pg.testing.Fields(answer="cat", critique="say which word is meant, and name its color"))
    model = nn.Predict("text -> answer").to(lm)
    examples = [pg.Example(text=f"wolf {n}", answer="dog").with_inputs("text") for n in range(3)]
    nn.MetricLoss(pg.metrics.exact_match, critic=lm)(model.map(examples), examples).backward()
    assert pg.clip_grad_tokens_(model.parameters(), 20) == 30
    assert len(model.instruction.grad.critiques) == 2
    assert len(model.demos.grad.traces) == 3


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (nn.Predict("a -> b"), r"write predict\.parameters\(\)"),
        ([parameter(("a b", 1)), "text"], "not 'text'; weights of local models are clipped by torch"),
    ],
)
def test_what_are_no_parameters_is_refused(wrong, said):
    with pytest.raises(TypeError, match=said):
        clip_grad_tokens_(wrong, 1)
    if isinstance(wrong, list):
        assert texts(wrong[0]) == ["a b"]


def test_a_negative_bound_is_refused():
    one = parameter(("a b", 1))
    with pytest.raises(ValueError, match="max_tokens is at least 0"):
        clip_grad_tokens_(one, -1)
    assert texts(one) == ["a b"]
