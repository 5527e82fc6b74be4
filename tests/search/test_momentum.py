"""What critiques weigh over the steps."""

import pytest

from promptgrad.autograd import Critique, Gradient
from promptgrad.search import Momentum, check_weights
from promptgrad.search._momentum import averaged, weigh


def gradient(*texts):
    return Gradient(Critique(f"e{n}", "pick", 0, "instruction", text) for n, text in enumerate(texts))


def test_the_weight_is_the_support_and_what_says_the_same_is_one():
    assert weigh(gradient("rare", "often", "often")) == {"often": 2, "rare": 1}
    assert weigh(None) == weigh(Gradient()) == {}


def test_what_is_not_said_again_fades_and_is_forgotten():
    old = {"first": 2.0, "faint": 0.4}
    assert averaged({"second": 1.0}, old, 0.5) == {"second": 1.0, "first": 1.0}


def test_momentum_counts_a_gradient_once():
    state = {}
    momentum = Momentum(state, {})
    now = gradient("often")
    for _ in range(2):
        assert momentum.weights("a", now, 0.5) == {"often": 1.0}
    assert momentum.weights("a", gradient("often"), 0.5) == {"often": 1.5}
    assert state == {"a": {"critiques": {"often": 1.5}}}
    assert momentum.weights("a", None, 0.5) == {}
    assert state["a"]["critiques"] == {"often": 0.75}


def test_without_momentum_nothing_is_kept():
    state = {}
    assert Momentum(state, {}).weights("a", gradient("often"), 0.0) == {"often": 1}
    assert state == {}


def test_malformed_weights_are_refused():
    check_weights({"critiques": {"x": 0.5}})
    with pytest.raises(ValueError, match="not negative"):
        check_weights({"critiques": {"x": -1}})
