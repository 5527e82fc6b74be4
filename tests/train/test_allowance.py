"""The part of a budget that a search must leave for what comes after it."""

import math
from types import SimpleNamespace

import pytest

from promptgrad.data import Example
from promptgrad.run import Budget
from promptgrad.search import Candidate, Cost, Measured
from promptgrad.train._allowance import kept
from promptgrad.train._confirm import detectable, estimate
from promptgrad.train._parts import Parts

COST = Cost(calls=1.5, tokens=40, usd=0.25)


def parts(confirm, test):
    rows = [Example(text=str(number)).with_inputs("text") for number in range(max(confirm, test))]
    return Parts([], [], confirm=rows[:confirm], test=rows[:test])


@pytest.mark.parametrize(
    ("confirm", "test", "finalists", "copies", "runs"),
    [
        (4, 0, 1, 1, 8),  # the start and the finalist
        (4, 0, 2, 1, 12),
        (4, 0, 2, 3, 28),  # a program that runs several copies of itself
        (0, 5, 2, 1, 10),  # of the finalists one is reported on, beside the start
        (4, 5, 2, 1, 22),
    ],
)
def test_as_much_is_kept_as_the_runs_after_the_search_cost(confirm, test, finalists, copies, runs):
    session = SimpleNamespace(cost_per_example=COST, baseline=None)
    for budget, left in [
        (Budget(calls=100), {"calls": runs * 1.5}),
        (Budget(tokens=9999), {"tokens": runs * 40}),
        (Budget(usd=30), {"usd": runs * 0.25}),
        (Budget(calls=100, usd=30), {"calls": runs * 1.5, "usd": runs * 0.25}),
    ]:
        keep = kept(session, parts(confirm, test), budget, finalists=finalists, copies=copies)
        assert {name: value for name, value in vars(keep).items() if value is not None} == left


def test_nothing_is_kept_where_nothing_comes_after_or_nothing_is_limited():
    session = SimpleNamespace(cost_per_example=COST, baseline=None)
    assert kept(session, parts(0, 0), Budget(calls=100, tokens=9, usd=1), finalists=2, copies=1) is None
    assert kept(session, parts(4, 4), Budget(), finalists=2, copies=1) is None


def test_the_time_to_keep_is_that_of_the_measured_start():
    def events():
        yield {"kind": "run", "t": 2.0}
        yield {"kind": "evaluation", "t": 8.0, "examples": 12}
        yield {"kind": "evaluation", "t": 90.0, "examples": 1}

    session = SimpleNamespace(cost_per_example=COST, baseline=object(), journal=SimpleNamespace(events=events))

    def seconds(limit, confirm):
        keep = kept(session, parts(confirm, 0), Budget(seconds=limit), finalists=1, copies=1)
        return None if keep is None else keep.seconds

    assert seconds(1000, 10) == pytest.approx(10)  # half a second for each of 20 runs
    assert seconds(20, 40) == pytest.approx(6)  # and at most half of what is left
    assert seconds(8, 10) is None
    session.baseline = None
    assert seconds(1000, 10) is None


def test_four_times_the_examples_show_half_the_gain():
    assert detectable(100) == pytest.approx(2 * detectable(400))
    assert 0.12 < detectable(100) < 0.15
    assert detectable(0) == 1.0


def test_of_what_no_model_answered_there_is_no_estimate():
    made = estimate(Measured(Candidate(), ("a", "b"), (None, None), errors=2), seed=0)
    assert (made.examples, made.errors) == (0, 2)
    assert math.isnan(made.mean)
    assert math.isnan(made.low)
    assert math.isnan(made.high)
