"""`Verdict`: the comparison of a proposal with the current values on the same examples."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """The comparison of a proposal with the current values on the same examples.

    Attributes:
        accepted: Whether the evidence was enough.
        before: Mean score of the current values.
        after: Mean score of the proposal.
        low: Lower end of the interval of the paired difference, at `confidence`.
        high: Upper end.
        pairs: Number of pairs.
        confidence: Coverage of the interval's lower bound, one-sided; corrected for the choice among `of` proposals.
        reason: The decision in words.
        price: What the growth of the texts costs, in score: the gain must exceed it; negative where they shrink.
        of: Number of proposals that were measured; the best of them is compared.
        dropped: Number of rows left out because a language model gave no answer.
    """

    accepted: bool = False
    before: float = 0.0
    after: float = 0.0
    low: float = 0.0
    high: float = 0.0
    pairs: int = 0
    confidence: float = 0.9
    reason: str = ""
    price: float = 0.0
    of: int = 1
    dropped: int = 0

    @property
    def gain(self) -> float:
        """Mean paired difference, without the price."""
        return self.after - self.before

    @property
    def effect(self) -> str:
        """Gain and interval in a few words."""
        return f"gain {self.gain:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"

    def __str__(self) -> str:
        price = f", price {self.price:+.3f}" if self.price else ""
        best = f", best of {self.of}" if self.of > 1 else ""
        if not self.pairs:
            return f"no row compared, {self.dropped} without an answer"
        rows = "row" if self.dropped == 1 else "rows"
        left = f" ({self.dropped} {rows} without an answer left out)" if self.dropped else ""
        pairs = f"{self.pairs} pair{'' if self.pairs == 1 else 's'}"
        return f"{self.before:.3f} -> {self.after:.3f} on {pairs}{left}{best}, {self.effect}{price}"
