"""`Comparison`: two reports on the same examples."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Comparison:
    """The paired comparison of two reports.

    Attributes:
        score: Mean score of the report whose `compare` was called.
        other: Mean score of the report it was compared with, on the same examples.
        interval: 95 % bootstrap interval of the difference; see `paired_interval`.
        p: Two-sided p-value of the sign-flip permutation test; see `paired_test`.
        pairs: Examples that both scored.
        better: Number of examples on which the first report has the higher score.
        worse: Number of examples on which it has the lower one.
        left_out: Examples that only one of the two scored.
    """

    score: float
    other: float
    interval: tuple[float, float]
    p: float
    pairs: int
    better: int
    worse: int
    left_out: int = 0

    @property
    def difference(self) -> float:
        """Mean difference; above zero if the first report is better."""
        return self.score - self.other

    @property
    def diff(self) -> float:
        """Short for `difference`."""
        return self.difference

    @property
    def significant(self) -> bool:
        """Whether the interval excludes zero."""
        return self.interval[0] > 0 or self.interval[1] < 0

    def __repr__(self) -> str:
        low, high = self.interval
        same = self.pairs - self.better - self.worse
        apart = f", {self.left_out} left out" if self.left_out else ""
        return (
            f"{self.difference:+.3f} [{low:+.3f}, {high:+.3f}], p = {self.p:.2g}: {self.other:.3f} -> {self.score:.3f} "
            f"on {self.pairs} examples ({self.better} better, {self.worse} worse, {same} the same{apart})"
        )
