"""`exact_match`."""

from collections.abc import Callable
from typing import Any

from promptgrad.metrics._metric import FieldMetric
from promptgrad.metrics._text import words


class ExactMatch(FieldMetric):
    """1 if the answer is the right one, else 0.

    Texts are compared by their words, as in SQuAD's exact match: without case, articles, punctuation of sentences and
    currency signs. Unlike there, numbers keep sign and decimals ("3.5" is not "35"), and other signs count ("C++"
    is not "C#", "A-" not "A+", "x+1" not "x-1"). Values of other types are compared with `==`.

    Args:
        field: Name of the field; None for the example's only label.
        normalize: True compares texts by their words, False as they are, and a function of a text by what it returns.
    """

    name = "exact_match"

    def __init__(self, *, field: str | None = None, normalize: bool | Callable[[str], object] = True) -> None:
        super().__init__(field=field)
        self.normalize = normalize

    def score(self, gold: Any, answer: Any) -> float:
        """1.0 or 0.0."""
        if isinstance(gold, str) and isinstance(answer, str) and gold == answer:
            return 1.0
        if isinstance(gold, str) or isinstance(answer, str):
            if callable(self.normalize):
                return float(self.normalize(str(gold)) == self.normalize(str(answer)))
            if self.normalize:
                return float(words(gold) == words(answer))
        return float(bool(gold == answer))


exact_match = ExactMatch()
"""1 if the answer equals the right one, by its words; see `ExactMatch`. `exact_match(field="answer")` names a field."""
