"""One row of a report."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from promptgrad.lm import Usage
from promptgrad.nn import Check

NO_USAGE = Usage()


@dataclass(slots=True, eq=False)
class ReportRow:
    """One example, the program's output and the metric's verdict.

    Attributes:
        example: The example.
        output: What the program returned; None where it failed.
        score: The metric's score; NaN where program or metric failed.
        feedback: The metric's feedback.
        error: Why it failed, or None. Such a row has no score, rather than a low one.
        usage: Its cost, with the metric's calls.
        seconds: How long it took.
        replicate: Which of several runs on the example.
        parts: The metric's scores of named aspects.
        checks: The conditions of `nn.Assert` and `nn.Suggest` that were looked at, in their order.
        costs: What the program's own calls cost, without those of the metric and as if there were no cache, by the
            names in `COSTS`; None where that is not known.
    """

    example: Any
    output: Any = None
    score: float = math.nan
    feedback: str = ""
    error: BaseException | None = None
    usage: Usage = NO_USAGE
    seconds: float = 0.0
    replicate: int = 0
    parts: Mapping[str, float] | None = None
    checks: Sequence[Check] = ()
    costs: Mapping[str, float | None] = field(default_factory=dict)

    def __repr__(self) -> str:
        what = f"error={type(self.error).__name__}" if self.error is not None else f"score={self.score:g}"
        return f"ReportRow({what}, example={self.example!r:.120}, output={self.output!r:.80})"
