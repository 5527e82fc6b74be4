"""The cost of one run of the program, and a line of a run's history."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from promptgrad.search._candidate import Candidate


@dataclass(frozen=True)
class Cost:
    """The average cost of running the program on one example."""

    calls: float = 1.0
    tokens: float = 0.0
    usd: float = 0.0


@dataclass(frozen=True)
class Trial:
    """One line of a run's history.

    Attributes:
        number: Counts the trials of the run.
        candidate: The candidate that was tried.
        score: Its mean score.
        examples: Number of examples it was scored on.
        note: The optimizer's remark on it.
        details: Further fields: indices of a search point, a gate's interval.
    """

    number: int
    candidate: Candidate
    score: float
    examples: int
    note: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        note = f"  {self.note}" if self.note else ""
        score = f"{self.score:.3f} on {self.examples}" if self.examples else "not scored"
        return f"Trial {self.number}: {score}  {self.candidate.origin}{note}"
