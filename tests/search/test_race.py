import re
from functools import partial

import pytest

from promptgrad import lm, nn, run
from promptgrad.data import Example
from promptgrad.errors import LMTimeoutError
from promptgrad.optim import Candidate, Measured
from promptgrad.search import race
from promptgrad.search._chance import chance
from promptgrad.search._race import is_winnable
from promptgrad.testing import Fields
from tests.search.sessions import session_of, within


def measured(scores):
    return Measured(Candidate(), tuple(map(str, range(len(scores)))), tuple(map(float, scores)))


@pytest.mark.parametrize(
    ("before", "after", "low", "high"),
    [
        ([0] * 10, [1] * 10, 0.99, 1.0),
        ([1] * 10, [0] * 10, 0.0, 0.01),
        ([0, 1] * 5, [0, 1] * 5, 0.5, 0.5),
        ([0] * 10, [1] + [0] * 9, 0.6, 0.95),
        ([0] * 100, [1] * 10 + [0] * 90, 0.99, 1.0),
        ([1, 0], [0, 1], 0.5, 0.5),
    ],
)
def test_the_chance_grows_with_gain_and_pairs(before, after, low, high):
    assert low <= chance(measured(before), measured(after)) <= high


def test_without_pairs_nothing_is_known():
    assert chance(None, measured([1])) == 0.5
    assert chance(Measured(Candidate(), ("a",), (1.0,)), Measured(Candidate(), ("b",), (0.0,))) == 0.5


def test_rows_without_an_answer_are_left_out():
    champion, challenger = measured([0, 0, 0]), Measured(Candidate(), ("0", "1", "2"), (1.0, None, 1.0), errors=1)
    assert challenger.mean == 1.0
    assert chance(champion, challenger) == chance(measured([0, 0]), measured([1, 1]))


def spelled(inputs):
    return inputs["word"][::-1]


def test_what_is_known_of_the_incumbent_costs_nothing_so_a_race_goes_on_for_as_long_as_the_budget_pays():
    rows = [Example(word=f"word{n}", answer=f"word{n}"[::-1]).with_inputs("word") for n in range(20)]
    model = nn.Predict("word -> answer", instruction="Copy it.").to(lm.FunctionLM(Fields(answer=spelled), name="s"))
    session = session_of(model, lambda example, output: 0.5 * (output.answer == example.answer), rows[:2], rows)
    session.ledger.budget = run.Budget(calls=32)
    child = session.base.child({"instruction": "Reverse it."}, "child")
    races = within(
        session,
        partial(session.evaluate, session.base, rows, scope="base"),
        partial(race, session, [child], scope="race", confidence=0.6),
    )
    assert [len(result.ids) for result in races.results] == [10]  # 12 calls are left after the start
    assert session.ledger.spent.calls == 30


@pytest.mark.parametrize(("wrong", "winnable"), [(0, False), (1, True)])
def test_no_race_can_be_won_where_every_row_with_an_answer_is_right(wrong, winnable):
    def reply(inputs):
        if inputs["word"] == "word3":
            raise LMTimeoutError("it took too long")
        return spelled(inputs)

    rows = [Example(word=f"word{n}", answer=f"word{n}"[::-1] if n >= wrong else "-") for n in range(8)]
    rows = [row.with_inputs("word") for row in rows]
    model = nn.Predict("word -> answer").to(lm.FunctionLM(Fields(answer=reply), name="speller"))
    session = session_of(model, lambda example, output: output.answer == example.answer, rows[:2], rows)
    within(session, partial(session.evaluate, session.base, rows, scope="base"))
    assert len(session.standings.of(session.base).known) == 7
    assert is_winnable(session, 0.55) is winnable


@pytest.mark.parametrize("ties", [True, False])
def test_what_validation_examples_leave_open_training_examples_decide(ties):
    rows = [Example(word=f"word{n}", answer=f"word{n}"[::-1]).with_inputs("word") for n in range(30)]
    train, val = rows[:20], rows[20:]
    known = {example.id for example in train}

    def metric(example, output):
        return float(output.answer == example.answer) if example.id in known else 0.5

    def reply(messages):
        word = re.findall(r"word\d+", messages[-1].content)[-1]
        return f"[[ ## answer ## ]]\n{word[::-1] if 'Reverse it.' in messages[0].content else word}"

    model = nn.Predict("word -> answer", instruction="Copy it.").to(lm.FunctionLM(reply, name="s"))
    session = session_of(model, metric, train, val)
    child = session.base.child({"instruction": "Reverse it."}, "child")
    races = within(session, partial(race, session, [child], scope="race", confidence=0.55, ties=ties))
    assert (races.winner is not None) == ties
    assert session.rows.known(child) == (known if ties else set())


def test_the_interval_of_a_gain_is_on_the_scale_of_the_metric():
    """Of 20 rows the child wins 12, each 10 points of a metric whose best score is 10."""

    def answer(inputs):
        return inputs["word"][::-1] if int(inputs["word"][4:]) < 12 else "?"

    def metric(example, output):
        return 10.0 * (output.answer == example.answer)

    rows = [Example(word=f"word{n}", answer=f"word{n}"[::-1]).with_inputs("word") for n in range(20)]
    metric.best = 10.0

    def reply(messages):
        told = "everse" in messages[0]["content"]
        return Fields(answer=answer if told else "?")(messages)

    lms = lm.FunctionLM(reply, name="s")
    session = session_of(nn.Predict("word -> answer", instruction="Copy it.").to(lms), metric, rows[:2], rows)
    child = session.base.child({"instruction": "Reverse it."}, "child")
    verdict = within(session, partial(race, session, [child], scope="race", confidence=0.6)).verdicts[0]
    assert verdict.gain == 6.0
    assert 1 < verdict.low < 6.0 < verdict.high <= 10
