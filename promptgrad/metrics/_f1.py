"""`f1`."""

from collections import Counter
from typing import Any

from promptgrad.metrics._metric import FieldMetric
from promptgrad.metrics._text import words


class F1(FieldMetric):
    """Harmonic mean of precision and recall over the words of answer and right answer, as in SQuAD.

    Source: Rajpurkar et al. 2016, arXiv 1606.05250. Differs: as in `exact_match`, numbers keep sign and decimals, and
    signs such as "+" and "%" count.

    Args:
        field: Name of the field; None for the example's only label.
    """

    name = "f1"

    def score(self, gold: Any, answer: Any) -> float:
        """A share between 0 and 1; 1 if both are empty."""
        wanted, found = words(gold), words(answer)
        if not wanted or not found:
            return float(wanted == found)
        shared = sum((Counter(wanted) & Counter(found)).values())
        return 2 * shared / (len(wanted) + len(found))


f1 = F1()
"""Overlap of words with the right answer; see `F1`. `f1(field="answer")` names a field."""
