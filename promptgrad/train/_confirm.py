"""Confirm and ship: the finalists are compared with the start on data that no choice was based on."""

import math
from collections.abc import Sequence

from promptgrad.evaluation import mean_interval, paired_interval, paired_test
from promptgrad.optim import Measured
from promptgrad.search import pairs
from promptgrad.train._result import Estimate, Gain

ALPHA = 0.05
"""Probability, at most, with which a result without merit ships."""

LEAST = 50
"""Validation examples set aside for the confirmation, if there are enough."""


def confirm_size(examples: int, wanted: "float | int | None") -> int:
    """How many validation examples to set aside: `wanted` of them (a share, or a number), else max(50, a quarter).

    Never more than half, so that enough remain to choose on.

    Raises:
        ValueError: `wanted` leaves nothing to choose on or nothing to confirm on.
    """
    if wanted is None:
        return min(examples // 2, max(LEAST, examples // 4))
    size = round(examples * wanted) if isinstance(wanted, float) and wanted < 1 else int(wanted)
    if not 0 < size < examples:
        raise ValueError(
            f"confirm={wanted!r} sets {size} of {examples} validation examples aside: "
            "both the choice and the confirmation need some"
        )
    return size


def estimate(measured: Measured, *, seed: int, best: float = 1.0) -> Estimate:
    """The mean score with its bootstrap interval."""
    known = list(measured.known)
    if not known:
        return Estimate(math.nan, math.nan, math.nan, 0, measured.errors)
    low, high = mean_interval(known, seed=seed, best=best)
    return Estimate(measured.mean, low, high, len(known), measured.errors)


def compare(before: Measured, after: Measured, *, finalists: int, seed: int, best: float = 1.0) -> Gain:
    """The paired gain with an interval at 95 %, widened for the number of finalists (Bonferroni)."""
    first, second = pairs(before, after)
    level = 1 - ALPHA / max(1, finalists)
    if not first:
        return Gain(0.0, 0.0, 0.0, level, 0, 1.0)
    low, high = paired_interval(first, second, level=level, seed=seed, best=best)
    mean = (sum(second) - sum(first)) / len(first)
    return Gain(mean, low, high, level, len(first), paired_test(first, second, seed=seed, alternative="greater"))


def ships(gain: Gain, finalists: int) -> bool:
    """Whether the evidence is enough: the lower bound lies above zero, and the permutation test agrees.

    The second part matters for few examples, where a bootstrap is rough: three improvements out of three happen by
    chance one time in eight.
    """
    return gain.low > 0 and gain.p <= ALPHA / max(1, finalists)


def objection(gain: Gain, finalists: int) -> str:
    """Why a gain whose interval excludes zero does not ship; empty if the interval itself is the reason."""
    limit = ALPHA / max(1, finalists)
    if gain.low <= 0 or gain.p <= limit:
        return ""
    return f": the interval excludes zero, but p = {gain.p:.3g} is above {limit:.3g}"


def best_of(gains: Sequence[Gain]) -> int:
    """Index of the finalist with the highest lower bound; the earlier one of equals."""
    return max(range(len(gains)), key=lambda index: (gains[index].low, gains[index].mean, -index))


def detectable(examples: int) -> float:
    """Roughly the smallest gain that so many examples confirm four times in five, if a third of them change."""
    return math.sqrt(6.18 * 0.3 / examples) if examples else 1.0


def shows(examples: int) -> str:
    """What so few examples can show, as a note of a report."""
    least, count = detectable(examples), f"{examples} example{'' if examples == 1 else 's'}"
    if least >= 1:
        return f"{count} can hardly show any gain: give more validation data"
    return f"{count} show gains of about {least:.0%} and more; smaller ones need more validation data"
