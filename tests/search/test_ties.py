"""`untie`: training examples are asked where validation examples leave open who is better, and the budget has room."""

from types import SimpleNamespace

import pytest

from promptgrad import aio
from promptgrad.search import Candidate, Measured, untie

CHAMPION, FIRST, SECOND = (Candidate({"text": name}) for name in ("champion", "first", "second"))


def untied(rivals, scores, *, left=1000, train=10):
    session, asked = SimpleNamespace(train=[None] * train, runs_left=lambda: left), []

    async def ask(candidate, scope):
        asked.append((candidate.values["text"], scope))
        rows = scores[candidate.values["text"]]
        return Measured(candidate, tuple(map(str, range(len(rows)))), tuple(rows))

    return aio.run(untie(session, CHAMPION, rivals, scope="tie", asked=ask)), asked


SCORES = {"champion": [0.0] * 40, "first": [0.0] * 40, "second": [1.0] * 40}


def test_training_examples_turn_who_is_ahead():
    found, asked = untied([(FIRST, 0.6, 0.0), (SECOND, 0.5, 0.0)], SCORES)
    assert found[0] <= 0.5 < 0.99 < found[1]
    assert asked == [("champion", "tie/0/a"), ("first", "tie/0/b"), ("champion", "tie/1/a"), ("second", "tie/1/b")]


@pytest.mark.parametrize("likely", [0.3, 0.95])
def test_what_validation_examples_settle_is_not_asked(likely):
    assert untied([(SECOND, likely, 0.0)], SCORES) == ([likely], [])


@pytest.mark.parametrize(("left", "asks"), [(61, True), (60, False)])
def test_no_budget_goes_to_ties_that_cannot_pay_for_them(left, asks):
    assert bool(untied([(SECOND, 0.6, 0.0)], SCORES, left=left)[1]) == asks


def test_a_longer_text_must_gain_its_price():
    free, priced = (untied([(SECOND, 0.6, price)], SCORES)[0][0] for price in (0.0, 1.0))
    assert priced <= 0.5 < free
