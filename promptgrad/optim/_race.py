"""Racing: candidates meet the incumbent on the same examples, block by block, and the hopeless are dropped."""

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, pvariance

from promptgrad.optim._candidate import Candidate, Measured, pairs
from promptgrad.optim._session import Session

BLOCK = 10
"""Validation examples in a block."""

PRIOR = 0.25
"""Standard deviation of the gain of a rewrite before anything is known of it."""

HOPELESS = 0.3
"""Probability of being better than the incumbent below which a candidate leaves the race."""


async def race(
    session: Session, candidates: Sequence[Candidate], *, scope: str, confidence: float, block: int = BLOCK
) -> tuple[Measured | None, list[Candidate]]:
    """Find the candidate that is better than the session's incumbent beyond doubt, if there is one.

    Returns the winner, and the candidates that turned out to be hopeless.

    After each block of validation examples, candidates that are probably worse leave; the race ends when none is
    left, or all examples were seen. The winner's probability of being better must reach `confidence`. The order of
    the blocks is drawn anew for each race, so that no candidate is bred for the first block.

    Cost: at most one run for each candidate and validation example; the incumbent's cells are stored.

    Args:
        session: The session; its incumbent is the one to beat.
        candidates: What is tried.
        scope: Name of the race in the journal.
        confidence: Probability of being better that the winner needs.
        block: Examples in a block.
    """
    order = list(session.val)
    session.rng("race", scope).shuffle(order)
    running: list[Measured | None] = [None] * len(candidates)
    alive = list(range(len(candidates)))
    champion: Measured | None = None
    for number, first in enumerate(range(0, len(order), block)):
        part = order[first : first + block]
        measured = await session.evaluate_all(
            [session.incumbent, *(candidates[index] for index in alive)], part, scope=f"{scope}/{number}"
        )
        champion = measured[0] if champion is None else champion + measured[0]
        for index, fresh in zip(alive, measured[1:], strict=True):
            known = running[index]
            running[index] = fresh if known is None else known + fresh
        chances = {index: chance(champion, running[index]) for index in alive}
        alive = [index for index in alive if chances[index] >= HOPELESS]
        session.decide("race", at=f"{scope}/{number}", chances=[round(chances[i], 6) for i in sorted(chances)])
        if not alive:
            break
    winner: Measured | None = None
    best = 0.0
    for index, result in enumerate(running):
        if result is None:
            continue
        probability = chance(champion, result) if index in alive else 0.0
        note = f"{probability:.0%} better" if index in alive else "dropped"
        session.trial(result, note)
        if probability >= confidence and probability > best:
            winner, best = result, probability
    return winner, [candidates[index] for index in range(len(candidates)) if index not in alive]


def chance(champion: Measured | None, challenger: Measured | None) -> float:
    """Probability that the challenger's mean gain over the champion is positive, given the pairs and the prior."""
    if champion is None or challenger is None:
        return 0.5
    before, after = pairs(champion, challenger)
    if not after:
        return 0.5
    gains = [new - old for old, new in zip(before, after, strict=True)]
    noise = max(pvariance(gains), 0.0625) / len(gains)
    weight = PRIOR**2 / (PRIOR**2 + noise)
    return NormalDist().cdf(weight * fmean(gains) / math.sqrt(weight * noise))
