"""The loop itself: which tokens are learned, batches, rates, what ends it."""

from __future__ import annotations

import copy
import math
import random
from collections import Counter
from itertools import islice
from typing import Any

import pytest
import torch

from promptgrad import lm
from promptgrad.errors import DataError
from promptgrad.finetune._train import _batches, add_lora, count_steps, default_lr, likelihood, train
from promptgrad.finetune._training import Share, TuneSettings
from promptgrad.lm import Tokens

DATA = [Tokens((2, 3, 20 + i, 30, 40 + i, 4), 4) for i in range(6)]


def fresh() -> torch.nn.Module:
    return copy.deepcopy(lm.pocket().model).requires_grad_(True)


def test_every_sample_once_in_an_epoch() -> None:
    batches = list(islice(_batches(DATA, 4, random.Random(0)), 6))
    assert [len(batch) for batch in batches] == [4] * 6
    assert set(Counter(tokens for batch in batches for tokens in batch).values()) == {4}
    assert len(next(_batches(DATA, 100, random.Random(0)))) == 6
    assert batches == list(islice(_batches(DATA, 4, random.Random(0)), 6))
    assert batches != list(islice(_batches(DATA, 4, random.Random(1)), 6))


def test_it_learns_and_repeats_itself() -> None:
    settings = TuneSettings(None, 6, 1e-3, 4)
    first, second, other = fresh(), fresh(), fresh()
    losses = train(first, DATA, settings)
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    assert train(second, DATA, settings) == losses
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert train(other, DATA, TuneSettings(None, 6, 1e-3, 4, seed=1)) != losses
    assert not first.training


def test_a_step_has_the_gradient_of_its_own_batch_and_of_all_of_it() -> None:
    """Also in the second step."""
    data = [
        Tokens(tuple(2 + (7 * place + row) % 50 for place in range(length)), length // 2)
        for row, length in enumerate((4, 6, 60, 70))
    ]

    def objective(model: torch.nn.Module, batch: list[Tokens], *share: Any) -> float:
        assert all(weight.grad is None for weight in model.parameters())
        twin = copy.deepcopy(model)
        scores = []
        for tokens in batch:
            told = twin(input_ids=torch.tensor([tokens.ids])).logits[0].log_softmax(-1)
            scores += [told[place - 1, tokens.ids[place]] for place in range(tokens.start, len(tokens.ids))]
        whole = -torch.stack(scores).mean()
        whole.backward()
        loss = likelihood(model, batch, *share)
        assert loss == pytest.approx(whole.item(), rel=1e-4)
        for own, other in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(own.grad, other.grad, rtol=1e-3, atol=1e-5)
        return loss

    assert len(train(fresh(), data, TuneSettings(None, 2, 1e-3, 4), objective)) == 2


def test_ctrl_c_keeps_the_steps_that_are_done() -> None:
    done: list[float] = []

    def interrupt(loss: float) -> None:
        done.append(loss)
        if len(done) == 2:
            raise KeyboardInterrupt

    model = fresh()
    assert train(model, DATA, TuneSettings(None, 50, 1e-3, 4), on_step=interrupt) == done
    assert len(done) == 2
    assert not model.training

    def at_once() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model, DATA, TuneSettings(None, 50, 1e-3, 4), stopped=at_once)
    assert train(model, DATA, TuneSettings(None, 50, 1e-3, 4), stopped=lambda: True) == []


def test_a_loss_that_is_no_number_ends_the_training_with_the_last_good_weights() -> None:
    model, kept, steps = fresh(), [], []

    def objective(model: torch.nn.Module, batch: list[Tokens], share: Share) -> float:
        steps.append(1)
        if len(steps) <= 3:
            kept[:] = [weight.clone() for weight in model.parameters()]
        return likelihood(model, batch) if len(steps) < 3 else math.nan

    says = r"ends after 2 steps, as the loss is nan in the next one \(its batch: sample \d.*lower lr than 0.001"
    with pytest.warns(UserWarning, match=says):
        losses = train(model, DATA, TuneSettings(None, 9, 1e-3, 4), objective)
    assert len(losses) == 2
    assert all(torch.equal(a, b) for a, b in zip(kept, model.parameters(), strict=True))
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(DataError, match="the loss is nan in the first step"):
        train(model, DATA, TuneSettings(None, 9, 1e-3, 4))


@pytest.mark.parametrize("lora", [None, {"r": 2}])
def test_a_step_that_spoilt_the_weights_is_taken_back(lora: dict[str, Any] | None) -> None:
    model = fresh() if lora is None else add_lora(copy.deepcopy(lm.pocket().model), lora)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    with pytest.warns(UserWarning, match=r"after 1 steps.*the weights are those at the start, as step 1 has spoilt"):
        losses = train(model, DATA, TuneSettings(lora, 9, 1e30, 4))
    assert len(losses) == 1
    assert all(torch.equal(before[name], weight) for name, weight in model.named_parameters())
    assert math.isfinite(likelihood(model, DATA[:4]))


def test_a_lora_trains_nothing_else() -> None:
    model = add_lora(copy.deepcopy(lm.pocket().model), {"r": 2})
    base = {name: w.clone() for name, w in model.named_parameters() if "lora_" not in name}
    train(model, DATA, TuneSettings({"r": 2}, 2, 1e-2, 4))
    assert all(torch.equal(base[name], w) for name, w in model.named_parameters() if name in base)
    assert any(w.abs().sum() > 0 for name, w in model.named_parameters() if "lora_B" in name)
    with pytest.raises(ValueError, match="not 'rank'"):
        add_lora(model, {"rank": 2})


def test_defaults() -> None:
    assert count_steps(64, 32, None, None) == 60
    assert count_steps(10_000, 32, None, None) == 938
    assert count_steps(64, 32, 2, None) == 4
    assert count_steps(64, 32, None, 7) == 7
    assert default_lr(10**6, lora=True) > default_lr(10**9, lora=True) > default_lr(10**9, lora=False)
