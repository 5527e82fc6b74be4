"""The objective of GRPO, number by number: beside the same formulas in plain torch, on padded batches."""

from __future__ import annotations

import copy
import math
import random
from statistics import fmean
from typing import Any

import pytest

from promptgrad import lm
from promptgrad.finetune._surrogate import Baseline, SampledReply, Surrogate
from promptgrad.lm import Tokens

torch = pytest.importorskip("torch")
DRAW = random.Random(4)
HEAT = 0.7


def words(number: int) -> tuple[int, ...]:
    return tuple(DRAW.randrange(5, 250) for _ in range(number))


def replies() -> list[SampledReply]:
    """Two groups of rollouts, of which one has a long prompt, with replies of different lengths."""
    made = []
    for prompt in (words(40), words(6)):
        for advantage in (0.75, -0.25, -0.5, 0.3):
            made.append(SampledReply(Tokens((*prompt, *words(DRAW.randrange(1, 7))), len(prompt), HEAT), advantage))
    return made


def fresh() -> Any:
    return copy.deepcopy(lm.pocket().model).requires_grad_(True)


def moved(model: Any, size: float, seed: int) -> Any:
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(100 * seed + number))
            weight.add_(noise * weight.std(), alpha=size)
    return model


def padded(model: Any, batch: list[SampledReply]) -> tuple[Any, Any]:
    """Log-probabilities and mask of the replies, at their places in one padded batch."""
    width = max(len(reply.tokens.ids) for reply in batch)
    ids = torch.tensor([[*reply.tokens.ids, *[0] * (width - len(reply.tokens.ids))] for reply in batch])
    place = torch.arange(width)[None]
    start = torch.tensor([reply.tokens.start for reply in batch])[:, None]
    end = torch.tensor([len(reply.tokens.ids) for reply in batch])[:, None]
    logits = model(input_ids=ids, attention_mask=(place < end).long()).logits[:, :-1] / HEAT
    logprobs = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    return logprobs, ((place >= start) & (place < end))[:, 1:].to(logprobs)


@pytest.mark.parametrize("kl", [0.0, 0.05])
@pytest.mark.parametrize("clip", [(0.2, 0.2), (0.1, 0.3), (50.0, 50.0)])
def test_loss_ratio_clip_and_kl_are_those_of_the_formula(clip: tuple[float, float], kl: float) -> None:
    batch = replies()
    reference, policy = fresh().double(), moved(fresh(), 0.02, 1).double()  # what is compared is small differences
    surrogate = Surrogate(batch, 10, clip=clip, kl=kl, reference=reference)
    first = surrogate.gradient(policy)
    with torch.no_grad():
        sampled, mask = padded(policy, batch)
        held, _ = padded(reference, batch)
    policy.zero_grad()
    moved(policy, 0.03, 2)
    update = surrogate.gradient(policy)
    found = [weight.grad.clone() for weight in policy.parameters()]

    policy.zero_grad()
    now, _ = padded(policy, batch)
    ratio = (now - sampled).exp()
    advantage = torch.tensor([reply.advantage for reply in batch])[:, None]
    gain = torch.minimum(ratio * advantage, ratio.clamp(1 - clip[0], 1 + clip[1]) * advantage)
    apart = (held - now).exp() - (held - now) - 1
    loss = ((kl * apart - gain) * mask).sum() / 10
    loss.backward()
    inside = (ratio >= 1 - clip[0]) & (ratio <= 1 + clip[1])
    bound = torch.where(advantage > 0, ratio > 1 + clip[1], ratio < 1 - clip[0])
    assert bool((~inside & (mask > 0)).any()) == (clip[0] < 1)  # the bounds are met, except where they are far
    assert update.loss == pytest.approx(float(loss.detach()), rel=1e-4)
    assert update.clipped == pytest.approx(float((bound * mask).sum() / mask.sum()))
    assert update.kl == pytest.approx(float((apart * mask).detach().sum() / mask.sum()) if kl else 0.0, rel=1e-3)
    assert first.clipped == 0.0
    for ours, theirs in zip(found, policy.parameters(), strict=True):
        assert float((ours - theirs.grad).abs().max()) <= 1e-4 * float(theirs.grad.abs().max()) + 1e-8


def test_at_first_it_is_the_policy_gradient() -> None:
    """The gradient of advantage times log-likelihood, whatever the length of a reply."""
    batch, policy = replies(), fresh()
    update = Surrogate(batch, 8).gradient(policy)
    found = [weight.grad.clone() for weight in policy.parameters()]
    policy.zero_grad()
    now, mask = padded(policy, batch)
    advantage = torch.tensor([reply.advantage for reply in batch])
    (-(advantage * (now * mask).sum(1)).sum() / 8).backward()
    for ours, theirs in zip(found, policy.parameters(), strict=True):
        assert float((ours - theirs.grad).abs().max()) <= 1e-4 * float(theirs.grad.abs().max()) + 1e-8
    lengths = mask.sum(1)
    assert update.loss == pytest.approx(float(-(advantage * lengths).sum() / 8), rel=1e-5)
    assert update.clipped == update.kl == 0.0


def test_a_reply_that_became_too_likely_has_no_gradient_any_more() -> None:
    good = SampledReply(Tokens((7, 8, 9, 20), 3, 1.0), 1.0)
    policy = fresh()
    surrogate = Surrogate([good], 1, clip=(0.2, 0.2))
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.05)
    for _ in range(50):
        update = surrogate.gradient(policy)
        if update.clipped:
            break
        optimizer.step()
        optimizer.zero_grad()
    assert update.clipped == 1.0
    assert update.loss == pytest.approx(-1.2)
    assert all(float(weight.grad.abs().max()) == 0.0 for weight in policy.parameters())


def test_advantages_within_a_group() -> None:
    scores = [1.0, 0.0, 0.0, 0.5]
    plain, scaled = Baseline.of(scores, scaled=False), Baseline.of(scores, scaled=True)
    assert [plain.advantage(score) for score in scores] == [0.625, -0.375, -0.375, 0.125]
    spread = math.sqrt(fmean([(score - 0.375) ** 2 for score in scores]))
    assert [scaled.advantage(score) for score in scores] == pytest.approx(
        [a / spread for a in (0.625, -0.375, -0.375, 0.125)]
    )
    assert sum(scaled.advantage(score) for score in scores) == pytest.approx(0)
