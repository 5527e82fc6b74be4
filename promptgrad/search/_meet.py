"""`meet`: many candidates meet the incumbent on the same examples, block by block; who falls behind leaves."""

from collections.abc import Sequence

from promptgrad.data import Example
from promptgrad.search._candidate import Candidate
from promptgrad.search._chance import chance
from promptgrad.search._race import BLOCK, OUTDONE
from promptgrad.search._session import Session

BEHIND = 0.25
"""Probability of being better than the incumbent below which a candidate leaves."""

LEAST = 2
"""Candidates of which no more leave only because others are better."""


async def meet(
    session: Session, candidates: Sequence[Candidate], *, scope: str, depth: int | None = None, block: int = BLOCK
) -> list[Candidate]:
    """Run candidates on validation examples beside the incumbent; return those that kept up, best first.

    After each block the better half goes on, and at least two: nine that are as good as each other, measured on
    everything, cost more than the next proposals, which build on the best of them.

    In each block the examples that the incumbent gets right and those that it fails are mixed as in the whole, so that
    a block is a fair sample; the order is drawn anew each time. Nobody wins here: `session.standings` has what was
    measured.

    The best goes on alone where the budget pays for no others beside its way through all of `val`, and the meeting ends
    before a block that does not fit.

    Cost: at most one run for each candidate and example, and one of the incumbent where it is not known there.

    Args:
        session: The session.
        candidates: The candidates.
        scope: Name of the meeting in the journal.
        depth: Most examples; None for all of `val`. Those that the incumbent is known on come first.
        block: Examples in a block.
    """
    order = _mixed(session, scope)[:depth]
    alive = list(candidates)
    for number, first in enumerate(range(0, len(order), block)):
        part = order[first : first + block]
        champion = session.standings.of(session.incumbent)
        known = champion.by_id() if champion is not None else {}
        lacking = [example for example in part if example.id not in known]
        left = session.runs_left() - len(lacking)
        if left < len(part):
            break
        others = max(0.0, left - (len(session.val) - first)) / len(part)  # the best shall get to the end
        alive = alive[: 1 + int(min(len(alive), others))]
        if lacking:
            await session.evaluate(session.incumbent, lacking, scope=f"{scope}/{number}/incumbent")
        await session.evaluate_all(alive, part, scope=f"{scope}/{number}")
        champion = session.standings.of(session.incumbent)
        measured = {candidate.key: session.standings.of(candidate) for candidate in alive}
        chances = {key: chance(champion, one) for key, one in measured.items()}
        alive.sort(key=lambda one: -chances[one.key])
        best = alive[0]
        alive = [
            one
            for one in alive
            if chances[one.key] >= BEHIND and (one is best or chance(measured[best.key], measured[one.key]) >= OUTDONE)
        ]
        alive = alive[: max(LEAST, -(-len(alive) // 2))]
        session.decide("meet", at=f"{scope}/{number}", chances=[round(each, 6) for each in chances.values()])
        if not alive:
            break
    return alive


def _mixed(session: Session, scope: str) -> list[Example]:
    """The validation examples, those that the incumbent was run on first, right and wrong ones evenly mixed."""
    champion = session.standings.of(session.incumbent)
    known = champion.by_id() if champion is not None else {}
    order = list(session.val)
    session.rng("meet", scope).shuffle(order)
    groups: list[list[Example]] = [[], [], []]
    for example in order:
        score = known.get(example.id)
        groups[2 if score is None else int(score >= session.best_score)].append(example)
    placed = [((n + 0.5) / len(group), example) for group in groups[:2] for n, example in enumerate(group)]
    return [example for _, example in sorted(placed, key=lambda entry: entry[0])] + groups[2]
