"""The least value of each number that a Trainer takes, and what is below it."""

import re
from itertools import count

import pytest

from promptgrad import nn, optim
from promptgrad.data import Example
from promptgrad.lm import Completion, FunctionLM, Usage
from promptgrad.run import Budget
from promptgrad.search import Cost
from promptgrad.train import Trainer


def trainer(**options):
    model = nn.Predict("text -> word")
    return Trainer(model, optim.TGD(model.parameters()), metric=lambda example, output: 1.0, **options)


@pytest.mark.parametrize(
    ("name", "least", "below"), [("group", 1, 0), ("finalists", 1, 0), ("judge_rows", 0, -1), ("ship", 0.5, 0.49)]
)
def test_the_least_value_is_taken_and_what_is_below_is_not(name, least, below):
    assert getattr(trainer(**{name: least}), name) == least
    with pytest.raises(ValueError, match=name):
        trainer(**{name: below})


def test_an_engine_is_known_by_name():
    for engine in (None, "joint", "local"):
        assert trainer(engine=engine).engine == engine
    with pytest.raises(ValueError, match="engine is 'joint', 'local' or None"):
        trainer(engine="remote")


def test_what_a_run_of_the_program_costs_is_measured_at_the_start():
    class Looks(optim.Search):
        kinds = ("instruction",)

        async def fit(self, session):
            seen.append(session.cost_per_example)

    async def answer(messages):
        return Completion(f"x{next(numbers)}", Usage(1, 30, 10, 0.5))  # equal requests of a run are paid once

    numbers, seen, rows = count(), [], [Example(text=str(number)).with_inputs("text") for number in range(9)]
    model = nn.Sequential(nn.Predict("text -> word"), nn.Predict("word -> text")).to(FunctionLM(answer))
    Trainer(model, Looks(model.parameters()), metric=lambda example, output: 0.5).fit(rows[:4], rows[4:])
    assert seen == [Cost(calls=2, tokens=80, usd=1.0)]


def test_a_plan_says_that_a_budget_is_small_only_where_it_is():
    rows = [Example(text=str(number)).with_inputs("text") for number in range(120)]

    def notes(**budget):
        made = trainer(budget=Budget(**budget))
        made.model.to(FunctionLM(lambda messages: "x"))
        return [note for note in made.plan(rows[:60], rows[60:]).notes if "budget" in note]

    assert notes() == []
    for kind in ("calls", "tokens"):
        assert notes(**{kind: 10**9}) == []
        (small,) = notes(**{kind: 1})
        assert f"the budget of 1 {kind} is too small" in small
        enough = int(re.search(r"needs at least (?:about )?(\d+)", small)[1])
        (some,) = notes(**{kind: enough})
        assert some == f"the budget of {enough} {kind} may end the search early"
        (less,) = notes(**{kind: enough - 1})
        assert "is too small" in less
