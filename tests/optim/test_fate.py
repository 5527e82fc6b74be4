"""What is learnt from the fate of a proposal, and what a candidate of a managed search changes."""

import pytest

import promptgrad as pg
from promptgrad import nn, optim, run
from promptgrad.optim._fate import _changes, attempt_of
from promptgrad.search import Attempt, Candidate, Session


class Two(nn.Module):
    """A program of two texts."""

    def __init__(self):
        super().__init__()
        self.one, self.two = pg.Parameter("Start one."), pg.Parameter("Start two.")


def test_a_candidate_bred_from_the_start_pays_for_what_it_takes_back_of_the_incumbent():
    model, journal = Two(), run.Journal()
    rows = [pg.Example(q=n) for n in range(4)]
    ledger = run.Ledger(run.Budget(), journal)
    session = Session(
        model=model, train=rows, val=rows, metric=pg.metrics.exact_match, seed=0, journal=journal, ledger=ledger
    )
    opt = optim.TGD(model.parameters(), length_price=1.0)
    trained = [(place, place.parameter) for place in session.places()]
    better = {"one": "One better.", "two": "Two, which is a good deal longer than it was."}
    session.incumbent = session.base.child(better, "step 2")
    bred = session.base.child({"one": "One new."}, "step 3")
    changes = _changes(session, bred, trained)
    assert [(change.path, change.old, change.new) for _, change in changes] == [
        ("one", "One better.", "One new."),
        ("two", "Two, which is a good deal longer than it was.", "Start two."),
    ]
    assert opt._price(changes) == pytest.approx(-0.09)  # 12 tokens become 3
    only_back = Candidate({"one": "One better."})
    assert [change.path for _, change in _changes(session, only_back, trained)] == ["two"]


def change(status="rejected", reason="", new="New.", **fields):
    return optim.Change("solve.instruction", "instruction", status, reason, "Old.", new, **fields)


LOST = optim.Verdict(before=0.5, after=0.25, low=-0.5, high=0.1, pairs=8)
WON = optim.Verdict(accepted=True, before=0.5, after=1.0, low=0.2, high=0.7, pairs=8)


@pytest.mark.parametrize(
    ("fate", "kept"),
    [
        (change("accepted"), None),
        (change("untouched"), None),
        (change(reason="it was proposed twice in this step"), None),
        (change(reason="not tried: all 12 rows of the closure are right"), None),
        (change(reason="it does not change the text", edit=0.0), None),
        (change(reason="good, but proposal 2 is better", verdict=WON), None),
        (change(reason="reverted", verdict=WON), Attempt("New.", "taken back")),
        (change(reason="dropped before it was tried"), Attempt("New.", "not tried", measured=False)),
        (change(reason="it is empty", new=None), None),
        (change(reason="it shouts"), Attempt("New.", "refused: it shouts", measured=False)),
        (change(reason="worse", verdict=LOST), Attempt("New.", "gain -0.250 [-0.500, +0.100] on 8 pairs")),
    ],
)
def test_what_is_kept_of_a_change(fate, kept):
    assert attempt_of(fate, alone=True) == kept


def test_what_lost_together_with_other_changes_may_be_tried_alone():
    kept = attempt_of(change(verdict=LOST), alone=False)
    assert not kept.measured
    assert kept.effect.endswith("on 8 pairs, with other changes")
