"""`LocalTrace`: how `loss.backward()` reaches the weights of a local model, also after they were changed."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from promptgrad.errors import ContextWindowError, GraphError
from promptgrad.lm._likelihood import Scored, Tokens, reply_logprobs
from promptgrad.lm._request import Request

if TYPE_CHECKING:
    import torch

    from promptgrad.autograd import Swap, TokenSaliency

LARGEST_RATIO = 2.0
"""Largest weight of a reply that has become likelier since it was sampled: more would be exact, and all variance."""


class Trainable(Protocol):
    """The interface that a trace needs of the LM that sampled it."""

    name: str

    @property
    def model(self) -> Any:
        """The model."""
        ...

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        ...

    def weights(self) -> list[torch.nn.Parameter]:
        """The weights that require gradients."""
        ...

    def offsets(self, request: Request) -> tuple[str, list[tuple[int, int]]]:
        """A prompt as text, and where each of its tokens begins and ends there."""
        ...

    def version(self) -> int:
        """A number that changes with the weights."""
        ...


class LocalTrace:
    """One sampled reply, with all that is needed to compute the gradient of its log-likelihood.

    Attributes:
        lm: The local LM that sampled it.
        prompt_ids: Tokens of the prompt.
        ids: Sampled tokens.
        logprobs: Their log-probabilities when they were sampled, after the temperature.
        temperature: The temperature at which they were sampled; 1 where the likeliest were chosen.
        version: Version of the weights they were sampled with.
        request: The request that they answer; None if it is not known.
    """

    __slots__ = ("ids", "lm", "logprobs", "prompt_ids", "request", "temperature", "version")

    def __init__(
        self,
        lm: Trainable,
        prompt_ids: Sequence[int],
        ids: Sequence[int],
        logprobs: Sequence[float],
        temperature: float,
        version: int,
        request: Request | None = None,
    ) -> None:
        self.lm = lm
        self.prompt_ids = array("i", prompt_ids)
        self.ids = array("i", ids)
        self.logprobs = array("f", logprobs)
        self.temperature = temperature
        self.version = version
        self.request = request

    @property
    def requires_grad(self) -> bool:
        """True if any weight of the model requires a gradient."""
        return bool(self.lm.weights())

    def check_version(self) -> None:
        """Check that the weights are those that the reply was sampled, or its likelihood computed, with.

        Raises:
            GraphError: A weight was changed since.
        """
        if self.lm.version() != self.version:
            raise GraphError(
                f"the weights of {self.lm.name!r} were changed after this reply was sampled or scored, so its gradient "
                "would be that of other weights: call loss.backward() before the optimizer's step"
            )

    def check_length(self) -> None:
        """Check that prompt and reply fit the model.

        Raises:
            ContextWindowError: They do not.
        """
        limit = getattr(self.lm.model.config, "max_position_embeddings", None)
        size = len(self.prompt_ids) + len(self.ids)
        if limit and size > limit:
            raise ContextWindowError(
                f"prompt and reply have {size} tokens, and local model {self.lm.name!r} reads at most {limit}: use "
                "fewer or shorter demos or inputs"
            )

    def log_likelihood(self) -> torch.Tensor:
        """Compute the log-probabilities of the sampled tokens again, with a graph for torch.

        Shape: (number of sampled tokens,).
        """
        import torch

        with torch.enable_grad():
            (scored,) = reply_logprobs(self.lm.model, [self.tokens()], shared=False)
            return scored.logprobs[scored.mask]

    @staticmethod
    def log_likelihoods(traces: Sequence[LocalTrace]) -> list[float]:
        """The log-likelihood of each reply, in nats, with the weights as they are now; what prompts share is shared.

        Cost: few forward passes, of up to 8,192 places each, without a graph.
        """
        import torch

        sums = [0.0] * len(traces)
        of_lm: dict[int, list[int]] = {}
        for place, trace in enumerate(traces):
            of_lm.setdefault(id(trace.lm), []).append(place)
        for own in of_lm.values():
            with torch.no_grad():
                for scored in reply_logprobs(traces[own[0]].lm.model, [traces[place].tokens() for place in own]):
                    for row, total in zip(scored.rows, scored.logprobs.sum(-1).tolist(), strict=True):
                        sums[own[row]] = total
        return sums

    def backward(self, advantage: float) -> None:
        """Add the gradient of `-advantage` times the reply's log-likelihood to the weights' `.grad`.

        If a weight was changed since the reply was sampled, the gradient is weighted by the reply's importance ratio:
        how much likelier it has become, `LARGEST_RATIO` at most. The ratio itself has no gradient.

        Cost: one forward and one backward pass of the model.

        Raises:
            GraphError: The reply was given, not sampled, and a weight was changed since.
        """
        self.backward_all([(self, advantage)])

    @staticmethod
    def backward_all(pairs: Sequence[tuple[LocalTrace, float]]) -> None:
        """Do for many replies what `backward` does for one; what their prompts begin with is computed once.

        So the samples of one large batch may be learned in micro-batches, with a step of the optimizer after each.
        Weighted by the ratio, the expectation over the old policy is the gradient of the present one, except for what
        the bound takes from replies that became much likelier. A ratio is that of one reply: the calls that came before
        it in the same run are taken as they are.

        Cost: few forward and backward passes, of up to 8,192 places each; the ratios cost none.
        Source: truncated importance sampling, Ionides 2008, doi 10.1198/106186008X320456.

        Raises:
            GraphError: A reply was given, not sampled, and a weight was changed since. No gradient is added then.
        """
        import torch

        of_lm: dict[int, list[tuple[LocalTrace, float]]] = {}
        for trace, advantage in pairs:
            if not trace.logprobs:  # a given reply was not sampled, so there is no ratio
                trace.check_version()
            if trace.ids:
                of_lm.setdefault(id(trace.lm), []).append((trace, advantage))
        for own in of_lm.values():
            lm = own[0][0].lm
            traces, version = [trace for trace, _ in own], lm.version()
            with torch.enable_grad():
                for scored in reply_logprobs(lm.model, [trace.tokens() for trace in traces]):
                    weights = torch.tensor([own[row][1] for row in scored.rows], device=scored.logprobs.device)
                    if any(traces[row].version != version for row in scored.rows):
                        weights = weights * _ratios(traces, scored, version)
                    (-(weights[:, None] * scored.logprobs).sum()).backward()

    @staticmethod
    def saliencies(pairs: Sequence[tuple[LocalTrace, float]], text: str) -> tuple[int, list[TokenSaliency]]:
        """In how many of the prompts a text stands, and its tokens with the gradient of what `backward_all` adds."""
        from promptgrad.lm._text_gradient import TextGradient

        gradient = TextGradient(pairs, text)
        return gradient.found, gradient.saliencies()

    @staticmethod
    def swaps(pairs: Sequence[tuple[LocalTrace, float]], text: str, count: int) -> tuple[int, list[Swap]]:
        """In how many of the prompts a text stands, and the replacements of its tokens that promise most."""
        from promptgrad.lm._text_gradient import TextGradient

        gradient = TextGradient(pairs, text)
        return gradient.found, gradient.swaps(count)

    def tokens(self) -> Tokens:
        """The prompt and the reply."""
        return Tokens((*self.prompt_ids, *self.ids), len(self.prompt_ids), self.temperature)

    def to_dict(self) -> dict[str, Any]:
        """Return the trace in JSON types, as a run's journal keeps it."""
        return {
            "prompt_ids": self.prompt_ids.tolist(),
            "ids": self.ids.tolist(),
            "logprobs": [float(f"{score:.9g}") for score in self.logprobs],  # exactly these float32
            "temperature": self.temperature,
        }

    @classmethod
    def from_dict(cls, lm: Trainable, data: Mapping[str, Any], request: Request | None = None) -> LocalTrace:
        """Make a trace from what `to_dict` returned; the LM's weights must be those it was sampled with."""
        kept = data["prompt_ids"], data["ids"], data["logprobs"], data["temperature"]
        return cls(lm, *kept, lm.version(), request)

    def __repr__(self) -> str:
        return f"LocalTrace({self.lm.name!r}, {len(self.prompt_ids)} + {len(self.ids)} tokens)"


def _ratios(traces: Sequence[LocalTrace], scored: Scored, version: int) -> torch.Tensor:
    """How much likelier each reply of some rows is than when it was sampled, bounded; 1 where no weight has changed."""
    import torch

    moved = torch.tensor([traces[row].version != version for row in scored.rows], device=scored.logprobs.device)
    before = torch.tensor([sum(traces[row].logprobs) for row in scored.rows], device=scored.logprobs.device)
    ratios = (scored.logprobs.detach().sum(1) - before).exp().clamp(max=LARGEST_RATIO)
    return torch.where(moved, ratios, 1.0)
