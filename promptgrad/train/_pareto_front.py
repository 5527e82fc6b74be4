"""`ParetoFront`: the candidates of a run that none beats on every objective, with the knee of their curve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean
from typing import Any, overload

from promptgrad.nn import Module
from promptgrad.search import Candidate, Measured, Session
from promptgrad.train._install import as_program

_DIGITS = 9
"""Values that agree to this many digits are equal."""


@dataclass(frozen=True)
class ParetoPoint:
    """One candidate, with its value on each objective.

    Attributes:
        candidate: The candidate.
        values: Its value on each objective, by name.
        rows: Number of validation examples it was measured on.
        chance: Probability that its score is better than that of the start; None for the start.
    """

    candidate: Candidate
    values: Mapping[str, float]
    rows: int
    chance: float | None = None


class ParetoFront(Sequence[ParetoPoint]):
    """The candidates that no other one beats on all objectives, the best score first.

    A candidate is left out if another is at least as good on every objective and better on one, or was found before it
    and is as good on all. The values are from the validation examples on which the search chose, and the score is the
    posterior mean, that is, the measured gain over the start shrunken towards what the other candidates achieved; so it
    is no promise, as `FitResult.gain` is. What ships is decided by the score alone.

    The *knee* is the candidate with the largest distance from the straight line through the extremes of the curve,
    after each objective is scaled to [0, 1] over the front: where giving up a little more of one objective begins to
    buy little of the other. With three objectives and more it is the plane through the corners in which one objective
    is at its best and the others are at their worst. Of equally far candidates the one with the better score is it.
    Source: Das 1999, "On characterizing the 'knee' of the Pareto curve based on Normal-Boundary Intersection",
    Structural Optimization 18. Differs: the plane through the corners takes the place of the one through the extremes,
    which need not exist for three objectives.

    Attributes:
        objectives: The direction of each objective.
        points: The candidates.
        start: The start, whether it is on the front or not.
        dominated: Number of measured candidates that are not on the front.
    """

    def __init__(
        self,
        points: Sequence[ParetoPoint],
        objectives: Mapping[str, str],
        *,
        program: Module | None = None,
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        self.objectives = dict(objectives)
        self.start = points[0]
        kept = [point for place, point in enumerate(points) if not self._is_beaten(place, points)]
        self.points = tuple(sorted(kept, key=lambda point: self._better(point.values), reverse=True))
        self.dominated = len(points) - len(kept)
        self._program = program
        self._origin = dict(origin or {})

    @property
    def knee(self) -> ParetoPoint:
        """The knee of the curve; of two candidates the one with the better score."""
        return max(self.points, key=lambda point: round(self.distance(point), _DIGITS))  # the first of equals

    def at_knee(self) -> str:
        """The knee in a line, beside the start."""
        shown = (
            f"{name} {_short(self.start.values[name])} -> {_short(self.knee.values[name])}" for name in self.objectives
        )
        return f"{', '.join(shown)} ({self.knee.candidate.origin}; {len(self)} on the front, see result.pareto)"

    def distance(self, point: ParetoPoint) -> float:
        """How far a candidate lies above the line through the extremes, after scaling; below zero if it lies below."""
        shares = []
        for name in self.objectives:
            values = [self._sign(name) * other.values[name] for other in self.points]
            low, high = min(values), max(values)
            if round(high - low, _DIGITS) > 0:
                shares.append((self._sign(name) * point.values[name] - low) / (high - low))
        return (sum(shares) - 1) / sqrt(len(shares)) if shares else 0.0

    def program(self, point: ParetoPoint | None = None) -> Module:
        """A candidate of the front as a program: a new copy, with everything it does not change as it was at the start.

        Language models are shared with the program that was trained.

        Args:
            point: The candidate; the knee by default.

        Raises:
            RuntimeError: The front was made without a program.
        """
        candidate = (point or self.knee).candidate
        if self._program is None:
            raise RuntimeError("this ParetoFront holds no program: only that of Trainer.fit or resume does")
        own = candidate.program is not None
        values = dict(candidate.values) if own else {**self._origin, **candidate.values}
        return as_program(self._program, Candidate(values, candidate.origin, candidate.program, candidate.label))

    def to_dict(self) -> dict[str, Any]:
        """The front in JSON types."""
        knee = self.knee
        return {
            "objectives": self.objectives,
            "points": [
                {
                    **point.candidate.to_dict(),
                    "objectives": dict(point.values),
                    "rows": point.rows,
                    "knee": point is knee,
                }
                for point in self.points
            ],
            "start": dict(self.start.values),
            "dominated": self.dominated,
        }

    def _is_beaten(self, place: int, points: Sequence[ParetoPoint]) -> bool:
        mine = self._better(points[place].values)
        for other, point in enumerate(points):
            theirs = self._better(point.values)
            if all(a >= b for a, b in zip(theirs, mine, strict=True)) and (theirs != mine or other < place):
                return True
        return False

    def _better(self, values: Mapping[str, float]) -> tuple[float, ...]:
        """The values, turned so that higher is better."""
        return tuple(round(self._sign(name) * values[name], _DIGITS) for name in self.objectives)

    def _sign(self, name: str) -> int:
        return 1 if self.objectives[name] == "max" else -1

    @overload
    def __getitem__(self, index: int) -> ParetoPoint: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ParetoPoint]: ...
    def __getitem__(self, index: int | slice) -> "ParetoPoint | Sequence[ParetoPoint]":
        return self.points[index]

    def __len__(self) -> int:
        return len(self.points)

    def __repr__(self) -> str:
        knee = self.knee
        names = list(self.objectives)
        lines = [["", *names, "rows", "better", "candidate"]]
        shown = [*self.points, *([] if self.start in self.points else [self.start])]
        for point in shown:
            mark = "knee" if point is knee else "start" if point is self.start else ""
            better = "" if point.chance is None else f"{point.chance:.0%}"
            origin = point.candidate.origin if point in self.points else f"{point.candidate.origin} (not on the front)"
            lines.append([mark, *(_short(point.values[name]) for name in names), str(point.rows), better, origin])
        widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]) - 1)]
        text = [
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=False)) + f"  {line[-1]}"
            for line in lines
        ]
        arrows = ", ".join(f"{name} {direction}" for name, direction in self.objectives.items())
        count = f"{len(self)} of {len(self) + self.dominated} candidates"
        return "\n".join([f"ParetoFront: {count}, none of which another beats on {arrows}", *text])


def front_of(session: Session, program: Module, origin: Mapping[str, Any]) -> ParetoFront | None:
    """The front of a run; None where there are no objectives beside the score, or the start was not measured.

    A candidate counts if it was measured on at least half of the validation examples. Its values are those of the start
    and the mean difference on the examples of both.

    Args:
        session: The session.
        program: The program that was trained.
        origin: The values of its parameters at the start.
    """
    base = session.standings.of(session.base)
    if base is None or not session.objectives.beside:
        return None
    start = _values_of(session, base, base, 0.0)
    known = {name: direction for name, direction in session.objectives.items() if name in start}
    points = [ParetoPoint(base.candidate, start, len(base.known))]
    for standing in session.standings.posterior():
        values = _values_of(session, base, standing.measured, standing.gain)
        rows = len(standing.measured.known)
        if 2 * rows >= len(base.known) and all(name in values for name in known):
            points.append(ParetoPoint(standing.candidate, values, rows, standing.chance))
    return ParetoFront(points, known, program=program, origin=origin)


def _values_of(session: Session, base: Measured, measured: Measured, gain: float) -> dict[str, float]:
    """The values of a candidate that are known."""
    values = {"score": base.mean + gain}
    for name in session.objectives.beside:
        before = session.objectives.rows(name, base, session.costs)
        after = session.objectives.rows(name, measured, session.costs)
        shared = [after[key] - before[key] for key in after if key in before]
        if shared:
            values[name] = fmean(before.values()) + fmean(shared)
    return values


def _short(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.0f}"
