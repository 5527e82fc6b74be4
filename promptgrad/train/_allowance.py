"""What a budget allows: the part that a search must leave, and the notes of a plan about it."""

import math
from dataclasses import replace

from promptgrad import run
from promptgrad.errors import BudgetExceeded
from promptgrad.search import Plan, Session
from promptgrad.train._confirm import LEAST, detectable
from promptgrad.train._parts import Parts

FRAME = ("baseline", "confirm", "test")
"""Phases of a plan before and after the search."""


def kept(session: Session, parts: Parts, budget: run.Budget, *, finalists: int, copies: int) -> run.Budget | None:
    """The part of the budget that the search must leave for the confirmation and the test report."""
    runs = (1 + finalists * copies) * len(parts.confirm) + (1 + copies) * len(parts.test)
    cost = session.cost_per_example
    keep = {
        "calls": math.ceil(runs * cost.calls) or None if budget.calls is not None else None,
        "tokens": math.ceil(runs * cost.tokens) or None if budget.tokens is not None else None,
        "usd": runs * cost.usd or None if budget.usd is not None else None,
        "seconds": _time_kept(session, runs, budget.seconds) if budget.seconds is not None else None,
    }
    return run.Budget(**keep) if any(keep.values()) else None  # type: ignore[arg-type]


def _time_kept(session: Session, runs: int, limit: float) -> float | None:
    """Seconds to keep for so many runs of the program; from the journal, so that a resumed run computes the same."""
    began = 0.0
    if session.baseline is None:
        return None
    for event in session.journal.events():
        if event["kind"] == "run":
            began = event["t"]
        elif event["kind"] == "evaluation":  # the first one measured the start
            ended = event["t"]
            took = (ended - began) * runs / max(1, event["examples"])
            return min(took, (limit - ended) / 2) if took > 0 and ended < limit else None
    return None


def share(session: Session, keep: run.Budget | None, error: BudgetExceeded, parts: Parts) -> str:
    """The share of the budget for the search, such as "calls: 300 of 500, 200 kept for confirmation and test"."""
    limit = getattr(session.ledger.budget, error.kind, None)
    kept = getattr(keep, error.kind, None) or 0
    if limit is None:
        return error.kind
    text = f"{error.kind}: {max(0, limit - kept):.10g} of {limit:.10g}"
    later = "confirmation and test" if parts.confirm else "test"
    text = f"{text}, {kept:.10g} kept for {later}" if kept else text
    left = session.ledger.remaining(error.kind) - kept if error.kind != "seconds" else 0
    return f"{text}; the last {left:.10g} did not pay for its next block" if left > 0 else text


def with_notes(plan: Plan, budget: run.Budget) -> Plan:
    """The plan with notes about the budget and the confirmation."""
    notes = []
    names = (*FRAME, "finals") if plan.confirm else FRAME  # else the search may have measured all that the finals need
    frame = replace(plan, phases=tuple(phase for phase in plan.phases if phase.name in names))
    around = " and ".join(", ".join(phase.name for phase in frame.phases).rsplit(", ", 1))
    if budget.calls is not None and frame.calls > budget.calls:
        notes.append(
            f"the budget of {budget.calls} calls is too small for {around}: it needs at least {frame.calls} calls"
        )
    elif budget.calls is not None and plan.calls > budget.calls:
        notes.append(f"the budget of {budget.calls} calls may end the search early")
    if budget.tokens is not None and frame.tokens > budget.tokens:
        notes.append(
            f"the budget of {budget.tokens} tokens is too small for {around}: it needs at least about {frame.tokens}"
        )
    elif budget.tokens is not None and plan.tokens > budget.tokens:
        notes.append(f"the budget of {budget.tokens} tokens may end the search early")
    if budget.usd is not None:
        if plan.usd is None:
            notes.append("the price of a language model is unknown, so a budget in money will be refused")
        elif frame.usd is not None and frame.usd > budget.usd:
            notes.append(
                f"the budget of ${budget.usd:g} is too small for {around}: it needs at least about ${frame.usd:.4g}"
            )
        elif plan.usd > budget.usd:
            notes.append(f"the budget of ${budget.usd:g} may end the search early")
    rows = plan.confirm or plan.val
    if rows < LEAST:
        least = detectable(rows)
        what = "confirm" if plan.confirm else "decide"
        notes.append(f"{rows} examples to {what} on show gains of about {least:.0%} and more")
    return replace(plan, notes=tuple(notes), limit=budget.calls)
