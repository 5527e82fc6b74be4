"""Elimination: many candidates race each other block by block, and those that are behind the leader leave."""

from collections.abc import Sequence

from promptgrad.data import Example
from promptgrad.errors import BudgetExceeded
from promptgrad.search._candidate import Candidate, Measured, pairs
from promptgrad.search._chance import chance
from promptgrad.search._race import BLOCK
from promptgrad.search._session import Session

BEHIND = 0.05
"""Probability of being better than the leader below which a candidate leaves, see docs/decisions.md."""


async def eliminate(
    session: Session, candidates: Sequence[Candidate], *, scope: str, block: int = BLOCK, behind: float = BEHIND
) -> list[Measured]:
    """Score candidates on the validation examples block by block, and drop those that fall behind; the best first.

    After each block the leader is the one with the best mean; the incumbent takes part, with the scores that it has
    already. A candidate leaves when the probability that it is better than the leader is below `behind`. The race ends
    when all examples are used, or when none is left but the incumbent. Those that ran on every example are considered
    for the confirmation. Where the budget does not pay for all, the field is halved from block to block so that the
    best can be run on every example: the last of the candidates do not start, and later the best go on alone. Those
    that it cuts off, or that are still in the race when it ends, are offered as far as they were measured.

    Cost: at most one run for each candidate and validation example.

    Args:
        session: The session.
        candidates: The candidates, all different.
        scope: Name of the race in the journal.
        block: Examples in a block.
        behind: The probability.

    Returns:
        The candidates that raced, as they were measured, those that stayed to the end first, each group by its mean.

    Raises:
        BudgetExceeded: The next block does not fit what the budget leaves for the search.
    """
    order = list(session.val)
    session.rng("eliminate", scope).shuffle(order)
    found = {each.key: Measured(each, (), ()) for each in candidates if each.key != session.base.key}
    alive = _fitting(list(found), session.runs_left(), order, block)
    found = {key: found[key] for key in alive}
    cut: list[str] = []  # what the budget does not pay for to the end
    champion = session.standings.of(session.incumbent)
    try:
        for number, first in enumerate(range(0, len(order), block)):
            if not alive:
                break
            part = order[first : first + block]
            going = _fitting(alive, session.runs_left(), order[first:], block)
            cut += alive[len(going) :]
            alive = going
            fresh = await session.evaluate_all([found[key].candidate for key in alive], part, scope=f"{scope}/{number}")
            for measured in fresh:
                found[measured.candidate.key] += measured
            leader = max((found[key] for key in alive), key=_merit)
            if champion is not None and _is_ahead(champion, leader):
                leader = champion
            chances = {key: chance(leader, found[key]) for key in alive}
            alive = [key for key in alive if found[key] is leader or chances[key] >= behind]
            alive.sort(key=lambda key: _merit(found[key]), reverse=True)
            session.decide("race", at=f"{scope}/{number}", chances=[round(each, 6) for each in chances.values()])
    except BudgetExceeded:
        for key in (*alive, *cut):
            if found[key].ids:
                session.offer(found[key])  # without an event: a resumed run expects the end of the search here
        raise
    for key, measured in found.items():
        session.trial(measured, "raced to the end" if key in alive else "cut off" if key in cut else "fell behind")
    for key in cut:
        session.offer(found[key])
    ended = sorted((found[key] for key in alive), key=_merit, reverse=True)
    for measured in ended:
        session.consider(measured)
    return ended + sorted((found[key] for key in found if key not in alive), key=_merit, reverse=True)


def _fitting(keys: list[str], runs: float, rows: Sequence[Example], block: int) -> list[str]:
    """The first of some keys, at least one: so many that halves of them can go on, block by block, to the last row."""
    price = sum(len(rows[first : first + block]) / 2**number for number, first in enumerate(range(0, len(rows), block)))
    return keys[: max(1, int(min(len(keys), runs / max(1.0, price))))]


def _merit(measured: Measured) -> tuple[float, int]:
    return round(measured.mean, 9), -measured.candidate.size


def _is_ahead(base: Measured, leader: Measured) -> bool:
    before, after = pairs(base, leader)
    return round(sum(before) - sum(after), 9) > 0
