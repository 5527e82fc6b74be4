"""Effects: what each part of a candidate adds to its score, by all runs of all candidates that have it."""

import math
import random
from collections.abc import Hashable, Mapping, Sequence
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)

OWN = 0.1
"""Standard deviation of what a part adds, before anything is known of it, as a share of the best score."""

TEXT = 0.04
"""Standard deviation of what a candidate is better or worse by than its parts say."""

LEVEL = 1.0
"""Standard deviation of what all candidates have in common."""

ROW = 0.3
"""Standard deviation of how much easier or harder an example is than the others."""

NOISE = 0.01
"""Least variance of a single run, as a share of the best score squared."""

PASSES = 12
"""Passes in which the levels of candidates and of examples are told apart."""


class Effects(Generic[P]):
    """A linear model of scores: a candidate is as good as the sum of its parts, and a little better or worse.

    Candidates that share parts share evidence: a part that is in ten candidates, each run on ten examples, is known
    from a hundred runs. Parts that all candidates have are left out, as nothing is known of doing without them. How
    hard an example is does not count against who happened to be run on it.

    Cost: no LM calls; time grows with the cube of the number of candidates, a tenth of a second for 100.
    Source: Bayesian linear regression in the space of candidates; draws by Matheron's rule (Wilson et al. 2020, arXiv
    2002.09309).

    Args:
        parts: The parts of each candidate.
        scores: Its scores by example, one at least.
        best: The best possible score.
    """

    def __init__(self, parts: Sequence[frozenset[P]], scores: Sequence[Mapping[str, float]], best: float = 1.0) -> None:
        common = frozenset[P]().union(*parts).intersection(*parts)
        self._parts = [dict.fromkeys(sorted(own - common, key=repr)) for own in parts]
        self.parts = tuple(dict.fromkeys(part for own in self._parts for part in own))
        self._levels, noise = _levels(scores, best)
        self._sd = [math.sqrt(noise / len(known) + (TEXT * best) ** 2) for known in scores]
        self._own, self._level = OWN * best, LEVEL * best
        self._root = _root(
            [
                [
                    self._level**2 + self._own**2 * len(one.keys() & other.keys()) + (sd**2 if i == j else 0.0)
                    for j, other in enumerate(self._parts[: i + 1])
                ]
                for i, (one, sd) in enumerate(zip(self._parts, self._sd, strict=True))
            ]
        )

    def mean(self) -> dict[P, float]:
        """What each part is expected to add."""
        return self._given(self._levels)

    def draw(self, rng: random.Random) -> dict[P, float]:
        """What each part may add: a draw from all that is believed of them together."""
        drawn = {part: rng.gauss(0, self._own) for part in self.parts}
        level = rng.gauss(0, self._level)
        would = [level + sum(map(drawn.__getitem__, own)) + rng.gauss(0, sd) for own, sd in self._each()]
        moved = self._given([known - said for known, said in zip(self._levels, would, strict=True)])
        return {part: value + moved[part] for part, value in drawn.items()}

    def _each(self) -> list[tuple[dict[P, None], float]]:
        return list(zip(self._parts, self._sd, strict=True))

    def _given(self, levels: Sequence[float]) -> dict[P, float]:
        """The expected effects, were these the levels of the candidates."""
        found = dict.fromkeys(self.parts, 0.0)
        for own, pull in zip(self._parts, _solved(self._root, levels), strict=True):
            for part in own:
                found[part] += self._own**2 * pull
        return found


def _levels(scores: Sequence[Mapping[str, float]], best: float) -> tuple[list[float], float]:
    """The level of each candidate, as if all had been run on the same examples, and the variance of one run."""
    rows: dict[str, list[tuple[int, float]]] = {}
    for index, known in enumerate(scores):
        for key, score in known.items():
            rows.setdefault(key, []).append((index, score))
    levels, ease, noise = [0.0] * len(scores), dict.fromkeys(rows, 0.0), 0.15 * best**2
    runs = sum(map(len, scores))
    for _ in range(PASSES):
        levels = [sum(score - ease[key] for key, score in known.items()) / len(known) for known in scores]
        for key, seen in rows.items():
            ease[key] = sum(score - levels[index] for index, score in seen) / (len(seen) + noise / (ROW * best) ** 2)
        left = sum((score - levels[index] - ease[key]) ** 2 for key, seen in rows.items() for index, score in seen)
        noise = max(NOISE * best**2, left / max(1, runs - len(scores)))
    return levels, noise


def _root(matrix: list[list[float]]) -> list[list[float]]:
    """The Cholesky factor of a matrix, given as its lower triangle; plain Python gives the same on every machine."""
    for i, line in enumerate(matrix):
        for j in range(i):
            other = matrix[j]
            line[j] = (line[j] - sum(map(float.__mul__, line[:j], other[:j]))) / other[j]
        line[i] = math.sqrt(line[i] - sum(value * value for value in line[:i]))
    return matrix


def _solved(root: list[list[float]], right: Sequence[float]) -> list[float]:
    """The solution of the equations whose matrix has this Cholesky factor."""
    half: list[float] = []
    for line, value in zip(root, right, strict=True):
        half.append((value - sum(map(float.__mul__, line, half))) / line[len(half)])
    for i in range(len(half) - 1, -1, -1):
        half[i] = (half[i] - sum(root[k][i] * half[k] for k in range(i + 1, len(half)))) / root[i][i]
    return half
