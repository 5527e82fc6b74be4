"""Standings: everything that was measured of a run's candidates on validation data, and what it says of their gains."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from promptgrad.search._candidate import Candidate, Measured
from promptgrad.search._shrinkage import beliefs, corrected


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
        self._gains: dict[str, float] | None = None

    def add(self, measured: Measured, replicate: int = 0) -> None:
        """Add a measurement; a newer one of the same rows and replicate takes the place of the older."""
        rows = [(place, key) for place, key in enumerate(measured.ids) if key in self._order]
        if not rows:
            return
        self._known = self._gains = None
        name = measured.candidate.key
        self._candidates.setdefault(name, measured.candidate)
        runs = self._runs.setdefault(name, {})
        for place, key in rows:
            if measured.scores[place] is not None:
                runs.setdefault(key, {})[replicate] = (measured, place)

    def covers(self, examples: Collection[str]) -> bool:
        """Whether all these examples are validation examples here."""
        return all(key in self._order for key in examples)

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

    def gain(self, candidate: Candidate) -> float:
        """Expected true gain of a candidate over the start, to tell where to search on: 0 for the start.

        It is shrunken as in `posterior`, and not corrected for the choice: a search that goes on from a lucky candidate
        risks calls, a result that ships risks the program. Where the start was not measured, it is the mean score; 0
        where nothing is known.
        """
        if self._gains is None:
            rows = self._rows()
            if self._runs.get(self.base.key):
                believed = beliefs(list(rows.values()))
                self._gains = {name: round(one.mean, 9) for name, one in zip(rows, believed, strict=True)}
            else:
                self._gains = {name: sum(scores.values()) / len(scores) for name, scores in self._scores().items()}
        return self._gains.get(candidate.key, 0.0)

    def varies(self) -> bool | None:
        """Whether a row that was run several times scored otherwise once; None if none was run again."""
        again = [
            {score for measured, place in found.values() if (score := measured.scores[place]) is not None}
            for runs in self._runs.values()
            for found in runs.values()
            if len(found) > 1
        ]
        return any(max(scores) - min(scores) > 1e-9 for scores in again) if again else None

    def _scores(self) -> dict[str, dict[str, float]]:
        """The scores of each candidate by example, each group in the order of the validation examples."""
        found = {}
        for name, runs in self._runs.items():
            known = {
                key: [score for measured, place in runs[key].values() if (score := measured.scores[place]) is not None]
                for key in sorted(runs, key=self._order.__getitem__)
            }
            if known:
                found[name] = {key: sum(scores) / len(scores) for key, scores in known.items()}
        return found

    def _rows(self) -> dict[str, dict[str, float]]:
        """The differences to the start of each candidate that has rows in common with it, by age."""
        scores = self._scores()
        start = scores.pop(self.base.key, {})
        return {
            name: rows
            for name, known in scores.items()
            if (rows := {key: score - start[key] for key, score in known.items() if key in start})
        }

    def _judged(self) -> tuple[Standing, ...]:
        rows = self._rows()
        kept = [measured for name in rows if (measured := self.of(self._candidates[name])) is not None]
        gains = list(rows.values())
        places = {name: place for place, name in enumerate(rows)}
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
