"""`recall_at`, `ndcg_at` and `mrr`: how good a ranking is, by the ids of what is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from math import log2
from typing import Any

from promptgrad.data import Score
from promptgrad.errors import MetricError
from promptgrad.metrics._metric import FieldMetric, read_field

_MANY = (list, tuple, set, frozenset)


class RankingMetric(FieldMetric):
    """Base of the metrics of rankings: of what a search found, the best first, against what is wanted.

    What is wanted is an id, a list of ids, or a mapping from ids to grades, of which those above 0 are wanted. What was
    found is a list of ids, of passages of `promptgrad.retrieve`, or of records with an `id`; a text without an id is
    its own id. It is the output itself, or its field `found`, or the field that the example has, too. What is found
    twice counts once, at its first place.

    Args:
        field: The field of the example with what is wanted; None for its only label.
        found: The field of the output with what was found; None for the field of the same name, or the output itself.
        k: How many of those found count; None for all.

    Raises:
        ValueError: `k` is not a whole number of at least 1.
    """

    takes_many = True

    def __init__(self, *, field: str | None = None, found: str | None = None, k: int | None = None) -> None:
        super().__init__(field=field)
        if k is not None and (isinstance(k, bool) or not isinstance(k, int) or k < 1):
            raise ValueError(f"k is how many count, a whole number of at least 1, not {k!r}")
        self.found = found
        self.k = k

    def __call__(self, *args: Any, **options: Any) -> Any:
        """`metric(example, output)` scores; `metric(**options)` gives the metric with other options."""
        if self.found is not None and len(args) >= 2:
            return super().__call__(args[0], read_field(args[1], self.found, self.name), *args[2:], **options)
        return super().__call__(*args, **options)

    def verdict(self, field: str, gold: Any, answer: Any) -> Score:
        """Score a ranking; the feedback names what is wanted and missing.

        Raises:
            MetricError: The example wants nothing, or the output is not a ranking.
        """
        wanted = _grades(gold, self.name)
        if not any(grade > 0 for grade in wanted.values()):
            raise MetricError(f"{self.name}: the example wants nothing, its {field!r} is empty")
        ranking = _ids(answer, self.name)
        first = ranking if self.k is None else ranking[: self.k]
        value = self.measure(wanted, first)
        if value >= self.best:
            return Score(value)
        missing = [ident for ident, grade in wanted.items() if grade > 0 and ident not in first]
        among = f"the first {self.k} found" if self.k is not None else f"the {len(first)} found"
        said = f"not among {among}: {'; '.join(missing)}" if missing else "what is wanted was found too far behind"
        return Score(value, feedback=said)

    def measure(self, wanted: Mapping[str, float], ranking: list[str]) -> float:
        """The value of a ranking that is cut to `k` ids, each standing once."""
        raise NotImplementedError

    def score(self, gold: Any, answer: Any) -> float:
        """The value without an example, of what is wanted and what was found: `mrr.score(["a"], ["b", "a"])`."""
        return float(self.verdict("ids", gold, answer))


class RecallAt(RankingMetric):
    """The share of what is wanted that is among the first `k` found."""

    name = "recall_at"

    def measure(self, wanted: Mapping[str, float], ranking: list[str]) -> float:
        """The share of the wanted ids."""
        right = [ident for ident, grade in wanted.items() if grade > 0]
        return sum(ident in ranking for ident in right) / len(right)


class NDCGAt(RankingMetric):
    """The discounted gain of the first `k` found, as a share of the best that was possible.

    An id of grade `g` at rank `r` gains `g / log2(r + 1)`, as trec_eval has it.

    Source: Jaervelin and Kekaelaeinen 2002, "Cumulated gain-based evaluation of IR techniques".
    """

    name = "ndcg_at"

    def measure(self, wanted: Mapping[str, float], ranking: list[str]) -> float:
        """The gain as a share of the best."""
        ideal = sorted((grade for grade in wanted.values() if grade > 0), reverse=True)[: self.k]
        return min(1.0, _gain([max(wanted.get(ident, 0.0), 0.0) for ident in ranking]) / _gain(ideal))


class ReciprocalRank(RankingMetric):
    """One over the rank of the first one found that is wanted; 0 if none is. Its mean over examples is the MRR.

    Source: Voorhees 1999, "The TREC-8 Question Answering Track Report".
    """

    name = "mrr"

    def measure(self, wanted: Mapping[str, float], ranking: list[str]) -> float:
        """One over the rank."""
        return next((1 / rank for rank, ident in enumerate(ranking, 1) if wanted.get(ident, 0.0) > 0), 0.0)


def recall_at(k: int, **options: Any) -> RecallAt:
    """The share of what is wanted that is among the first `k` found: `recall_at(5, field="sources")`.

    Args:
        k: How many of those found count.
        **options: `field`, that of the example with what is wanted; `found`, that of the output.
    """
    return RecallAt(k=k, **options)


def ndcg_at(k: int, **options: Any) -> NDCGAt:
    """The discounted gain of the first `k` found, as a share of the best possible: `ndcg_at(10, field="sources")`.

    Args:
        k: How many of those found count.
        **options: `field`, that of the example with what is wanted, ids or grades by id; `found`, that of the output.
    """
    return NDCGAt(k=k, **options)


mrr = ReciprocalRank()
"""One over the rank of the first that is wanted; see `ReciprocalRank`. `mrr(field="sources", k=10)` sets options."""


def _gain(grades: list[float]) -> float:
    return sum(grade / log2(rank + 1) for rank, grade in enumerate(grades, 1))


def _grades(gold: Any, name: str) -> dict[str, float]:
    if isinstance(gold, Mapping) and not ("id" in gold and "text" in gold):
        try:
            return {str(ident): float(grade) for ident, grade in gold.items()}
        except (TypeError, ValueError):
            raise MetricError(f"{name}: grades are numbers by id, not {dict(gold)!r:.200}") from None
    items = sorted(gold, key=str) if isinstance(gold, (set, frozenset)) else gold
    return dict.fromkeys(_ids(items if isinstance(items, _MANY) else [items], name), 1.0)


def _ids(found: Any, name: str) -> list[str]:
    """The ids of a ranking, each once."""
    if isinstance(found, (set, frozenset)):
        raise MetricError(f"{name}: what was found is a set, which has no order: return a list, the best first")
    items = found if isinstance(found, (list, tuple)) else [found]
    return list(dict.fromkeys(_id(item, name) for item in items))


def _id(item: Any, name: str) -> str:
    own = getattr(item, "id", None)
    if own is None and isinstance(item, Mapping):
        own = item.get("id")
    if own is None:
        own = item
    if isinstance(own, bool) or not isinstance(own, (str, int)):
        raise MetricError(f"{name}: an id is a text or a whole number, not {own!r:.80}")
    return str(own)
