"""Shrinkage: what paired differences say of true gains, when the best of many is looked at.

Two facts about a search decide whether its best candidate is better than the start. *Siblings*: candidates of one
search resemble each other, so each is shrunken towards their common gain, and the more so the less their spread exceeds
what the rows' noise explains (empirical Bayes, Efron and Morris 1973; the spread is a mixture of scales as in Stephens
2017, so that one good candidate among many is not shrunken away). *Choice*: the best of many looks good by luck, and a
child of the luckiest starts from that luck. So the chance that a candidate is better is capped by how often candidates
without merit, tried as these were, come as far as this one. Or, if that is rarer, as far as all that were made from the
start come on average: where all gain *together*, no choice made them look good.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

SCALES = (0.01, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0)
"""Standard deviations of the normal distributions that a prior mixes."""

COMMON = (0.15, 0.15, 0.15, 0.1, 0.03, 0.02, 0.4)
"""Their shares in the prior of the candidates' common gain: what is clearly large is hardly shrunken."""

OWN = (0.25, 0.2, 0.2, 0.15, 0.12, 0.06, 0.02)
"""Their shares in the prior of what one candidate gains beyond the common gain, as long as nothing is known."""

STRENGTH = 2.0
"""Number of candidates that the shares in `OWN` count as beside those that were measured."""

FAMILY = 0.035
"""Share of searches without any merit whose best candidate may reach a chance of 0.9."""

DOUBT = 0.5
"""Share of the prior's doubt that counts: the rest says that a gain may be next to nothing, not that it is a loss."""

OVERLAP = 0.7
"""How far the steps of a lineage are scaled to what they come to together: 1 fully, 0 not at all."""

FEW = 10
"""Rows at which a candidate has half of its weight in the common gain."""

Rows = Mapping[str, float]
Normals = list[tuple[float, float, float]]
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Belief:
    """What is believed of one true gain: its mean, its standard deviation, and the probability that it is positive."""

    mean: float
    sd: float
    chance: float


def beliefs(gains: Sequence[Rows]) -> list[Belief]:
    """The true gains of candidates over a start, given all their differences at once, each shrunken towards the others.

    Cost: no LM calls; time grows with candidates times rows.

    Args:
        gains: For each candidate its score minus the start's by example, at least one example each.
    """
    if not gains:
        return []
    common, centre = _common_gain(gains)
    return [_sum(common, rest) for rest in _own_gains(gains, [_mean(rows) - centre for rows in gains])]


def corrected(gains: Sequence[Rows], origins: Sequence[int | None]) -> list[Belief]:
    """The beliefs, corrected for the choice among all candidates.

    A gain that candidates without merit would reach more often than not, tried in this number and this descent, is
    none; a rarer one counts in full. So does one of candidates that all gain: their average was not chosen. The doubt
    of the prior counts by half beside it: where luck hardly comes as far, what the prior holds against a candidate is
    mostly that its gain may be next to nothing.

    Args:
        gains: As for `beliefs`.
        origins: For each candidate the index of the earlier one that it was made from; None for the start.
    """
    if not gains:
        return []
    lineages = _lineages(origins)
    alike = _likeness(gains)
    steps = [_step(gains, index, origin) for index, origin in enumerate(origins)]
    together = _luck_together([rows for rows, origin in zip(gains, origins, strict=True) if origin is None])
    found = []
    for index, belief in enumerate(beliefs(gains)):
        if belief.chance > 0.5:
            rows = gains[index]
            luck = _luck(index, _mean(rows), variance(list(rows.values())), lineages, steps, alike)
            luck = min(luck, together)
            chance = min(1 - DOUBT * (1 - belief.chance), max(0.5, 1 - luck * 0.1 / FAMILY))
            mean = belief.mean * max(0.0, 1 - 2 * luck)
            sd = belief.sd
            if 0.5 < chance < min(belief.chance, 0.99):  # the interval says what the chance says
                sd = max(sd, mean / _NORMAL.inv_cdf(chance))
            belief = Belief(mean, sd, chance)
        found.append(belief)
    return found


def variance(differences: Sequence[float]) -> float:
    """Variance of the mean of paired differences, were there no gain: one more row, of their typical size, is added.

    Where no row differs there is no scale to be seen, and half a point on one row is assumed.
    """
    count = len(differences)
    squares = sum(value * value for value in differences)
    if not squares:
        return 0.25 / count**2
    fourth = sum(value**4 for value in differences)
    return (squares + fourth / squares) / count**2


def _spread(differences: Sequence[float]) -> float:
    """Variance of the mean of paired differences about that mean; one more row is added as in `variance`."""
    count, mean = len(differences), sum(differences) / len(differences)
    squares = sum(value * value for value in differences)
    typical = sum(value**4 for value in differences) / squares if squares else 0.25
    return (max(0.0, squares - count * mean**2) + typical) / count**2


# -- siblings ---------------------------------------------------------------------------------------------------


def _common_gain(gains: Sequence[Rows]) -> tuple[Normals, float]:
    """The gain that all candidates share, with its noise: a row that all gain on is one row, not many."""
    shares = _shares_of_rows(gains)
    centre = sum(shares)
    return _posterior(centre, _spread(shares) * len(shares) ** 2, COMMON), centre


def _shares_of_rows(gains: Sequence[Rows]) -> list[float]:
    """What each row adds to the mean gain of some candidates, of whom those with few rows count less."""
    weights = [len(rows) / (len(rows) + FEW) for rows in gains]
    whole = sum(weights)
    sums: dict[str, float] = {}
    for rows, weight in zip(gains, weights, strict=True):
        for key, value in rows.items():
            sums[key] = sums.get(key, 0.0) + weight * value / len(rows) / whole
    return list(sums.values())


def _own_gains(gains: Sequence[Rows], rests: Sequence[float]) -> list[Normals]:
    """What each candidate gains beyond the common gain, under a prior fitted to all of them."""
    if len(gains) == 1:
        return [[(1.0, 0.0, 0.0)]]
    sums: dict[str, tuple[float, int]] = {}
    for rows in gains:
        for key, value in rows.items():
            total, count = sums.get(key, (0.0, 0))
            sums[key] = (total + value, count + 1)
    noise = []
    for rows in gains:
        # rows that all were run on cancel in the comparison of siblings; where rows are missing, their luck counts
        apart = [value - sums[key][0] / sums[key][1] for key, value in rows.items()]
        paired = max(_spread(apart), 1e-6) if any(apart) else 1e-6
        share = len(rows) / len(sums)
        noise.append(share * paired + (1 - share) * _spread(list(rows.values())))
    shares = _fitted(rests, noise)
    return [_posterior(rest, spread, shares) for rest, spread in zip(rests, noise, strict=True)]


def _fitted(values: Sequence[float], noise: Sequence[float]) -> list[float]:
    """The shares of the scales under which the values are likely (expectation maximisation, 30 rounds)."""
    densities = [
        [_density(value, spread + scale**2) for scale in SCALES] for value, spread in zip(values, noise, strict=True)
    ]
    shares = list(OWN)
    for _ in range(30):
        counts = [share * STRENGTH for share in OWN]
        for likely in densities:
            joint = [share * one for share, one in zip(shares, likely, strict=True)]
            whole = sum(joint) or 1e-300
            counts = [count + one / whole for count, one in zip(counts, joint, strict=True)]
        whole = sum(counts)
        shares = [count / whole for count in counts]
    return shares


def _posterior(value: float, noise: float, shares: Sequence[float]) -> Normals:
    """A mixture of normals about 0, given a value with normal noise: (share, mean, variance) of each."""
    found = []
    for scale, share in zip(SCALES, shares, strict=True):
        weight = scale**2 / (scale**2 + noise)
        found.append((share * _density(value, noise + scale**2), weight * value, weight * noise))
    whole = sum(likely for likely, _, _ in found) or 1e-300
    return [(likely / whole, mean, spread) for likely, mean, spread in found]


def _sum(first: Normals, second: Normals) -> Belief:
    """The sum of two independent mixtures."""
    mean = square = chance = 0.0
    for one, centre, spread in first:
        for two, more, wider in second:
            share, middle, both = one * two, centre + more, spread + wider
            mean += share * middle
            square += share * (middle**2 + both)
            chance += share * _NORMAL.cdf(middle / math.sqrt(both + 1e-12))
    return Belief(mean, math.sqrt(max(0.0, square - mean**2)), chance)


# -- choice -----------------------------------------------------------------------------------------------------


def _luck(
    index: int,
    mean: float,
    spread: float,
    lineages: Sequence[tuple[int, ...]],
    steps: Sequence[float],
    alike: float,
) -> float:
    """How often a search of this shape, none of whose candidates has merit, comes as far as this one by luck.

    Among candidates made from the start, the best of so many with a common part in their noise (they share the start's
    rows). In a longer lineage each step may have been the luckiest of those tried there, and lucks add up.
    """
    if max(map(len, lineages)) == 1:
        return _best_of(mean / math.sqrt(spread), len(lineages), alike)
    path = lineages[index]
    tried = [0] * len(path)
    for other in lineages:
        level = 0
        while level < min(len(path), len(other)) and path[level] == other[level]:
            level += 1
        tried[min(level, len(path) - 1)] += 1
    if len(path) == 1:
        return _best_of(mean / math.sqrt(spread), tried[0], 0.0)
    sizes = [steps[step] for step in path]
    # steps that undo each other vary less together than one by one, but what was lucky stays
    scale = min(1.0, math.sqrt(spread / sum(size**2 for size in sizes))) ** OVERLAP
    return _sum_of_bests(mean, [(size * scale, max(1, count)) for size, count in zip(sizes, tried, strict=True)])


def _luck_together(gains: Sequence[Rows]) -> float:
    """Twice how often candidates without merit gain as much on average: nothing was chosen, so that is the rows' luck.

    Twice, as it is a second way to look good. Where all gain, it tells so however many were tried.
    """
    shares = _shares_of_rows(gains)
    return 2 * (1 - _NORMAL.cdf(sum(shares) / math.sqrt(variance(shares) * len(shares) ** 2)))


def _best_of(score: float, count: int, alike: float) -> float:
    """Probability that the best of so many standard normals with this correlation reaches a score."""
    if alike < 0.01 or count == 1:
        return 1 - _NORMAL.cdf(score) ** count
    below = whole = 0.0
    for place in range(-24, 25):
        shared = place / 6
        weight = math.exp(-0.5 * shared**2)
        whole += weight
        below += weight * _NORMAL.cdf((score - math.sqrt(alike) * shared) / math.sqrt(1 - alike)) ** count
    return 1 - below / whole


def _sum_of_bests(value: float, steps: Sequence[tuple[float, int]]) -> float:
    """Probability that a sum of steps, each the best of some normals or nothing, reaches a value.

    The sum is taken for a shifted gamma distribution of the same three moments (Wilson and Hilferty 1931).
    """
    moments = [(size, *_moments(count)) for size, count in steps]
    mean = sum(size * one for size, one, _, _ in moments)
    spread = sum(size**2 * two for size, _, two, _ in moments)
    skew = sum(size**3 * three for size, _, _, three in moments) / spread**1.5
    score = (value - mean) / math.sqrt(spread)
    if skew < 1e-3:
        return 1 - _NORMAL.cdf(score)
    shape = 4 / skew**2
    place = (score + 2 / skew) * 2 / skew
    if place <= 0:
        return 1.0
    return 1 - _NORMAL.cdf(((place / shape) ** (1 / 3) - (1 - 1 / (9 * shape))) * math.sqrt(9 * shape))


@lru_cache(maxsize=1024)
def _moments(count: int) -> tuple[float, float, float]:
    """Mean, variance and third central moment of the best of some standard normals, or 0 if all are negative."""
    width = 0.05
    first = second = third = 0.0
    for place in range(-100, 120):
        left = place * width
        share = _NORMAL.cdf(left + width) ** count - _NORMAL.cdf(left) ** count
        value = max(0.0, left + width / 2)
        first += share * value
        second += share * value**2
        third += share * value**3
    return first, second - first**2, third - 3 * first * second + 2 * first**3


def _lineages(origins: Sequence[int | None]) -> list[tuple[int, ...]]:
    """For each candidate those that it came from and itself, the oldest first."""
    found: list[tuple[int, ...]] = []
    for index, origin in enumerate(origins):
        found.append((*(() if origin is None else found[origin]), index))
    return found


def _step(gains: Sequence[Rows], index: int, origin: int | None) -> float:
    """Standard deviation of the difference to the one that a candidate was made from."""
    rows = gains[index]
    if origin is None:
        return math.sqrt(variance(list(rows.values())))
    before = gains[origin]
    return math.sqrt(variance([value - before[key] for key, value in rows.items() if key in before]))


def _likeness(gains: Sequence[Rows]) -> float:
    """Average correlation of two candidates' differences over the rows."""
    table: dict[str, list[float]] = {}
    for rows in gains:
        for key, value in rows.items():
            table.setdefault(key, []).append(value)
    squares = sum(value**2 for values in table.values() for value in values)
    shared = sum(sum(values) ** 2 - sum(value**2 for value in values) for values in table.values())
    pairs = sum(len(values) * (len(values) - 1) for values in table.values())
    count = sum(map(len, table.values()))
    return min(0.95, max(0.0, shared / pairs / (squares / count))) if pairs and squares else 0.0


def _mean(rows: Rows) -> float:
    return sum(rows.values()) / len(rows)


def _density(value: float, spread: float) -> float:
    return math.exp(-0.5 * value**2 / spread) / math.sqrt(2 * math.pi * spread)
