"""`recall`."""

from collections.abc import Mapping
from typing import Any

from promptgrad.data import Score
from promptgrad.metrics._metric import FieldMetric
from promptgrad.metrics._text import words

_MANY = (list, tuple, set, frozenset)


class Recall(FieldMetric):
    """The share of the wanted items that are among those found: of documents, passages, ids.

    An item counts as found if it occurs, as whole words, in one of the things found: so ids are found among ids, and
    titles in passages. The feedback names the missing items.

    Args:
        field: Name of the field with the wanted items, one or a list of them; None for the example's only label. The
            found items are the output's field of that name, or the output itself if it is not a record.
    """

    name = "recall"
    takes_many = True

    def verdict(self, field: str, gold: Any, answer: Any) -> Score:
        """How many of the wanted items were found, and which were not."""
        wanted = list(gold) if isinstance(gold, _MANY) else [gold]
        found = list(answer) if isinstance(answer, _MANY) else [answer]
        self._wants(wanted, field)
        texts = [words(_text(item)) for item in found]
        missing = [item for item in wanted if not any(_within(words(item), text) for text in texts)]
        if not missing:
            return Score(1.0)
        return Score(
            1 - len(missing) / len(wanted),
            feedback=f"not found, of the {field}: {'; '.join(map(str, missing))}",
        )

    def score(self, gold: Any, answer: Any) -> float:
        """A share between 0 and 1."""
        return float(self.verdict("items", gold, answer))


def _text(item: Any) -> str:
    return " ".join(map(str, item.values())) if isinstance(item, Mapping) else str(item)


def _within(wanted: list[str], text: list[str]) -> bool:
    width = len(wanted)
    return any(text[start : start + width] == wanted for start in range(len(text) - width + 1))


recall = Recall()
"""The share of the wanted items that were found; see `Recall`. `recall(field="sources")` names a field."""
