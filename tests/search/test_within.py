"""How far a block comes whose budget ends within it: the same rows at any concurrency, whatever takes how long."""

import contextlib
import random
import time

import pytest

import promptgrad as pg
from promptgrad import aio, lm, nn, run
from promptgrad.errors import BudgetExceeded, LMError
from promptgrad.search import Candidate, Cost, Session
from tests.waiting import turns

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


def simulated(seed, concurrency, budget, journal=None):
    """A session with a budget; replies take times that are drawn."""
    waits = random.Random(seed)

    def answer(messages):
        time.sleep(waits.random() / 500)
        return f"[[ ## word ## ]]\n{'long ' * (len(messages[-1].content) % 7)}\n\n[[ ## completed ## ]]"

    journal = run.Journal() if journal is None else journal
    ledger = run.Ledger(run.Budget(**budget), journal)
    model = Program().to(lm.FunctionLM(answer, name="drawn"))
    session = Session(
        model=model, train=ROWS, val=[], metric=pg.metrics.exact_match, seed=0, journal=journal, ledger=ledger,
        critic=None, concurrency=concurrency, progress=False,
    )  # fmt: skip
    session.cost_per_example = Cost(4 / 3, 130.0)
    return session


def within(session, work):
    """Run a coroutine function in the run of a session."""

    async def go():
        with run.active(journal=session.journal, ledger=session.ledger):
            return await work()

    return aio.run(go())


def spent(session):
    """The keys of the calls that were paid, and what they cost."""
    keys = sorted(event["key"] for event in session.journal.events() if event["kind"] == "call")
    return keys, session.ledger.spent.calls, session.ledger.spent.tokens


def measure(seed, *, concurrency, candidates=2, rows=20, **budget):
    """The rows of each candidate that were paid, and what was spent."""
    session = simulated(seed, concurrency, budget)
    tried = [Candidate(values) for values in TEXTS[:candidates]]
    found = within(session, lambda: session.evaluate_within(tried, ROWS[:rows], scope="last", phase="finals"))
    return [one.ids for one in found], *spent(session)


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


def test_a_block_that_was_left_when_its_time_was_over_is_left_again(tmp_path):
    """It is not run on the rows whose calls were paid: an earlier process went on without any."""
    now = [0.0]

    def measured(journal):
        session = simulated(0, 1, {"seconds": 10}, journal)
        session.journal.subscribe(lambda event: now.__setitem__(0, now[0] + 1.3) if event["kind"] == "call" else None)
        try:
            with pytest.raises(BudgetExceeded, match="10 seconds"):
                within(session, lambda: session.evaluate_within([Candidate()], ROWS, scope="test", phase="test"))
            session.decide("left")
        finally:
            journal.close()
        return session.journal.paid

    for _ in range(2):
        assert measured(run.Journal(tmp_path / "journal.jsonl", clock=lambda: now[0])) == 8


@pytest.mark.parametrize("way", ["evaluate_all", "evaluate_within"])
def test_a_block_that_was_left_sends_nothing_where_there_is_a_little_time_again(tmp_path, way):
    """The last event of the first process may be from before the end of its time."""
    now = [0.0]

    def measured(after):
        journal = run.Journal(tmp_path / "journal.jsonl", clock=lambda: now[0])
        session = simulated(0, 1, {"seconds": 10}, journal)
        now[0] += after

        def told(event):
            now[0] += 1.3 if event["kind"] == "call" else 0

        session.journal.subscribe(told)
        more = {"phase": "test"} if way == "evaluate_within" else {}
        try:
            with pytest.raises(BudgetExceeded, match="10 seconds"):
                within(session, lambda: getattr(session, way)([Candidate()], ROWS, scope="test", **more))
            session.decide("left")
        finally:
            journal.close()
        return session.journal.paid

    assert measured(0.0) == 8
    assert measured(-8.0) == 8


async def scored(session):
    await session.evaluate_all([Candidate(values) for values in TEXTS], ROWS, scope="block")


async def recorded(session):
    await session.forward(Candidate(), ROWS, scope="block")


@pytest.mark.parametrize(
    ("work", "budget"),
    [
        (scored, {"calls": 40}),
        (scored, {"tokens": 4000}),
        (recorded, {"calls": 20}),
        (recorded, {"tokens": 2000}),
    ],
)
def test_what_a_search_pays_where_its_budget_ends_is_the_same_at_any_concurrency(work, budget):
    found = []
    for seed, concurrency in ((0, 1), (1, 16), (2, 16), (3, 5), (4, 16)):
        session = simulated(seed, concurrency, budget)
        session.cost_per_example = Cost(1, 90.0)  # too little, so that the block is begun
        with pytest.raises(BudgetExceeded):
            within(session, lambda session=session: work(session))
        found.append(spent(session))
    assert found[0][1] > 5
    assert found == found[:1] * len(found)


@pytest.mark.parametrize(("calls", "most"), [(1000, 9), (10, 5)])
def test_single_calls_go_side_by_side_as_far_as_the_budget_surely_comes(calls, most):
    session, flying, peaks = simulated(0, 16, {"calls": calls}), [], []

    async def ask(number):
        flying.append(number)
        peaks.append(len(flying))
        await turns()
        flying.remove(number)
        with run.active(journal=session.journal, ledger=session.ledger) as active:
            return await active.call(f"k{number}", reply)

    async def reply():
        return {"text": "yes", "usage": {"input_tokens": 1, "output_tokens": 1, "usd": 0.0}}

    jobs = [lambda number=number: ask(number) for number in range(9)]
    assert len(within(session, lambda: session.ask_all([f"{number}" for number in range(9)], jobs))) == 9
    assert max(peaks) == most


@pytest.mark.parametrize(("calls", "most"), [(1000, None), (24, 1)])
def test_critics_are_asked_one_by_one_where_the_budget_may_end_among_them(calls, most):
    session = simulated(0, 16, {"calls": calls})

    async def work():
        loss = await session.forward(Candidate(), ROWS[:12], scope="block")
        with contextlib.suppress(BudgetExceeded, LMError):
            await session.gradients(loss, [*session.model.parameters()])
        return loss

    with pytest.warns(RuntimeWarning, match="every critic call failed"):
        assert within(session, work).concurrency == most
