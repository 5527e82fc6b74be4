"""Objectives: what a run weighs beside the score, and what each run of a candidate has cost."""

from collections.abc import Iterable, Iterator, Mapping
from statistics import fmean
from typing import Any, Literal

from promptgrad.errors import MetricError, UnknownPriceError
from promptgrad.evaluation import COSTS, JUDGING
from promptgrad.run import Cell
from promptgrad.search._candidate import Candidate, Measured

Direction = Literal["max", "min"]
"""Whether more of an objective is better, or less."""


class Objectives(Mapping[str, Direction]):
    """What candidates are compared by, each with its direction; the score always is the first.

    An objective is "score"; a cost of one run of the program, without that of the metric: "calls", "tokens",
    "input_tokens", "output_tokens", "usd" or "seconds"; or else a part of the metric's scores (`Score.parts`).

    Args:
        given: Directions ("max" or "min") by name, or names alone, whose direction is "min" for costs and "max" for
            parts.

    Raises:
        ValueError: A direction is neither, or the score is to be small.
        TypeError: These are no names.

    >>> dict(Objectives({"tokens": "min"}))
    {'score': 'max', 'tokens': 'min'}
    """

    def __init__(self, given: "Mapping[str, str] | Iterable[str]" = ()) -> None:
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise TypeError(f"objectives are names with directions, such as {{'tokens': 'min'}}, not {given!r}")
        named = dict(given) if isinstance(given, Mapping) else {name: _usual(name) for name in given}
        if named.pop("score", "max") != "max":
            raise ValueError("the score is an objective of every run, and higher is better: its direction is 'max'")
        self._directions: dict[str, Direction] = {"score": "max"}
        for name, direction in named.items():
            if not isinstance(name, str):
                raise TypeError(f"the name of an objective is text, not {name!r}")
            if direction not in ("max", "min"):
                raise ValueError(f"the direction of the objective {name!r} is 'max' or 'min', not {direction!r}")
            self._directions[name] = "max" if direction == "max" else "min"

    def __getitem__(self, name: str) -> Direction:
        return self._directions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._directions)

    def __len__(self) -> int:
        return len(self._directions)

    @property
    def beside(self) -> tuple[str, ...]:
        """The objectives beside the score."""
        return tuple(name for name in self._directions if name != "score")

    def check(self, start: Measured, costs: "Costs") -> None:
        """Check, once the start is measured, that each objective can be known.

        Raises:
            MetricError: An objective is neither a cost nor a part of the scores.
            UnknownPriceError: Money is an objective, and the price of a language model is unknown.
        """
        if not start.known:
            return
        for name in self.beside:
            if name not in COSTS and name not in start.parts:
                parts = f"the parts of the scores ({', '.join(start.parts)})" if start.parts else "scores have no parts"
                raise MetricError(f"the objective {name!r} is none of {', '.join(COSTS)}, and {parts}")
        if "usd" in self and costs.is_unpriced(start):
            raise UnknownPriceError(
                "the price of a language model is not known, so money cannot be an objective: give the price to the "
                "LM (prices=...), or take 'tokens' in place of 'usd'"
            )

    def rows(self, name: str, measured: Measured, costs: "Costs") -> dict[str, float]:
        """What is known of one objective on single examples, by id."""
        if name == "score":
            return measured.by_id()
        if name in COSTS:
            return costs.of(name, measured)
        part = measured.parts.get(name, ())
        return {key: value for key, value in zip(measured.ids, part, strict=bool(part)) if value is not None}

    def __repr__(self) -> str:
        return f"Objectives({self._directions})"


class Costs:
    """What the runs of each candidate have cost: by candidate, example and replicate.

    A reply that came from a cache, or from the journal of a resumed run, counts with what it cost when it was paid, so
    that the order in which candidates are measured makes none of them cheap. The seconds are those of the language
    models' replies, one after the other, and come from the journal too: a resumed run weighs what the first one did.
    """

    def __init__(self) -> None:
        self._runs: dict[str, dict[tuple[str, int], Mapping[str, float | None]]] = {}

    def add(self, candidate: Candidate, cells: Iterable[Cell]) -> None:
        """Keep what some runs have cost; runs that failed are left out."""
        known = self._runs.setdefault(candidate.key, {})
        for cell in cells:
            if cell.error is None and cell.costs:
                known[cell.example, cell.replicate] = cell.costs

    def of(self, name: str, measured: Measured) -> dict[str, float]:
        """One cost on each example of a measurement, where it is known; the mean of its replicates."""
        found: dict[str, list[float]] = {}
        wanted = set(measured.ids)
        for (example, _), costs in self._runs.get(measured.candidate.key, {}).items():
            amount = costs.get(name)
            if example in wanted and amount is not None:
                found.setdefault(example, []).append(amount)
        return {example: fmean(amounts) for example, amounts in found.items()}

    def mean(self, name: str, candidate: Candidate) -> float | None:
        """What a run of a candidate costs, on average; None if that is not known."""
        return _mean(self._runs.get(candidate.key, {}).values(), name)

    def dearest(self, name: str) -> float:
        """What a run of the candidate costs whose runs cost most; 0 if none is known."""
        return max((_mean(runs.values(), name) or 0.0 for runs in self._runs.values()), default=0.0)

    def makes_calls(self, count: float) -> bool:
        """Whether every run that is known made just so many calls, with those of the metric."""
        known = [costs for runs in self._runs.values() for costs in runs.values()]
        return bool(known) and all((costs.get("calls") or 0) + (costs.get(JUDGING) or 0) == count for costs in known)

    def is_unpriced(self, measured: Measured) -> bool:
        """Whether runs of a candidate have called language models, and the price of none is known."""
        runs = self._runs.get(measured.candidate.key, {}).values()
        return any(costs.get("tokens") for costs in runs) and all(costs.get("usd") is None for costs in runs)


def _mean(runs: Iterable[Mapping[str, float | None]], name: str) -> float | None:
    amounts = [amount for costs in runs if (amount := costs.get(name)) is not None]
    return fmean(amounts) if amounts else None


def _usual(name: Any) -> str:
    return "min" if name in COSTS else "max"
