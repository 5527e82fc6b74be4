"""The objective of group-relative policy optimization: a clipped ratio times an advantage, and a KL term."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

from promptgrad.finetune._memory import checkpointed_in_eval
from promptgrad.finetune._training import WHOLE, Share
from promptgrad.lm import Scored, Tokens, reply_logprobs

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class SampledReply:
    """One sampled reply, and how much better than the mean of its group the run was that it is part of.

    Attributes:
        tokens: Prompt and reply, with the temperature at which it was sampled.
        advantage: Its advantage, in units of the score; positive if the reply should become likelier.
        by: The number of the policy that sampled it, where several learn together.
    """

    tokens: Tokens
    advantage: float
    by: int = 0


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the scores of a group are compared with.

    Attributes:
        mean: Their mean.
        scale: What differences from the mean are divided by.
    """

    mean: float
    scale: float = 1.0

    @classmethod
    def of(cls, scores: Sequence[float], *, scaled: bool) -> Baseline:
        """The mean of the scores; with `scaled` also their standard deviation, as of all rollouts there are."""
        return cls(fmean(scores), pstdev(scores) if scaled else 1.0)

    def advantage(self, score: float) -> float:
        """The advantage of a score."""
        return (score - self.mean) / self.scale


@dataclass(frozen=True, slots=True)
class Update:
    """What one gradient was made of.

    Attributes:
        loss: The loss, in units of the score.
        kl: The KL divergence from the reference, in nats for each token of a reply; 0 where it has no weight.
        clipped: Share of the reply tokens whose ratio is beyond its bound, so that they have no gradient.
        tokens: How many reply tokens there were.
    """

    loss: float
    kl: float
    clipped: float
    tokens: int = 0

    @classmethod
    def of(cls, parts: Sequence[Update]) -> Update:
        """What the gradients of several policies come to."""
        if len(parts) == 1:
            return parts[0]
        count = sum(part.tokens for part in parts)
        shares = [(part, part.tokens / count) for part in parts]
        kl, clipped = (sum(getattr(part, name) * share for part, share in shares) for name in ("kl", "clipped"))
        return cls(sum(part.loss for part in parts), kl, clipped, count)


class Surrogate:
    """The clipped surrogate of some replies, whose gradient may be taken several times while the policy moves.

    The loss is the sum over the tokens of all replies of `-min(ratio * advantage, clamp(ratio) * advantage)`, and of
    `kl` times the estimate `exp(r - p) - (r - p) - 1` of the divergence, where `p` and `r` are the token's
    log-probabilities under the policy and the reference; divided by the number of runs. So at a ratio of 1 its gradient
    is that of the expected score. No reply is divided by its length, which would let long wrong replies off.

    The ratio is to the policy that sampled: `gradient` is first called with that policy, and keeps the
    log-probabilities that it computes. They are those of sampling except for the last digits, which there depend on
    the replies that happened to be decoded together.

    Source: Shao et al. 2024, arXiv 2402.03300; the sum over tokens is Liu et al. 2025, arXiv 2503.20783.

    Args:
        replies: The replies.
        runs: The number of runs, of which these replies are part.
        clip: How far the ratio may lie below and above 1.
        kl: Weight of the divergence from the reference.
        reference: The model that the policy is held to; not needed if `kl` is 0.
    """

    def __init__(
        self,
        replies: Sequence[SampledReply],
        runs: int,
        *,
        clip: tuple[float, float] = (0.2, 0.2),
        kl: float = 0.0,
        reference: Any = None,
    ) -> None:
        self.replies = replies
        self.runs = runs
        self.clip = clip
        self.kl = kl
        self._tokens = [reply.tokens for reply in replies]
        self._sampled: list[torch.Tensor] | None = None
        self._reference = _likelihoods(reference, self._tokens) if kl else None

    def gradient(self, model: Any, share: Share = WHOLE) -> Update:
        """Add the gradient of the loss to the weights of a model.

        Cost: one forward and one backward pass over the replies; what their prompts begin with is computed once.
        """
        model.eval()  # the ratio is to what was sampled, and nothing was dropped there
        with checkpointed_in_eval(model):
            return self._gradient(model, share)

    def _gradient(self, model: Any, share: Share) -> Update:
        import torch

        below, above = 1 - self.clip[0], 1 + self.clip[1]
        kept: list[Any] = [None] * len(self.replies)
        total = divergence = beyond = 0.0
        for scored in reply_logprobs(model, self._tokens, limit=share.limit):
            now, mask = scored.logprobs, scored.mask
            gains = [self.replies[row].advantage for row in scored.rows]
            advantage = torch.tensor(gains, dtype=now.dtype, device=now.device)[:, None]
            if self._sampled is None:
                kept_here = now.detach()
                for place, row in enumerate(scored.rows):
                    kept[row] = kept_here[place][mask[place]]
            else:
                kept_here = _laid_out(self._sampled, scored)
            ratio = (now - kept_here).exp()
            free, bound = ratio * advantage, ratio.clamp(below, above) * advantage
            loss = -torch.minimum(free, bound)
            beyond += float(((free > bound) & mask).sum())
            if self._reference is not None:
                gap = _laid_out(self._reference, scored) - now
                apart = gap.exp() - gap - 1
                divergence += float((apart.detach() * mask).sum())
                loss = loss + self.kl * apart
            part = (loss * mask).sum() / self.runs
            part.backward()
            total += float(part.detach())
        if self._sampled is None:
            self._sampled = kept
        count = sum(len(tokens.ids) - tokens.start for tokens in self._tokens)
        return Update(total, divergence / count, beyond / count, count)


def _likelihoods(model: Any, batch: Sequence[Tokens]) -> list[torch.Tensor]:
    """The log-probabilities of the tokens of each reply, without a graph."""
    import torch

    found: list[Any] = [None] * len(batch)
    with torch.no_grad():
        for scored in reply_logprobs(model, batch):
            for place, row in enumerate(scored.rows):
                found[row] = scored.logprobs[place][scored.mask[place]]
    return found


def _laid_out(known: Sequence[torch.Tensor], scored: Scored) -> torch.Tensor:
    """Values of reply tokens in the shape of some rows of the batch; 0 at padding."""
    import torch

    own: Iterable[torch.Tensor] = [known[row] for row in scored.rows]
    flat = torch.cat(list(own)).to(scored.logprobs)
    return torch.zeros_like(scored.logprobs, requires_grad=False).masked_scatter(scored.mask, flat)
