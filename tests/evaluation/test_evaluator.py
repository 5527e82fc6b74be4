import pytest

import promptgrad as pg
from promptgrad import aio, nn, run
from promptgrad.data import Example
from promptgrad.errors import BudgetExceeded, DataError, InputError, MetricError, StateDictError
from promptgrad.evaluation import Evaluator
from promptgrad.lm import FunctionLM
from promptgrad.metrics import exact_match
from promptgrad.run import Budget, CellStore, Journal, Ledger
from tests.waiting import turns


class Server:
    """Answers with the last word of the instruction, and counts."""

    def __init__(self):
        self.calls = []

    def lm(self, name="m"):
        def respond(messages):
            self.calls.append(messages)
            word = next(w for w in ("alpha", "beta", "gamma", "delta") if w in messages[0].content)
            return f"[[ ## answer ## ]]\n{word}\n\n[[ ## completed ## ]]"

        return FunctionLM(respond, name=name)


class Router(nn.Module):
    """Calls one of two modules, by the input."""

    def __init__(self):
        super().__init__()
        self.left = nn.Predict("question -> answer", instruction="Say alpha.")
        self.right = nn.Predict("question -> answer", instruction="Say beta.")

    async def forward(self, question):
        module = self.left if question.startswith("l") else self.right
        return (await module.acall(question=question)).answer


class PlainRouter(Router):
    def forward(self, question):
        return (self.left if question.startswith("l") else self.right)(question=question).answer


def examples(count=3):
    names = [f"{side}{n}" for side in ("l", "r") for n in range(count)]
    return [Example(question=name, answer="alpha" if name[0] == "l" else "beta") for name in names]


def scores(cells):
    return [cell.score for cell in cells]


@pytest.mark.parametrize("kind", [Router, PlainRouter])
def test_only_what_a_candidate_can_change_is_run_again(kind):
    server = Server()
    evaluator = Evaluator(kind().to(server.lm()), exact_match)
    assert scores(aio.run(evaluator(None, examples()))) == [1] * 6
    assert len(server.calls) == 6
    changed = aio.run(evaluator({"right.instruction": "Say gamma."}, examples()))
    assert scores(changed) == [1, 1, 1, 0, 0, 0]
    assert changed[3].feedback == "the answer should be beta"
    assert len(server.calls) == 9  # the left half never reads what changed
    assert scores(aio.run(evaluator({"right.instruction": "Say gamma."}, examples()))) == [1, 1, 1, 0, 0, 0]
    assert scores(aio.run(evaluator({"right.instruction": "Say beta."}, examples()))) == [1] * 6
    assert len(server.calls) == 9
    assert (evaluator.cells.hits, evaluator.cells.misses) == (3 + 6 + 6, 6 + 3)


def test_demos_and_changed_programs_are_seen():
    server = Server()
    model = Router().to(server.lm())
    evaluator = Evaluator(model, exact_match)
    aio.run(evaluator(None, examples(1)))
    demo = Example(question="x", answer="y")
    aio.run(evaluator({"left.demos": (demo,)}, examples(1)))
    assert len(server.calls) == 3
    aio.run(evaluator({"left.demos": (demo.copy(),)}, examples(1)))
    assert len(server.calls) == 3
    model.left.instruction.data = "Say delta."
    assert scores(aio.run(evaluator(None, examples(1)))) == [0, 1]
    assert len(server.calls) == 4


def test_replicates_language_models_settings_and_metrics_are_told_apart():
    server = Server()
    model = Router().to(server.lm())
    cells = CellStore()
    evaluator = Evaluator(model, exact_match, cells=cells)
    aio.run(evaluator(None, examples(1)))
    aio.run(evaluator(None, examples(1), 1))
    assert len(server.calls) == 4
    model.hops = 3  # a setting of the program that is no parameter
    aio.run(evaluator(None, examples(1)))
    assert len(server.calls) == 6
    aio.run(Evaluator(model, lambda example, output: output == "beta", cells=cells)(None, examples(1)))
    assert len(server.calls) == 8
    aio.run(Evaluator(model, exact_match, cells=cells)(None, examples(1)))
    assert len(server.calls) == 8
    model.to(server.lm("other"))
    aio.run(evaluator(None, examples(1)))
    assert len(server.calls) == 10
    with pg.context(lm=server.lm("a third"), override=True):
        aio.run(evaluator(None, examples(1)))
    assert len(server.calls) == 12


def test_candidates_may_meet_at_the_same_time():
    server = Server()
    evaluator = Evaluator(Router().to(server.lm()), exact_match, concurrency=3)

    async def main():
        candidates = [{"left.instruction": f"Say {word}."} for word in ("alpha", "gamma", "delta")]
        return await aio.gather([lambda c=c: evaluator(c, examples()) for c in candidates])

    found = aio.run(main())
    assert [scores(cells) for cells in found] == [[1] * 6, [0] * 3 + [1] * 3, [0] * 3 + [1] * 3]


def test_the_program_itself_is_not_changed():
    model = Router().to(Server().lm())
    aio.run(Evaluator(model, exact_match)({"left.instruction": "Say gamma."}, examples(1)))
    assert model.left.instruction.data == "Say alpha."


def test_errors_are_cells_that_are_not_kept():
    failing = [True]

    class Program(nn.Module):
        def __init__(self):
            super().__init__()
            self.word = pg.Parameter("alpha")

        def forward(self, question):
            if failing[0] and question == "l0":
                raise ConnectionError("gone")
            return self.word.data

    evaluator = Evaluator(Program(), exact_match)
    cells = aio.run(evaluator(None, examples(1)))
    assert isinstance(cells[0].error, ConnectionError)
    assert scores(cells)[1:] == [0]
    failing[0] = False
    assert scores(aio.run(evaluator(None, examples(1)))) == [1, 0]
    assert evaluator.cells.hits == 1


def test_a_metric_error_is_an_error_cell():
    def metric(example, output):
        return float("nan")

    cells = aio.run(Evaluator(Router().to(Server().lm()), metric)(None, examples(1)))
    assert [type(cell.error) for cell in cells] == [MetricError, MetricError]


def test_a_metric_error_is_not_kept():
    class Calls:  # what is called is part of a cell's key, what it keeps is not
        count = 0

    def moody(example, output):
        Calls.count += 1
        if Calls.count == 1:
            raise KeyError("gold")
        return 1

    evaluator = Evaluator(Router().to(Server().lm()), moody)
    (failed,) = aio.run(evaluator(None, examples(1)[:1]))
    (judged,) = aio.run(evaluator(None, examples(1)[:1]))
    (kept,) = aio.run(evaluator(None, examples(1)[:1]))
    assert isinstance(failed.error, MetricError)
    assert (judged.error, judged.score, kept.score) == (None, 1, 1)
    assert Calls.count == 2


def test_no_more_rows_are_in_flight_than_there_are_slots_over_all_candidates():
    flying, most = set(), 0

    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.word = nn.Parameter("alpha")

        async def forward(self, question):
            nonlocal most
            me = object()
            flying.add(me)
            most = max(most, len(flying))
            await turns()
            flying.remove(me)
            return self.word.data

    evaluator = Evaluator(Slow(), exact_match, concurrency=4)

    async def main():
        words = ("alpha", "beta", "gamma")
        await aio.gather([lambda w=w: evaluator({"word": w}, examples()) for w in words])

    aio.run(main())
    assert most == 4
    assert len(evaluator.cells) == 18


def test_a_replicate_is_the_one_that_was_asked_for_whatever_the_context():
    seen = []

    def respond(request: pg.lm.Request):
        seen.append(request.replicate)
        return "[[ ## answer ## ]]\nalpha\n\n[[ ## completed ## ]]"

    model = Router().to(FunctionLM(respond))
    with pg.context(replicate=3):
        for replicate in (0, 1):
            aio.run(Evaluator(model, exact_match)(None, examples(1)[:1], replicate))
    assert seen == [0, 1]


def test_a_foreign_parameter_makes_a_cell_unfit_for_keeping():
    foreign = pg.Parameter("alpha")

    class Program(nn.Module):
        def forward(self, question):
            return foreign.data

    evaluator = Evaluator(Program(), exact_match)
    assert scores(aio.run(evaluator(None, examples(1)))) == [1, 0]
    foreign.data = "beta"
    assert scores(aio.run(evaluator(None, examples(1)))) == [0, 1]


def test_wrong_candidates_and_data_are_told():
    evaluator = Evaluator(Router().to(Server().lm()), exact_match)
    with pytest.raises(StateDictError, match=r"left\.instruction"):
        aio.run(evaluator({"left.instructions": "x"}, examples(1)))
    with pytest.raises(DataError, match="empty"):
        aio.run(evaluator(None, []))
    with pytest.raises(InputError, match="takes question"):
        aio.run(evaluator(None, [Example(text="x", answer="y")]))


def test_cells_are_journalled_and_the_same_at_any_concurrency():
    digests = set()
    for concurrency in (1, 8):
        server, journal = Server(), Journal()
        evaluator = Evaluator(Router().to(server.lm()), exact_match, concurrency=concurrency)
        with run.active(journal=journal, ledger=Ledger(Budget(calls=50))):
            for trial, word in enumerate(("alpha", "gamma", "alpha")):
                with run.scope(f"trial/{trial}"):
                    cells = aio.run(evaluator({"left.instruction": f"Say {word}."}, examples()))
                journal.append("decision", mean=sum(scores(cells)) / 6)
        kinds = [event["kind"] for event in journal.canonical()]
        assert kinds.count("cell") == 18
        assert kinds.count("call") == len(server.calls) == 9
        digests.add(journal.digest())
    assert len(digests) == 1


def test_a_resumed_run_pays_for_nothing_twice(tmp_path):
    def attempt(stop_after=None):
        server = Server()
        with Journal(tmp_path / "j") as journal:
            ledger = Ledger(Budget(calls=50), journal)
            evaluator = Evaluator(Router().to(server.lm()), exact_match)
            with run.active(journal=journal, ledger=ledger):
                for trial, word in enumerate(("alpha", "gamma", "delta")[:stop_after]):
                    with run.scope(f"trial/{trial}"):
                        aio.run(evaluator({"left.instruction": f"Say {word}."}, examples()))
            return len(server.calls), ledger.spent.calls, journal.canonical()

    assert attempt(2)[:2] == (9, 9)
    assert attempt()[:2] == (3, 12)
    calls, spent, whole = attempt()
    assert (calls, spent) == (0, 12)
    (tmp_path / "j").unlink()
    assert attempt() == (12, 12, whole)


def test_a_budget_ends_it():
    evaluator = Evaluator(Router().to(Server().lm()), exact_match)
    with run.active(ledger=Ledger(Budget(calls=4))), pytest.raises(BudgetExceeded):
        aio.run(evaluator(None, examples()))
