"""What one run of the program costs, and a line of a run's history."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from promptgrad.search._candidate import Candidate


@dataclass(frozen=True)
class Cost:
    """What running the program on one example costs, on average."""

    calls: float = 1.0
    tokens: float = 0.0
    usd: float = 0.0


@dataclass(frozen=True)
class Trial:
    """One line of a run's history.

    Attributes:
        number: Counts the trials of the run.
        candidate: What was tried.
        score: Its mean score.
        examples: On how many examples.
        note: What the optimizer made of it.
        details: What the optimizer adds: indices of a search point, a gate's interval.
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
