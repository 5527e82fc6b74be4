"""The noise of a metric that calls language models, measured once at the start of a run."""

from promptgrad import run
from promptgrad.errors import BudgetExceeded, MetricError
from promptgrad.evaluation import JUDGING, JudgeNoise, ajudge_noise
from promptgrad.search import Session

ROWS = 6
"""Outputs that are judged again, if that is cheap enough."""

TIMES = 3
"""Judgements of each output; the first is known."""

SHARE = 20
"""At most one in so many of the budget's calls goes into it, unless the number of rows is given."""


async def judge_noise_of(session: Session, rows: int | None) -> JudgeNoise | None:
    """Judge some outputs of the start again; None where the metric calls no language model, or it would cost too much.

    Cost: two more calls of the metric for each row.

    Args:
        session: The session, its base measured.
        rows: Number of rows; None for the default.
    """
    start = session.baseline
    if start is None or rows == 0:
        return None
    calls = session.costs.of(JUDGING, start)
    judged = [
        (example, output)
        for example, output, score in zip(session.val, start.outputs, start.scores, strict=True)
        if score is not None and calls.get(example.id)
    ]
    count = ROWS if rows is None else rows
    each = (TIMES - 1) * max(calls.values(), default=0)
    limit = session.ledger.budget.calls
    if not judged or (rows is None and limit is not None and SHARE * count * each > limit):
        return None
    chosen = session.rng("judge").sample(judged, min(count, len(judged)))
    try:
        with run.phase("judge"), session.scope("judge"):
            noise = await ajudge_noise(session.metric, chosen, replicates=TIMES, concurrency=session.concurrency)
    except (BudgetExceeded, MetricError) as error:
        session.notes.append(f"the noise of the judge is not known: {error}")
        return None
    session.decide("judge", rows=len(noise.scores), sd=noise.sd, flips=noise.flips)
    return noise
