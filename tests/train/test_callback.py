"""`Trainer(callbacks=...)`: what may watch a run, and that it never disturbs one."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

import promptgrad as pg
from promptgrad import Trainer, evaluate, lm, run
from promptgrad.errors import BudgetExceeded, LMConnectionError
from promptgrad.train import Callback
from tests.waiting import interrupted

pytestmark = pytest.mark.usefixtures("overlap_is_known")


class Heard(Callback):
    """Keeps what it is called with."""

    def __init__(self):
        self.calls = []

    def on_fit_start(self, trainer):
        self.calls.append(("start", trainer))

    def on_trial(self, trainer, trial):
        self.calls.append(("trial", trial))

    def on_proposal(self, trainer, proposal):
        self.calls.append(("proposal", proposal))

    def on_decision(self, trainer, decision):
        self.calls.append(("decision", decision))

    def on_budget(self, trainer, spent):
        self.calls.append(("budget", spent))

    def on_fit_end(self, trainer, result):
        self.calls.append(("end", result))

    def of(self, name):
        return [given for kind, given in self.calls if kind == name]


@pytest.fixture
def data(world):
    return world.examples(16), world.examples(40, seed=1)


def program(world, answer=None):
    return world.Program().to(lm.FunctionLM(answer or world.answer, name="simulated"))


def trainer(world, model, name="tgd", **options):
    return Trainer(model, world.optimizer(name, model), metric=world.metric, **{"seed": 5, **options})


@pytest.mark.parametrize(("ship", "decides"), [(0.9, "ship"), ("significant", "confirm")])
@pytest.mark.parametrize("name", ["mipro", "tgd", "gepa"])
def test_a_tracker_sees_the_whole_run(world, data, name, ship, decides):
    heard = Heard()
    trainer_ = trainer(world, program(world), name, callbacks=[heard], ship=ship)
    result = trainer_.fit(*data)
    assert [heard.calls[0], heard.calls[-1]] == [("start", trainer_), ("end", result)]
    assert result is trainer_.result
    trials = heard.of("trial")
    assert [(t["number"], t["origin"], t["score"], t["examples"], t["note"]) for t in trials] == [
        (t.number, t.candidate.origin, t.score, t.examples, t.note) for t in result.history
    ]
    assert [trial["values"].keys() for trial in trials] == [trial.candidate.values.keys() for trial in result.history]
    proposals = heard.of("proposal")
    assert proposals
    assert all(p["accepted"] == (p["refused"] is None) and p["reason"] for p in proposals)
    assert {decision["kind"] for decision in heard.of("decision")} >= {"incumbent", decides, "result"}
    assert not {"run", "candidate", "evaluation", "proposal"} & {d["kind"] for d in heard.of("decision")}
    spent = heard.of("budget")
    assert len(spent) == result.calls
    assert [each.calls for each in spent] == sorted(each.calls for each in spent)
    assert spent[-1] == result.spent


def test_a_refused_proposal_comes_with_its_reason(world, data):
    def writer(messages):
        reply = world.answer(messages)
        return reply.replace("everse", "{everse}") if "new_instruction" in messages[0].content else reply

    model = program(world, writer)
    model.spell.instruction.data = "Copy the word {word}."
    heard = Heard()
    trainer(world, model, "mipro", callbacks=[heard]).fit(*data)
    refused = [p for p in heard.of("proposal") if not p["accepted"]]
    assert refused
    assert all(p["reason"] == p["refused"] for p in refused)
    assert any("placeholder" in p["reason"] for p in refused)


def test_a_plain_function_is_called_with_every_event(world, data, tmp_path):
    events = []
    trainer(world, program(world), run_dir=tmp_path, callbacks=[events.append]).fit(*data)
    written = list(run.Journal(tmp_path / "journal.jsonl", readonly=True).events())
    assert [{**event, "replayed": False} for event in written[1:]] == [dict(event) for event in events]


def test_a_resumed_run_is_watched_again_with_what_is_replayed_marked(world, data, tmp_path):
    heard, again = Heard(), Heard()
    first = trainer(world, program(world), run_dir=tmp_path, callbacks=[heard]).fit(*data)
    model = program(world)
    resumed = Trainer.resume(tmp_path, model, world.optimizer("tgd", model), world.metric, callbacks=[again])
    for name in ("trial", "proposal", "decision"):
        assert [{**event, "replayed": True} for event in heard.of(name)] == [dict(event) for event in again.of(name)]
    assert again.of("budget")[-1].replayed == first.calls == len(again.of("budget"))
    assert [len(again.of("start")), again.of("end")] == [1, [resumed]]


def stop_by(kind, model):
    """A model that stops answering after some calls: by Ctrl-C, or by an error."""
    asked = []

    def answer(messages):
        asked.append(1)
        if len(asked) == 70 and kind == "ctrl-c":
            return interrupted()
        if len(asked) > 70 and kind == "error":
            raise LMConnectionError("refused")
        return model(messages)

    return answer


@pytest.mark.parametrize(
    ("kind", "error", "reason"),
    [
        ("ctrl-c", KeyboardInterrupt, "stopped by the user"),
        ("error", LMConnectionError, "LMConnectionError: refused"),
    ],
)
def test_the_end_is_told_however_it_comes(world, data, kind, error, reason):
    heard = Heard()
    trainer_ = trainer(world, program(world, stop_by(kind, world.answer)), callbacks=[heard])
    with pytest.raises(error):
        trainer_.fit(*data)
    assert heard.of("end") == [trainer_.result]
    assert trainer_.result.outcome == "interrupted"
    assert reason in trainer_.result.reason


def test_a_budget_that_does_not_cover_the_start_is_an_end_too(world, data):
    heard = Heard()
    with pytest.raises(BudgetExceeded):
        trainer(world, program(world), budget=pg.Budget(calls=10), callbacks=[heard]).fit(*data)
    assert "BudgetExceeded" in heard.of("end")[0].reason


def test_the_end_of_the_search_by_its_budget_is_a_decision(world, data):
    heard = Heard()
    trainer(world, program(world), budget=pg.Budget(calls=140), ship="significant", callbacks=[heard]).fit(*data)
    assert [d["of"] for d in heard.of("decision") if d["kind"] == "exhausted"] == ["calls"]


class Broken(Callback):
    """Raises wherever it is called."""

    def on_fit_start(self, trainer):
        raise RuntimeError("no tracker")

    def on_trial(self, trainer, trial):
        raise ValueError(f"no trial {trial['number']}")

    def on_fit_end(self, trainer, result):
        raise OSError("no disk")


def test_what_a_callback_raises_is_reported_and_never_ends_the_run(world, data, tmp_path):
    quiet = trainer(world, program(world), run_dir=tmp_path / "quiet").fit(*data)
    heard = Heard()
    noisy = trainer(world, program(world), run_dir=tmp_path / "noisy", callbacks=[Broken(), heard])
    with pytest.warns(UserWarning, match="the callback Broken raised") as told:
        result = noisy.fit(*data)
    assert len(told) == 3
    assert result.values == quiet.values
    assert result.notes == (
        *quiet.notes,
        "the callback Broken raised RuntimeError on on_fit_start: no tracker",
        f"the callback Broken raised ValueError on the event 'trial': no trial 0 ({len(result.history)} times)",
        "the callback Broken raised OSError on on_fit_end: no disk",
    )
    assert noisy.result is result
    assert len(heard.of("trial")) == len(result.history)
    digests = [run.Journal(tmp_path / name / "journal.jsonl", readonly=True).digest() for name in ("quiet", "noisy")]
    assert digests[0] == digests[1]


class Cancelled(Callback):
    """A tracker whose own asyncio code was cancelled."""

    def __init__(self, kind):
        self.kind = kind

    def on_fit_start(self, trainer):
        raise self.kind("at the start")

    def on_budget(self, trainer, spent):
        raise self.kind("on the way")

    def on_fit_end(self, trainer, result):
        raise self.kind("at the end")


@pytest.mark.parametrize("kind", [asyncio.CancelledError, GeneratorExit])
def test_a_cancellation_inside_a_callback_never_ends_the_run(world, data, kind):
    quiet = trainer(world, program(world)).fit(*data)
    with pytest.warns(UserWarning, match=f"the callback Cancelled raised {kind.__name__}"):
        result = trainer(world, program(world), callbacks=[Cancelled(kind)]).fit(*data)
    assert result.values == quiet.values
    assert [note for note in result.notes if "at the start" in note and "times" in note]


def test_what_a_callback_does_to_an_event_changes_nothing(world, data, tmp_path):
    def meddler(event):
        for value in event.values():
            if isinstance(value, (list, dict)):
                value.clear()

    quiet = trainer(world, program(world)).fit(*data)
    result = trainer(world, program(world), callbacks=[meddler], run_dir=tmp_path).fit(*data)
    assert (result.values, result.notes) == (quiet.values, quiet.notes)
    model = program(world)
    assert Trainer.resume(tmp_path, model, world.optimizer("tgd", model), world.metric).values == quiet.values


def test_an_lm_call_of_a_callback_is_no_part_of_the_run(world, data):
    opinions = []

    class Asks(Callback):
        def on_decision(self, trainer, decision):
            opinions.append(lm.FunctionLM(lambda messages: "well done")("what do you make of it?").text)

    quiet = trainer(world, program(world)).fit(*data)
    result = trainer(world, program(world), callbacks=[Asks()]).fit(*data)
    assert "well done" in opinions
    assert (result.calls, result.notes) == (quiet.calls, quiet.notes)


def test_a_callback_evaluates_in_a_thread_of_its_own(world, data):
    reports = []

    with ThreadPoolExecutor(1) as pool:

        class Watches(Callback):
            def on_trial(self, trainer, trial):
                reports.append(pool.submit(evaluate, program(world), data[1][:4], world.metric))

        quiet = trainer(world, program(world)).fit(*data)
        result = trainer(world, program(world), callbacks=[Watches()]).fit(*data)
        assert len(reports) == len(result.history)
        assert all(len(report.result(60).rows) == 4 for report in reports)
    assert (result.calls, result.notes) == (quiet.calls, quiet.notes)


class Awaited(Callback):
    async def on_trial(self, trainer, trial):
        pass


class Misspelt(Callback):
    def on_trail(self, trainer, trial):
        pass


async def awaited(event):
    pass


def awaited_not(event):
    pass


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ([awaited], "awaited is a coroutine function"),
        ([Awaited()], "Awaited is a coroutine function, or has a coroutine method.*call_soon_threadsafe"),
        ([Misspelt()], r"Misspelt\.on_trail would never be called: a Callback has on_fit_start, on_trial"),
        ([Heard], r"holds the class Heard: give an instance, Heard\(\)"),
        ([3], "a promptgrad.Callback or a function of one event, not int"),
        (Heard(), r"callbacks is a list, such as callbacks=\[Heard\]"),
        (awaited, "callbacks is a list"),
    ],
)
def test_what_cannot_be_called_is_refused(world, callbacks, message):
    with pytest.raises(TypeError, match=message):
        trainer(world, program(world), callbacks=callbacks)


def test_the_base_does_nothing_and_is_at_the_front_door(world, data):
    assert pg.Callback is Callback
    assert repr(Heard()) == "<Callback Heard>"
    assert repr(trainer(world, program(world), callbacks=[Heard(), awaited_not])).endswith(
        ", callbacks: Heard, awaited_not)"
    )
    assert trainer(world, program(world), callbacks=[Callback()]).fit(*data).shipped


def test_an_event_is_plain_json(world, data):
    lines = []
    trainer(world, program(world), callbacks=[lambda event: lines.append(json.dumps(dict(event)))]).fit(*data)
    assert any(json.loads(line)["kind"] == "trial" for line in lines)
