"""Measuring as far as the budget comes, on the same rows at any concurrency."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from promptgrad import run
from promptgrad.data import Example
from promptgrad.errors import BudgetExceeded
from promptgrad.search._candidate import Candidate, Measured

if TYPE_CHECKING:
    from promptgrad.search._session import Session

MARGIN = 2.0
"""A block runs at once if the budget pays for so many times what it should cost."""


async def measure_within(
    session: "Session",
    candidates: Sequence[Candidate],
    rows: Sequence[Example],
    *,
    scope: str,
    phase: str,
    replicate: int = 0,
) -> list[Measured]:
    """Run candidates on as many of the rows, in their order, as the budget leaves room for.

    Where calls in flight share the last of a budget, timing says which of them are paid. So what surely fits runs at
    once, then half of what is left, and in the end one row of one candidate at a time: how far it comes depends on
    costs alone, which are the same at any concurrency. Seconds are a matter of time; how far these let an earlier
    process of the run come is in its journal, and so is what it paid for the others.

    Args:
        session: The session.
        candidates: The candidates.
        rows: The examples.
        scope: Name of the block.
        phase: The phase of the run in which it is.
        replicate: Which of several runs of the same rows.

    Raises:
        BudgetExceeded: There is not even room for one row of one candidate.
    """
    found: list[Measured | None] = [None] * len(candidates)
    done, price = 0, 1.0  # what a run costs, in runs as the start cost them
    try:
        while done < len(rows):
            before = session.runs_left()
            fits = before / (price * len(candidates))
            size = len(rows) - done
            if MARGIN * size > fits:
                size = max(1, int(fits / MARGIN))
            alone = fits < MARGIN and len(candidates) > 1
            for places in [[place] for place in range(len(candidates))] if alone else [[*range(len(candidates))]]:
                name = f"{scope}/{places[0]}" if alone else scope
                block = [candidates[place] for place in places]
                part = await _block(session, block, rows[done : done + size], name, phase, replicate)
                for place, measured in zip(places, part, strict=True):
                    known = found[place]
                    found[place] = measured if known is None else known + measured
                if len(part[0].ids) < size:  # time or the budget ended within it
                    return _whole(session, candidates, found)
            done += size
            if math.isfinite(before):
                price = max(price, (before - session.runs_left()) / (size * len(candidates)))
    except BudgetExceeded:
        if found[0] is None:
            raise
    return _whole(session, candidates, found)


def _whole(session: "Session", candidates: Sequence[Candidate], found: Sequence[Measured | None]) -> list[Measured]:
    """What was measured; nothing of a candidate whose first row was not paid."""
    return [
        Measured(candidate, (), ()) if measured is None else measured
        for candidate, measured in zip(candidates, found, strict=True)
    ]


async def _block(
    session: "Session",
    candidates: Sequence[Candidate],
    rows: Sequence[Example],
    scope: str,
    phase: str,
    replicate: int,
) -> list[Measured]:
    """Run candidates on rows at once, on fewer where the budget ends nevertheless.

    Raises:
        BudgetExceeded: There is not even room for one.
    """
    size, known = len(rows), _on_record(session, scope, len(candidates))
    if known is not None and known[0] < size:
        found = await session.evaluate_all(candidates, rows[: known[0]], scope=scope, replicate=replicate)
        if (here := run.current()) is not None:
            here.catch_up(phase, known[1])
        return found
    while True:
        try:
            return await session.evaluate_all(candidates, rows[:size], scope=scope, replicate=replicate)
        except BudgetExceeded:
            size //= 2
            if not size or session.journal.upcoming() is not None:  # an earlier process went on without the block
                raise


def _on_record(session: "Session", scope: str, count: int) -> tuple[int, int] | None:
    """On how many rows an earlier process of this run measured a block, and the place of its last event."""
    for event in session.journal.coming():
        if event["kind"] == "evaluation":
            wanted = session._prefix + scope + ("/0" if count > 1 else "")
            return (event["examples"], event["seq"] + count - 1) if event["at"] == wanted else None
        if event["kind"] != "candidate":
            return None
    return None
