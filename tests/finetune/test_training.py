"""A training in progress: its state between steps is all that the next step depends on."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import pytest
import torch

from promptgrad import lm
from promptgrad.errors import DataError
from promptgrad.finetune._train import add_lora, likelihood
from promptgrad.finetune._training import Training, TuneSettings
from promptgrad.lm import Tokens

DATA = [Tokens((2, 3, 20 + i, 30, 40 + i, 4), 4) for i in range(6)]
SETTINGS = TuneSettings({"r": 4, "dropout": 0.5}, 6, 1e-2, 4)


def begun(settings: TuneSettings = SETTINGS) -> Training:
    torch.manual_seed(5)
    model = copy.deepcopy(lm.pocket().model).requires_grad_(settings.lora is None)
    return Training(model if settings.lora is None else add_lora(model, settings.lora), settings)


def steps(training: Training, number: int) -> list[float]:
    """Some steps, and the loss of each."""
    with training.running():
        for _ in range(number):
            training.step(partial(likelihood, training.model, DATA))
    return training.losses


def equal(one: Training, other: Training) -> bool:
    return all(torch.equal(weight, other.weights[name]) for name, weight in one.weights.items())


@pytest.fixture(autouse=True)
def _own_random_numbers() -> Any:
    with torch.random.fork_rng():
        yield


@pytest.mark.parametrize("lora", [{"r": 4, "dropout": 0.5}, None])
def test_loaded_it_goes_on_as_if_it_had_never_stopped(lora: dict[str, Any] | None) -> None:
    settings = TuneSettings(lora, 6, 1e-2 if lora else 1e-3, 4)
    whole = begun(settings)
    losses = list(steps(whole, 6))
    assert whole.done
    first = begun(settings)
    steps(first, 3)
    tensors, facts = first.state()
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    again = begun(settings)
    torch.manual_seed(99)
    again.load_state(tensors, facts)
    assert equal(again, first)
    assert not equal(again, whole)
    assert steps(again, 3) == losses
    assert equal(again, whole)


def test_the_state_before_the_first_step_is_a_state_too() -> None:
    first, again = begun(), begun()
    tensors, facts = first.state()
    torch.manual_seed(99)
    again.load_state({name: tensor.clone() for name, tensor in tensors.items()}, facts)
    losses = list(steps(again, 2))
    torch.manual_seed(5)
    assert steps(begun(), 2) == losses


def test_a_gradient_that_was_cut_short_left_no_trace() -> None:
    whole, cut = begun(), begun()
    losses = list(steps(whole, 4))
    torch.manual_seed(5)
    cut = begun()
    steps(cut, 2)

    def interrupted() -> float:
        likelihood(cut.model, DATA)
        raise KeyboardInterrupt

    with cut.running():
        cut.step(interrupted)
    assert len(cut.losses) == 2
    assert cut.whole
    again = begun()
    again.load_state(*cut.state())
    assert steps(again, 2) == losses
    assert equal(again, whole)


def test_a_step_that_was_cut_in_its_middle_is_no_state() -> None:
    training = begun()
    steps(training, 1)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    training.optimizer.register_step_post_hook(interrupt)  # raised there, which a signal is not
    steps(training, 1)
    assert not training.whole
    with pytest.raises(RuntimeError, match="cut in its middle"):
        training.state()


def test_the_end_keeps_weights_alone() -> None:
    training = begun()
    steps(training, 6)
    tensors, facts = training.state()
    assert {name.split(".")[0] for name in tensors} == {"weight"}
    loaded = begun()
    loaded.load_state(tensors, facts)
    assert loaded.done
    assert equal(loaded, training)


def test_what_is_no_number_is_the_end_and_loaded_it_is_the_end_too() -> None:
    training = begun()
    steps(training, 2)
    kept = {name: weight.detach().clone() for name, weight in training.weights.items()}
    with pytest.warns(UserWarning, match="ends after 2 steps, as the loss is nan"):
        assert training.step(lambda: likelihood(training.model, DATA) * math.nan) is None
    assert training.done
    assert all(torch.equal(kept[name], weight) for name, weight in training.weights.items())
    loaded = begun()
    loaded.load_state(*training.state())
    assert loaded.ended == training.ended
    assert loaded.done
    with pytest.raises(DataError, match="the loss is inf in the first step"):
        begun().step(lambda: math.inf)


def test_the_state_of_other_weights_is_refused() -> None:
    training, other = begun(), begun(TuneSettings({"r": 2}, 6, 1e-2, 4))
    before = {name: weight.detach().clone() for name, weight in training.weights.items()}
    with pytest.raises(ValueError, match="not the weights that are trained here"):
        training.load_state(*other.state())
    assert all(torch.equal(before[name], weight) for name, weight in training.weights.items())


def test_the_rate_rises_then_falls_to_nothing() -> None:
    training = begun(TuneSettings({"r": 2}, 40, 1.0, 4))
    rates = []
    for _ in range(40):
        rates.append(training.rate())
        training.losses.append(0.0)
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(1 / 38)


def test_a_step_is_seen_by_what_keeps_keys_and_values_of_the_weights() -> None:
    """torch's fused AdamW changes weights without a new version, by which a decoder knows that they changed."""
    local = lm.pocket().with_model(copy.deepcopy(lm.pocket().model).requires_grad_(True), "mine")
    assert local.model is not None  # it is loaded
    training = Training(local.model, TuneSettings(None, 2, 1e-3, 4))
    before = local.version(), local.identity()
    training.step(lambda: likelihood(local.model, DATA[:4]))
    assert local.version() > before[0]
    assert local.identity() != before[1]
    local.close()
