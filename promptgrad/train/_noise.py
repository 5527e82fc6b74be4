"""The noise of a metric that calls language models, measured once at the start of a run."""

from typing import Any

from promptgrad import run
from promptgrad.errors import BudgetExceeded, MetricError
from promptgrad.evaluation import JUDGING, JudgeNoise, ajudge_noise
from promptgrad.metrics import Metric
from promptgrad.nn import Module, Predict
from promptgrad.search import Session

ROWS = 6
"""Outputs that are judged again, if that is cheap enough."""

TIMES = 3
"""Judgements of each output; the first is known."""

SHARE = 20
"""At most one in so many of the budget's calls goes into it, unless the number of rows is given."""


def checked_rows(rows: Any) -> int | None:
    """Check how many rows are to be judged again, and return it.

    Raises:
        ValueError: It is not a number of rows.
    """
    if rows is not None and (isinstance(rows, bool) or not isinstance(rows, int) or rows < 0):
        raise ValueError(f"judge_rows is a number of rows, 0 for none, not {rows!r}")
    return rows


def calls_for_noise(metric: Metric, known: int, rows: int | None, budget: run.Budget) -> int:
    """About how many calls the noise of a judge will cost; 0 where the metric is no module that calls an LM.

    Args:
        metric: The metric.
        known: Validation examples.
        rows: Rows to judge again; None for the default.
        budget: The budget.
    """
    judge = getattr(metric, "fn", metric)
    each = sum(isinstance(part, Predict) for part in judge.modules()) if isinstance(judge, Module) else 0
    return (TIMES - 1) * each * min(_count(rows, (TIMES - 1) * each, budget), known)


def _count(rows: int | None, each: float, budget: run.Budget) -> int:
    """The rows to judge again, at so many calls each: by default none if they would cost too much."""
    if rows is not None:
        return rows
    return 0 if budget.calls is not None and SHARE * ROWS * each > budget.calls else ROWS


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
    count = _count(rows, (TIMES - 1) * max(calls.values(), default=0), session.ledger.budget)
    if not judged or not count:
        return None
    chosen = session.rng("judge").sample(judged, min(count, len(judged)))
    try:
        session.leave_what_was_left("judge")
        with run.phase("judge"), session.scope("judge"):
            noise = await ajudge_noise(session.metric, chosen, replicates=TIMES, concurrency=session.concurrency)
    except (BudgetExceeded, MetricError) as error:
        if isinstance(error, BudgetExceeded) and (here := run.current()) is not None:
            here.catch_up("judge")
        session.notes.append(f"the noise of the judge is not known: {error}")
        return None
    session.decide("judge", rows=len(noise.scores), sd=noise.sd, flips=noise.flips)
    return noise
