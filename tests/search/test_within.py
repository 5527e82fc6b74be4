"""How far a block comes whose budget ends within it: the same rows at any concurrency, whatever takes how long."""

import random
import time

import pytest

import promptgrad as pg
from promptgrad import aio, lm, nn, run
from promptgrad.errors import BudgetExceeded
from promptgrad.search import Candidate, Cost, Session

ROWS = [pg.Example(text=f"t{number}", word="w").with_inputs("text") for number in range(20)]
TEXTS = [{}, {"first.instruction": "Say a word of {text} now."}]


class Program(nn.Module):
    """One call or two, as the text says."""

    def __init__(self):
        super().__init__()
        self.first = nn.Predict("text -> word", instruction="Say a word of {text}.")
        self.second = nn.Predict("said, text -> word", instruction="Say it again.")

    def forward(self, text):
        word = self.first(text=text).word
        return word if int(text[1:]) % 3 else self.second(said=word, text=text).word


def measure(seed, *, concurrency, candidates=2, rows=20, **budget):
    """The rows of each candidate that were paid, and what was spent; replies take times that are drawn."""
    waits = random.Random(seed)

    def answer(messages):
        time.sleep(waits.random() / 500)
        return f"[[ ## word ## ]]\n{'long ' * (len(messages[-1].content) % 7)}\n\n[[ ## completed ## ]]"

    journal = run.Journal()
    ledger = run.Ledger(run.Budget(**budget), journal)
    model = Program().to(lm.FunctionLM(answer, name="drawn"))
    session = Session(
        model=model, train=[], val=[], metric=pg.metrics.exact_match, seed=0, journal=journal, ledger=ledger,
        critic=None, concurrency=concurrency, progress=False,
    )  # fmt: skip
    session.cost_per_example = Cost(4 / 3, 130.0)

    async def work():
        with run.active(journal=journal, ledger=ledger):
            tried = [Candidate(values) for values in TEXTS[:candidates]]
            return await session.evaluate_within(tried, ROWS[:rows], scope="last", phase="finals")

    found = aio.run(work())
    keys = sorted(event["key"] for event in journal.events() if event["kind"] == "call")
    return [one.ids for one in found], keys, ledger.spent.calls, ledger.spent.tokens


@pytest.mark.parametrize("budget", [{"calls": 31}, {"calls": 40}, {"tokens": 3000}, {"calls": 3}])
def test_the_same_rows_are_paid_at_any_concurrency(budget):
    wanted = measure(0, concurrency=1, **budget)
    assert 0 < len(wanted[0][0]) < 20
    assert len(wanted[0][0]) - len(wanted[0][1]) in (0, 1)
    assert list(wanted[0][0]) == [row.id for row in ROWS[: len(wanted[0][0])]]
    for seed in range(1, 5):
        assert measure(seed, concurrency=16, **budget) == wanted


def test_all_rows_run_where_the_budget_pays_for_them():
    ids, _, calls, _ = measure(0, concurrency=8, calls=54)
    assert ([len(rows) for rows in ids], calls) == ([20, 20], 47)  # seven of the second calls ask the same


def test_the_budget_is_used_to_its_last_calls():
    *_, calls, _ = measure(0, concurrency=8, calls=31)
    assert calls >= 30  # one more row costs more than one call


def test_where_there_is_no_room_for_one_row_it_is_said():
    with pytest.raises(BudgetExceeded):
        measure(0, concurrency=4, candidates=1, calls=1)
