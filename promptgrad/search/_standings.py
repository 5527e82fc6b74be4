"""Standings: everything that was measured of a run's candidates on validation data, and what it says of their gains."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from promptgrad.search._candidate import Candidate, Measured
from promptgrad.search._shrinkage import corrected


@dataclass(frozen=True)
class Standing:
    """A candidate's gain over the start, given everything that was measured of all candidates.

    Attributes:
        candidate: The candidate.
        measured: All that is known of it on validation data.
        gain: Expected true gain in mean score over the start, shrunken towards what its siblings achieved.
        sd: Its standard deviation.
        chance: Probability that the true gain is positive, corrected for the choice among all candidates.
    """

    candidate: Candidate
    measured: Measured
    gain: float
    sd: float
    chance: float

    def __str__(self) -> str:
        rows = len(self.measured.known)
        return f"{self.gain:+.3f} ± {self.sd:.3f}, better with P = {self.chance:.3f}, from {rows} validation examples"


class Standings:
    """Everything that was measured of a run's candidates on validation data; see `Session.standings`.

    A session adds every measurement. Rows that a candidate was run on several times, as another `replicate` each, are
    averaged; rows where a language model gave no answer are unknown.

    Args:
        base: The start, which all are compared with.
        examples: Ids of the validation examples; other rows are left out.
    """

    def __init__(self, base: Candidate, examples: Collection[str]) -> None:
        self.base = base
        self._order = {key: place for place, key in enumerate(examples)}
        self._runs: dict[str, dict[str, dict[int, tuple[Measured, int]]]] = {}
        self._candidates: dict[str, Candidate] = {}
        self._known: tuple[Standing, ...] | None = None

    def add(self, measured: Measured, replicate: int = 0) -> None:
        """Add a measurement; a newer one of the same rows and replicate takes the place of the older."""
        rows = [(place, key) for place, key in enumerate(measured.ids) if key in self._order]
        if not rows:
            return
        self._known = None
        name = measured.candidate.key
        self._candidates.setdefault(name, measured.candidate)
        runs = self._runs.setdefault(name, {})
        for place, key in rows:
            if measured.scores[place] is not None:
                runs.setdefault(key, {})[replicate] = (measured, place)

    def of(self, candidate: Candidate) -> Measured | None:
        """All that is known of a candidate on validation data, in their order; None if nothing is."""
        runs = self._runs.get(candidate.key)
        if not runs:
            return None
        ids = sorted(runs, key=self._order.__getitem__)
        firsts = [next(iter(runs[key].values())) for key in ids]
        names = dict.fromkeys(name for measured, _ in firsts for name in measured.parts)
        blocks = {id(measured): measured for measured, _ in firsts}.values()
        return Measured(
            self._candidates[candidate.key],
            tuple(ids),
            tuple(_average([measured.scores[place] for measured, place in runs[key].values()]) for key in ids),
            min(len(ids), sum(block.errors for block in blocks)),
            parts={
                name: tuple(
                    _average([measured._part(name)[place] for measured, place in runs[key].values()]) for key in ids
                )
                for name in names
            },
            feedback=tuple(measured.feedback[place] for measured, place in firsts),
            outputs=tuple(measured.outputs[place] for measured, place in firsts),
        )

    def __iter__(self) -> Iterator[Measured]:
        """What is known of each candidate: the base first, then by age."""
        others = (one for name, one in self._candidates.items() if name != self.base.key)
        for candidate in (self.base, *others):
            measured = self.of(candidate)
            if measured is not None:
                yield measured

    def __len__(self) -> int:
        return sum(1 for runs in self._runs.values() if runs)

    def posterior(self) -> tuple[Standing, ...]:
        """What is believed of each candidate other than the base, by age; those without a row in common are left out.

        Source: see `search/_shrinkage.py`; `benchmarks/calibrate_ship.py` measures it.
        """
        if self._known is None:
            self._known = self._judged()
        return self._known

    def best(self, chance: float = 0.0) -> Standing | None:
        """The standing with the highest gain among those of at least this chance; the shorter, then older of equals."""
        likely = [standing for standing in self.posterior() if standing.chance >= chance]
        return max(likely, key=lambda one: (round(one.gain, 9), -one.candidate.size), default=None)

    def _judged(self) -> tuple[Standing, ...]:
        start = self.of(self.base)
        before = {} if start is None else start.by_id()
        kept: list[Measured] = []
        gains: list[dict[str, float]] = []
        for measured in self:
            rows = {key: score - before[key] for key, score in measured.by_id().items() if key in before}
            if rows and measured.candidate.key != self.base.key:
                kept.append(measured)
                gains.append(rows)
        places = {measured.candidate.key: place for place, measured in enumerate(kept)}
        origins = [self._origin(place, kept, gains, places) for place in range(len(kept))]
        return tuple(
            Standing(measured.candidate, measured, belief.mean, belief.sd, belief.chance)
            for measured, belief in zip(kept, corrected(gains, origins), strict=True)
        )

    def _origin(
        self, place: int, kept: list[Measured], gains: list[dict[str, float]], places: dict[str, int]
    ) -> int | None:
        """The nearest ancestor that was measured on the same rows; None for the base."""
        line, seen = list(kept[place].candidate.parents), set[str]()
        while line:
            parent = line.pop(0)
            if parent.key in seen or parent.key == self.base.key:
                continue
            seen.add(parent.key)
            found = places.get(parent.key, place)
            if found < place and 2 * len(gains[found].keys() & gains[place].keys()) >= len(gains[place]):
                return found
            line += parent.parents
        return None


def _average(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
