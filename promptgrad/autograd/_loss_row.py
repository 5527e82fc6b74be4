"""`LossRow`: one sample of a batch, as the criterion judged it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from promptgrad.autograd._edges import exact_sources, joined_sources
from promptgrad.autograd._node import Node
from promptgrad.autograd._sample import sample_of

if TYPE_CHECKING:
    from promptgrad.autograd._critic import WeightTrace
    from promptgrad.autograd._tape import Tape

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class LossRow:
    """One sample of a batch, as the criterion judged it.

    Attributes:
        example: The example.
        output: What the forward returned.
        score: The metric's score, in [0, best]; of no meaning in an error row.
        best: The best possible score.
        feedback: What is wrong according to the metric; may be empty.
        tape: The record of the forward; None when it was not recorded.
        error: Why the forward or the metric failed; None when it did not.
        replicate: Which rollout of the example it is.
        node: The call that it is about, where that is not what the forward returned: backward begins there.
        module_feedback: What is wrong with single modules, by path, besides `feedback`: a text for the latest call of
            the module, or a sequence with one text for each of its calls.
        weight: Its weight in the mean of the loss; for a target the number of its tokens.
        target: The right reply of a local model, where the loss is its negative log-likelihood, in nats a token, so
            that `best` is 0: weights get the exact gradient, and texts nothing.
    """

    example: Any
    output: Any
    score: float
    best: float = 1.0
    feedback: str = ""
    tape: "Tape | None" = None
    error: BaseException | None = None
    replicate: int = 0
    node: "Node | None" = None
    module_feedback: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    weight: float = 1.0
    target: "WeightTrace | None" = None

    @property
    def loss(self) -> float:
        """`best - score`; nan in an error row."""
        return math.nan if self.error is not None else self.best - self.score

    @property
    def example_id(self) -> str:
        """The id of the example in gradients and reports; empty if it has none."""
        return sample_of(self.example).id

    @property
    def recorded(self) -> "Tape | None":
        """The record of the forward: `tape`, else the one that the output itself remembers."""
        if self.tape is not None:
            return self.tape
        sources = (source for fn in exact_sources(self.output) for source in joined_sources(fn))
        return next((source.tape for source in sources if isinstance(source, Node)), None)

    @property
    def failed(self) -> bool:
        """Whether a text may be to blame: an error, or less than the best score of a metric."""
        return self.error is not None or (self.target is None and self.score < self.best - _TOLERANCE)
