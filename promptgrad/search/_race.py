"""Racing: candidates meet the incumbent on the same examples, block by block, and the hopeless are dropped."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from promptgrad.evaluation import paired_interval
from promptgrad.search._candidate import Candidate, Measured, pairs
from promptgrad.search._chance import chance, chances_of
from promptgrad.search._session import Session
from promptgrad.search._ties import untie
from promptgrad.search._verdict import Verdict

BLOCK = 10
"""Validation examples in a block."""

HOPELESS = 0.3
"""Probability of being better than the incumbent below which a candidate leaves the race."""

OUTDONE = 0.2
"""Probability of being better than the best of the others below which a candidate leaves."""


@dataclass(frozen=True)
class Race:
    """How a race ended.

    Attributes:
        winner: The candidate that is better than the incumbent beyond doubt; None if there is none.
        champion: The incumbent's scores.
        results: The candidates' scores on the examples that they were run on, in the order of the candidates.
        verdicts: The final verdict on each of them against the incumbent.
        hopeless: The candidates that were dropped as probably worse than the incumbent.
    """

    winner: Measured | None
    champion: Measured | None
    results: tuple[Measured, ...]
    verdicts: tuple[Verdict, ...]
    hopeless: tuple[Measured, ...]


async def race(
    session: Session,
    candidates: Sequence[Candidate],
    *,
    scope: str,
    confidence: float,
    block: int = BLOCK,
    prices: Sequence[float] = (),
    against: Candidate | None = None,
    ties: bool = False,
) -> Race:
    """Find the candidate that is better than the session's incumbent, or another one, beyond doubt, if there is one.

    After each block of validation examples, candidates leave that are probably worse than the incumbent, or than the
    best of the others; the race ends when none is left, or all examples have been used. Where the budget pays for no
    more, the best go on alone, and the race ends before a block that does not fit. What is believed of a candidate is
    shrunken towards what the others of the race achieve. The winner's probability of being better must reach
    `confidence`; the shortest among equals wins. The order of the blocks is drawn anew for each race, so that
    candidates do not adapt to the first block.

    Cost: at most one run for each candidate and validation example; the incumbent's cells are stored. With `ties` also
    that of `untie`.

    Args:
        session: The session.
        candidates: The candidates, at least one.
        scope: Name of the race in the journal.
        confidence: Probability of being better that the winner needs.
        block: Examples in a block.
        prices: The score that each candidate must gain to be worth its length; empty for no price.
        against: The candidate to beat; None for the session's incumbent.
        ties: Whether training examples are asked too where validation examples leave open which is better (`untie`).
    """
    beaten = session.incumbent if against is None else against
    order = list(session.val)
    session.rng("race", scope).shuffle(order)
    price = list(prices) or [0.0] * len(candidates)
    running = [Measured(candidate, (), ()) for candidate in candidates]
    alive = list(range(len(candidates)))
    hopeless = set[int]()
    champion: Measured | None = None
    for number, first in enumerate(range(0, len(order), block)):
        part = order[first : first + block]
        room = session.runs_left() / len(part)
        alive = alive[: int(min(len(alive), room))]
        if not alive:
            break
        measured = await session.evaluate_all(
            [beaten, *(candidates[index] for index in alive)], part, scope=f"{scope}/{number}"
        )
        champion = measured[0] if champion is None else champion + measured[0]
        for index, fresh in zip(alive, measured[1:], strict=True):
            running[index] = running[index] + fresh
        chances = dict(enumerate(chances_of(champion, running, price)))
        raced = sorted(alive, key=lambda index: -chances[index])
        hopeless |= {index for index in raced if chances[index] < HOPELESS}
        alive = [
            index
            for index in raced
            if index not in hopeless and (index == raced[0] or chance(running[raced[0]], running[index]) >= OUTDONE)
        ]
        session.decide("race", at=f"{scope}/{number}", chances=[round(chances[i], 6) for i in raced])
        if not alive:
            break
    winner: int | None = None
    best = (0.0, 0)
    ended = [0.5] * len(running) if champion is None else chances_of(champion, running, price)
    last = alive
    if ties and (whole := [index for index in alive if len(running[index].ids) == len(order)]):
        last = sorted(whole, key=lambda index: -ended[index])[:2]
        rivals = [(candidates[index], ended[index], price[index]) for index in last]
        for index, likely in zip(last, await untie(session, beaten, rivals, scope=f"{scope}/tie"), strict=True):
            ended[index] = likely
    for index, result in enumerate(running):
        if not result.ids:
            continue
        probability = ended[index] if index in alive else 0.0
        session.trial(result, f"{probability:.0%} better" if index in alive else "dropped")
        merit = (round(probability, 9), -result.candidate.size)
        if index in last and probability >= confidence and merit > best:
            winner, best = index, merit
    of, best_score = len(candidates), session.best_score
    verdicts = [
        _verdict(
            champion, result, price[index], accepted=index == winner, confidence=confidence, of=of, best=best_score
        )
        for index, result in enumerate(running)
    ]
    return Race(
        None if winner is None else running[winner],
        champion,
        tuple(running),
        tuple(verdicts),
        tuple(running[index] for index in sorted(hopeless)),
    )


def is_winnable(session: Session, confidence: float) -> bool:
    """Whether a candidate that is right on every validation example would win a race: else none is worth its proposal.

    Cost: none.
    """
    champion = session.standings.of(session.incumbent)
    if champion is None:
        return True
    perfect = replace(
        champion, scores=tuple(None if score is None else session.best_score for score in champion.scores)
    )
    return chance(champion, perfect) >= confidence


def _verdict(
    champion: Measured | None,
    result: Measured,
    price: float,
    *,
    accepted: bool,
    confidence: float,
    of: int,
    best: float,
) -> Verdict:
    """The verdict of a race on one candidate."""
    before, after = ([], []) if champion is None else pairs(champion, result)
    count = len(before)
    if not count:
        return Verdict(accepted=accepted, confidence=confidence, price=price, of=of)
    low, high = paired_interval(before, after, level=max(2 * confidence - 1, 1e-9), best=best)
    first, second = sum(before) / count, sum(after) / count
    return Verdict(accepted, first, second, low, high, count, confidence, price=price, of=of)
