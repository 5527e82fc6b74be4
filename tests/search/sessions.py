"""A session without a trainer, and work within its run."""

from promptgrad import aio, run
from promptgrad.search import Session


def session_of(model, metric, train, val=(), **options):
    journal = run.Journal()
    return Session(
        model=model,
        train=train,
        val=list(val),
        metric=metric,
        seed=5,
        journal=journal,
        ledger=run.Ledger(run.Budget(), journal),
        progress=False,
        **options,
    )


def within(session, *works):
    """Run coroutine functions, one after the other, in the run of a session; the last result."""

    async def go():
        with run.active(journal=session.journal, ledger=session.ledger):
            return [await work() for work in works][-1]

    return aio.run(go())
