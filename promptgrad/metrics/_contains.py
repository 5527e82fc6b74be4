"""`contains`."""

from typing import Any

from promptgrad.metrics._metric import FieldMetric
from promptgrad.metrics._text import words


class Contains(FieldMetric):
    """1 if the right answer occurs in the output as whole words, else 0: for outputs that say more than the answer.

    Args:
        field: Name of the field; None for the example's only label.
    """

    name = "contains"

    def score(self, gold: Any, answer: Any) -> float:
        """1.0 or 0.0."""
        wanted, text = words(gold), words(answer)
        width = len(wanted)
        return float(any(text[start : start + width] == wanted for start in range(len(text) - width + 1)))


contains = Contains()
"""1 if the right answer occurs in the output; see `Contains`. `contains(field="answer")` names a field."""
