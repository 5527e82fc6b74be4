"""`sift`: a writer is asked until a text is right where its parent is wrong; a few rows tell which of many go on."""

from collections.abc import Awaitable, Callable, Sequence

from promptgrad.search._candidate import Candidate, Measured, pairs
from promptgrad.search._row import TOLERANCE
from promptgrad.search._session import Session

BLOCKS = (2, 3)
"""Rows that a candidate is tried on at first, and those that it is tried on after it gained on one of these."""

SHARE = 0.3
"""Share of the runs that are left which the asking may cost."""

ROUNDS = (1, 1, 2, 4)
"""How many times `count` candidates a round makes."""


async def sift(
    session: Session,
    ask: Callable[[int, int], Awaitable[Sequence[Candidate]]],
    before: Measured,
    *,
    scope: str,
    count: int,
    rounds: Sequence[int] = ROUNDS,
    blocks: Sequence[int] = BLOCKS,
) -> list[Candidate]:
    """The best of many new candidates by a few training examples that their parent fails, at most `count`, best first.

    A text that says the same as its parent in other words is wrong where that one is, and leaves after two runs. So a
    writer is asked again until one text is right on all of these examples, or a share of the budget is spent.
    Validation examples are not touched: what leaves here leaves no trace in the standings. A text that got no answer
    is not known to be wrong, and goes on behind those that gain.

    Cost: for each new candidate its proposal, runs on the first block, and on the next if it is of the better half of
    its round and gained on one. With fewer failed examples than the blocks have, or a budget whose share does not pay
    for two rounds, one round of proposals alone.

    Args:
        session: The session.
        ask: Makes the candidates of a round, given its number and how many are wanted.
        before: The parent on training examples that no candidate shows.
        scope: Name of the sifting in the journal.
        count: Candidates of the first round, and most that are returned.
        rounds: How many times `count` candidates each round makes.
        blocks: Examples that a candidate is run on, block by block.

    Raises:
        BudgetExceeded: The proposals do not fit what the budget leaves for the search.
        LMError: The language model is down.
    """
    known = before.by_id()
    failed = [key for key, score in known.items() if score < session.best_score - TOLERANCE]
    session.rng("sift", scope).shuffle(failed)
    rows, left = failed[: sum(blocks)], session.runs_left()
    price = count * (len(rows) + 1 / max(session.cost_per_example.calls, 1e-9))
    if len(rows) < sum(blocks) or SHARE * left < 2 * price:
        return list(await ask(0, count))
    most = sum(session.best_score - known[key] for key in rows)
    found: list[tuple[float, Candidate]] = []
    unheard: dict[Candidate, float] = {}
    for number, times in enumerate(rounds):
        if number and session.runs_left() - times * price < (1 - SHARE) * left:
            break
        alive = list(await ask(number, times * count))
        gains, half, first = dict.fromkeys(alive, 0.0), -(-len(alive) // 2), 0
        unheard.update(gains)
        for size in blocks:
            names = set(rows[first : first + size])
            part = [example for example in session.train if example.id in names]
            for after in await session.evaluate_all(alive, part, scope=f"{scope}/{number}/{first}") if alive else ():
                old, new = pairs(before, after)
                gains[after.candidate] += sum(new) - sum(old)
                if new:
                    unheard.pop(after.candidate, None)
            likely = [one for one in alive if gains[one] > TOLERANCE or one in unheard]
            alive = sorted(likely, key=lambda one: -round(gains[one], 9))
            alive, first = alive[: max(count, half)], first + size
        found += [(gain, one) for one, gain in gains.items()]
        if any(gain >= most - TOLERANCE for gain, _ in found):
            break
    found.sort(key=lambda entry: -round(entry[0], 9))
    session.decide("sift", at=scope, gains=[round(gain, 6) for gain, _ in found])
    return [one for gain, one in found if gain > TOLERANCE or one in unheard][:count]
