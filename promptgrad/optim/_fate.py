"""The record that a memory keeps of a proposal's fate, and the races that decide it in a managed search."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from promptgrad.autograd import Parameter
from promptgrad.optim._gate import UNTRIED
from promptgrad.optim._optimizer import DROPPED, REVERTED
from promptgrad.optim._proposals import TWICE
from promptgrad.optim._report import Change, StepReport
from promptgrad.search import Attempt, Attempts, Candidate, Place, Session, Step, judged, race, refused

Changes = Sequence[tuple[Parameter, Change]]


def attempt_of(change: Change, *, alone: bool) -> Attempt | None:
    """The attempt of a change that was not kept; None where its text had no trial.

    Args:
        change: The change.
        alone: Whether it was the only change that was measured.
    """
    verdict = change.verdict
    passed = verdict is not None and verdict.accepted
    if change.status != "rejected" or (passed and change.reason != REVERTED):
        return None
    if change.reason == TWICE or change.reason.startswith(UNTRIED) or change.edit == 0:
        return None
    if change.reason == REVERTED:
        return Attempt(change.new, "taken back")
    if change.reason == DROPPED:
        return Attempt(change.new, "not tried", measured=False)
    if verdict is not None:
        return judged(change.new, verdict, alone=alone, useless=verdict.gain <= verdict.price)
    return refused(change.new, change.reason, change.hunks)


async def raced(
    step: Step,
    candidates: Sequence[Candidate],
    trained: Iterable[tuple[Place, Parameter]],
    memory: Attempts[Parameter],
    *,
    gate: float,
    price: Callable[[Changes], float],
) -> StepReport:
    """Compare candidates with the incumbent on validation data; one that is better beyond doubt replaces it.

    Cost: as `race`; on a budget, training examples are asked too.

    Args:
        step: The step of the search.
        candidates: The candidates to try; may be empty.
        trained: The texts that may differ, each as its place in the program and the parameter that is its key in the
            memory.
        memory: Receives the attempts that did not win.
        gate: Confidence that the winner is an improvement.
        price: The score that a candidate's changes must gain to be worth their length.

    Returns:
        The report that `step` would give, in which a candidate's differences from the incumbent are the proposals.
    """
    if not candidates:
        return StepReport(())
    session, places = step.session, list(trained)
    changes = [_changes(session, candidate, places) for candidate in candidates]
    prices = [price(changed) for changed in changes]
    ties = session.runs_left() < math.inf
    races = await race(session, candidates, scope=step.scope("race"), confidence=gate, prices=prices, ties=ties)
    fates: list[Change] = []
    for changed, result, verdict in zip(changes, races.results, races.verdicts, strict=True):
        if 0 < verdict.gain <= verdict.price:
            session.refuse("it gained less than length_price charges for its length")
        for parameter, change in changed:
            fates.append(replace(change.to("accepted" if verdict.accepted else "rejected"), verdict=verdict))
            if not verdict.accepted:
                useless, alone = result in races.hopeless, len(changed) == 1
                memory.add(parameter, judged(change.new, verdict, alone=alone, useless=useless))
    if races.winner is not None:
        session.promote(races.winner)
        session.offer(races.winner)
    installed = tuple(change for change in fates if change.status == "accepted")
    return StepReport(installed, (installed or fates)[0].verdict, proposals=tuple(fates))


def _changes(session: Session, candidate: Candidate, trained: Iterable[tuple[Place, Parameter]]) -> Changes:
    """The differences of a candidate from the incumbent."""
    changes = []
    for place, parameter in trained:
        old, new = session.value(place.path, session.incumbent), session.value(place.path, candidate)
        if new != old:
            change = Change(place.path, parameter.kind, "proposed", "", old, new, parameter=parameter)
            changes.append((parameter, change))
    return changes
