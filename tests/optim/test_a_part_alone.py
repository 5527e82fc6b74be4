"""A module is trained alone, whatever was done with the program that it is a part of."""

import pytest

from promptgrad import Trainer, lm, optim
from promptgrad.data import Example
from promptgrad.metrics import exact_match

WORDS = [f"{first}{last}" for first in ("red", "lime", "navy", "sand") for last in "abcdefgh"]


@pytest.mark.parametrize(
    "make",
    [
        lambda params: optim.LabeledFewShot(params, k=4),
        lambda params: optim.TGD(params, steps=2, batch_size=4),
        lambda params: optim.MIPRO(params, num_candidates=2, num_demo_sets=2, num_trials=4),
        lambda params: optim.GEPA(params, steps=2),
    ],
    ids=["LabeledFewShot", "TGD", "MIPRO", "GEPA"],
)
def test_after_the_whole_was_called_and_listed(world, make):
    """0.1: its parameters kept the paths of the whole, so that optimizers did not find them again."""
    whole = world.Program().to(lm.FunctionLM(world.answer, name="simulated"))
    assert whole(text="red green").answer == "red"
    list(whole.named_parameters(prefix="x"))
    whole.state_dict()
    rows = [Example(word=word, answer=word[::-1]).with_inputs("word") for word in WORDS]
    result = Trainer(whole.spell, make(whole.spell.parameters()), metric=exact_match, seed=0).fit(rows[:12], rows[12:])
    assert result.shipped
    assert result.values.keys() <= {"instruction", "demos"}
    assert whole(text="red green").answer == "der"
    assert [name for name, _ in whole.named_parameters()][2:] == ["spell.instruction", "spell.demos"]
