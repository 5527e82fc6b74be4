"""`promptgrad.compile`: the one-line door."""

import json
import re

import pytest

import promptgrad as pg
from promptgrad import lm, nn, optim
from promptgrad.errors import JournalError, LMConnectionError
from promptgrad.testing import Fields
from tests.waiting import interrupted


class Counted:
    def __init__(self, world):
        self.world, self.calls = world, 0

    def __call__(self, messages):
        self.calls += 1
        return self.world.answer(messages)


def program(world, answer=None):
    return world.Program().to(lm.FunctionLM(answer or world.answer, name="simulated"))


@pytest.fixture
def data(world):
    return world.examples(24), world.examples(30, seed=1)


def test_it_returns_a_new_program_that_is_better(world, data):
    model = program(world)
    before, results = model.state_dict(), []
    better = pg.compile(model, data[0], world.metric, valset=data[1], budget="medium", seed=3, report=results.append)
    assert better is not model
    assert model.state_dict() == before
    assert results[0].shipped
    fresh = world.examples(30, seed=9)
    scores = [pg.evaluate(one, fresh, metric=world.metric).score for one in (model, better)]
    assert scores[1] > scores[0] + 0.5


@pytest.mark.filterwarnings("ignore:the program is as it was")
def test_a_budget_in_words_grows_with_data_and_program(world, data, tmp_path):
    def down(messages):
        raise LMConnectionError("refused")

    def calls(size, valset):
        folder = tmp_path / f"{size} {len(valset)}"
        with pytest.raises(LMConnectionError):  # what the budget is stands before the first call
            pg.compile(program(world, down), data[0], world.metric, valset=valset, budget=size, seed=3, run_dir=folder)
        return json.loads((folder / "run.json").read_text())["settings"]["budget"]["calls"]

    assert calls("light", data[1]) == 5 * 30 * 2
    assert calls("medium", data[1]) == 15 * 30 * 2
    assert calls("light", data[1][:8]) == 5 * 20 * 2


def test_where_nothing_ships_it_says_so_and_returns_a_copy(world, data):
    model = program(world)
    with pytest.warns(UserWarning, match="the program is as it was") as told:
        same = pg.compile(model, data[0], lambda gold, pred, trace=None: 0.5, valset=data[1], seed=3)
    assert told[0].filename == __file__, "the line that called it, not one of the loop that it ran on"
    assert same is not model
    assert same.state_dict() == model.state_dict()


@pytest.mark.parametrize(("stop", "error"), [("ctrl-c", KeyboardInterrupt), ("down", LMConnectionError)])
def test_what_was_reached_is_reported_when_it_is_stopped(world, data, tmp_path, stop, error):
    counted, results = Counted(world), []

    def answer(messages):
        if counted.calls == 70 and stop == "ctrl-c":
            counted(messages)
            return interrupted()
        if counted.calls >= 70 and stop == "down":
            raise LMConnectionError("refused")
        return counted(messages)

    def line(answer):
        options = {"valset": data[1], "budget": pg.Budget(calls=400), "seed": 3, "run_dir": tmp_path / "run"}
        return pg.compile(program(world, answer), data[0], world.metric, report=results.append, **options)

    with pytest.raises(error):
        line(answer)
    assert [result.outcome for result in results] == ["interrupted"]
    assert results[0].calls > 0
    line(world.answer)
    assert [result.outcome for result in results] == ["interrupted", "shipped"]


def test_the_same_line_continues_a_run(world, data, tmp_path):
    def line(counted, **options):
        model = program(world, counted)
        options = {"valset": data[1], "budget": pg.Budget(calls=400), "seed": 3, **options}
        return pg.compile(model, data[0], world.metric, run_dir=tmp_path / "run", **options)

    first, again = Counted(world), Counted(world)
    state = line(first).state_dict()
    assert line(again).state_dict() == state
    assert first.calls > 100
    assert again.calls == 0
    with pytest.raises(JournalError, match="with the budget 400 calls, not 500 calls"):
        line(again, budget=pg.Budget(calls=500))
    with pytest.raises(JournalError, match="with the seed 3, not 4"):
        line(again, seed=4)


def test_an_optimizer_that_is_made_already_is_refused(world, data):
    model = program(world)
    with pytest.raises(TypeError, match=r"a function of the parameters, .* not an object of the class GEPA"):
        pg.compile(model, data[0], world.metric, optimizer=optim.GEPA(model.parameters()))


def test_several_optimizers_may_be_made_of_the_parameters(world, data):
    def both(params):
        demos = optim.LabeledFewShot(params, k=2)
        texts = optim.TGD(params, steps=1)
        assert demos.names() == texts.names()
        return optim.BetterTogether("demos -> texts", demos=demos, texts=texts)

    results = []
    pg.compile(program(world), data[0], world.metric, valset=data[1], optimizer=both, report=results.append)
    assert results[0].calls


@pytest.mark.filterwarnings("ignore:the program is as it was")
def test_a_budget_too_small_for_a_step_is_said(world, data):
    results = []
    pg.compile(program(world), data[0], world.metric, valset=data[1], budget=pg.Budget(calls=64), report=results.append)
    assert results[0].outcome == "no candidate"
    assert "no candidate came so far as to be run on validation examples" in results[0].reason
    assert results[0].notes[0].endswith("runs of the program after the start, too few for a step of Auto")


@pytest.mark.filterwarnings("ignore:the program is as it was")
def test_candidates_that_fell_behind_are_counted():
    model = nn.Predict("word -> out").to(lm.FunctionLM(Fields(out=lambda inputs: inputs["word"])))
    rows = [pg.Example(word=f"w{n}", out=f"{n} x").with_inputs("word") for n in range(40)]
    writer, results = lm.FunctionLM(Fields(new_instruction="Say it again.")), []
    pg.compile(model, rows, pg.metrics.exact_match, lm=writer, seed=3, report=results.append)
    assert results[0].outcome == "no candidate"
    assert re.search(r"candidates on validation examples: [1-9]\d*, all fell behind", results[0].reason)


def test_another_optimizer(world, data):
    results = []
    pg.compile(
        program(world),
        data[0],
        world.metric,
        valset=data[1],
        optimizer=lambda params: optim.GEPA(params, steps=10, minibatch_size=4),
        budget=pg.Budget(calls=1000),
        seed=5,
        report=results.append,
    )
    assert "step" in results[0].candidate.origin


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"budget": "huge"}, ValueError, "'light', 'medium', 'heavy', or a promptgrad.Budget, not 'huge'"),
        ({"budget": 300}, TypeError, "budget is a promptgrad.Budget, or one of"),
        ({"lm": "openai/x", "optimizer": optim.GEPA}, ValueError, "lm= is for the default optimizer"),
    ],
)
def test_slips(world, data, options, error, message):
    with pytest.raises(error, match=message):
        pg.compile(program(world), data[0], world.metric, valset=data[1], **options)


def test_it_takes_a_module(world, data):
    with pytest.raises(TypeError, match=r"compile improves a promptgrad.nn.Module, not str"):
        pg.compile("a prompt", data[0], world.metric)
