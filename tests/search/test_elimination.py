"""Elimination: what is offered of candidates that the budget cuts off, and what is said of them."""

import pytest

from promptgrad import aio, lm, nn, run
from promptgrad.data import Example
from promptgrad.errors import BudgetExceeded
from promptgrad.search import Session, eliminate


def rows(count):
    words = [f"word{number}x" for number in range(count)]
    return [Example(word=word, answer=word[::-1]).with_inputs("word") for word in words]


def answer(messages):
    """Reverse if told so, else copy."""
    word = messages[-1]["content"].split("\n")[1]
    right = "everse" in messages[0]["content"].split("\n\nYou are given")[0]
    return f"[[ ## answer ## ]]\n{word[::-1] if right else word}\n\n[[ ## completed ## ]]"


@pytest.fixture
def session():
    """A session whose start was measured, in whose run the test is."""
    journal = run.Journal()
    ledger = run.Ledger(run.Budget(), journal)
    model = nn.Predict("word -> answer", instruction="Copy it.").to(lm.FunctionLM(answer, name="speller"))
    with run.active(journal=journal, ledger=ledger):
        session = Session(
            model=model,
            train=[],
            val=rows(40),
            metric=lambda example, output: float(output.answer == example.answer),
            seed=1,
            journal=journal,
            ledger=ledger,
            progress=False,
        )
        aio.run(session.evaluate(session.base, session.val, scope="base"))
        yield session


def race(session, calls):
    """Five candidates of which one is as bad as the start and the others are perfect, with so many calls left."""
    session.ledger.budget = run.Budget(calls=session.ledger.spent.calls + calls)
    texts = [f"Reverse it, {how}." for how in ("now", "please", "quickly", "in full")]
    candidates = [session.base.child({"instruction": text}, text) for text in (*texts, "Copy it, please.")]
    try:
        found = aio.run(eliminate(session, candidates, scope="race"))
    except BudgetExceeded:
        found = None
    offered = {one.candidate.origin: len(one.ids) for one in session.finalists}
    return found, offered


class TestWithoutALimit:
    def test_those_that_stay_to_the_end_are_offered_and_the_best_becomes_the_incumbent(self, session):
        found, offered = race(session, 1000)
        assert [len(one.ids) for one in found] == [40, 40, 40, 40, 10]
        assert set(offered.values()) == {40}
        assert len(offered) == 4
        assert session.incumbent.key == found[0].candidate.key
        assert [trial.note for trial in session.history] == ["raced to the end"] * 4 + ["fell behind"]


class TestWhereTheBudgetGetsShort:
    def test_the_field_is_halved_and_those_cut_off_are_offered_as_far_as_they_were_measured(self, session):
        found, offered = race(session, 140)  # blocks of 5, 4, 3 and 2 candidates
        assert [len(one.ids) for one in found] == [40, 40, 30, 20, 10]
        assert sorted(offered.values()) == [20, 30, 40, 40]
        assert "Copy it, please." not in offered
        notes = {trial.candidate.origin: trial.note for trial in session.history}
        assert notes.pop("Copy it, please.") == "fell behind"
        assert sorted(notes.values()) == ["cut off", "cut off", "raced to the end", "raced to the end"]
        assert session.incumbent.key == found[0].candidate.key

    def test_the_best_goes_on_alone_to_the_last_row(self, session):
        found, offered = race(session, 110)  # blocks of 5, 3, 2 and 1 candidates
        assert sorted(offered.values()) == [10, 20, 30, 40]
        assert len(found[0].ids) == 40
        assert session.incumbent.key == found[0].candidate.key

    def test_where_it_ends_in_the_middle_all_that_were_measured_are_offered(self, session):
        found, offered = race(session, 75)
        assert found is None
        assert sorted(offered.values()) == [10, 10, 20, 30]
        assert session.incumbent is session.base

    def test_nothing_is_offered_that_was_not_measured(self, session):
        found, offered = race(session, 5)
        assert (found, offered) == (None, {})
