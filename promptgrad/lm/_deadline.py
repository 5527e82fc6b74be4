"""`sleep_within`: a wait that does not pass the end of the active run's time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from promptgrad import aio, run
from promptgrad.errors import BudgetExceeded, LMError


async def sleep_within(
    seconds: float, sleep: Callable[[float], Awaitable[object]], cause: BaseException | None = None
) -> None:
    """Wait, aside from the rows in flight; or raise at once where the active run's budget of seconds would be over.

    Raises:
        BudgetExceeded: They would be.
    """
    session = run.current()
    if session is not None:
        ledger = session.ledger
        left = ledger.remaining("seconds")
        if seconds >= left:
            limit = ledger.budget.seconds or 0.0
            if isinstance(cause, LMError):
                session.journal.withdraw(cause.call)
            raise BudgetExceeded(
                f"a wait of {seconds:.3g} s would pass the budget of {limit:g} seconds, of which {left:.3g} are left",
                kind="seconds",
                limit=limit,
                used=round(limit - left, 1),
            ) from cause
    await aio.aside(partial(sleep, seconds))
