"""`numeric_match`."""

import math
import re
import unicodedata
from typing import Any

from promptgrad._patterns import late_pattern
from promptgrad.adapters import last_number
from promptgrad.errors import MetricError
from promptgrad.metrics._metric import FieldMetric

_FRACTION = late_pattern(
    r"(?<![\w.,/])([-+]?)(?:(\d{1,15})[ ]+)?(\d{1,15})[ ]?/[ ]?(\d{1,15})(?![\w/]|[.,]\d)"
)  # 1/2, 2 1/2

_LATEX_FRACTION = late_pattern(r"\\[dt]?frac\{(\d{1,15})\}\{(\d{1,15})\}")
_ONE_SIGN = late_pattern("[\xbc-\xbe\u2150-\u215e]")  # 2½
_LONG = 10_000
"""Characters at the end of a text in which fractions are read."""


class NumericMatch(FieldMetric):
    """1 if the answer is the right number, else 0. In a text the last number counts ("so she pays $1,234.50.").

    Texts are read as those of typed fields are: "3.5 billion", "1.234,56"; "1,234" is 1234 here. Simple fractions are
    numbers, "1/2", "2½" and LaTeX's; a percent sign is ignored, as all units are.

    Args:
        field: Name of the field; None for the example's only label.
        tolerance: Largest difference, as a share of the right number (of 1 where that is smaller).
    """

    name = "numeric_match"

    def __init__(self, *, field: str | None = None, tolerance: float = 1e-6) -> None:
        super().__init__(field=field)
        self.tolerance = tolerance

    def score(self, gold: Any, answer: Any) -> float:
        """1.0 or 0.0.

        Raises:
            MetricError: The right answer is not a number.
        """
        wanted, found = number(gold), number(answer)
        if wanted is None:
            raise MetricError(f"numeric_match: the right answer {gold!r} holds no number")
        return float(found is not None and abs(found - wanted) <= self.tolerance * max(1.0, abs(wanted)))


def number(value: Any) -> float | None:
    """The number that a value is, or the last number in a text; None if it is missing or not finite."""
    if isinstance(value, bool):
        return None
    if not isinstance(value, str):
        try:
            found = float(value)
        except (TypeError, ValueError, OverflowError):
            value = str(value)
        else:
            return found if math.isfinite(found) else None
    text = value.replace("\N{MINUS SIGN}", "-")
    last = last_number(text[:-_LONG] + _with_quotients(text[-_LONG:]))
    if last is None:
        return None
    found = float(last)
    return found if math.isfinite(found) else None


def _with_quotients(text: str) -> str:
    """A text with fractions as decimal numbers."""
    text = _LATEX_FRACTION.sub(r" \1/\2", text)
    text = _ONE_SIGN.sub(lambda sign: f" {unicodedata.normalize('NFKC', sign[0])}", text)
    return _FRACTION.sub(_quotient, text.replace("\N{FRACTION SLASH}", "/"))


def _quotient(match: re.Match[str]) -> str:
    """A fraction as a decimal number."""
    sign, whole, above, below = match.groups()
    if not int(below):
        return match.group()
    return f"{sign}{int(whole or 0) + int(above) / int(below)!r}"


numeric_match = NumericMatch()
"""1 if the answer is the right number; see `NumericMatch`. `numeric_match(tolerance=0.01)` allows 1 percent."""
