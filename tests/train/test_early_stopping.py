"""`EarlyStopping`, `ModelCheckpoint`, and what they are made of: `stop_search` and `best_state`."""

import json

import pytest

import promptgrad as pg
from promptgrad import Trainer, lm, train
from promptgrad.errors import GraphError

pytestmark = pytest.mark.usefixtures("overlap_is_known")


@pytest.fixture
def data(world):
    return world.examples(16), world.examples(40, seed=1)


def trainer(world, model, name="tgd", **options):
    return Trainer(model, world.optimizer(name, model), metric=world.metric, **{"seed": 5, **options})


def program(world):
    return world.Program().to(lm.FunctionLM(world.answer, name="simulated"))


class StopAt(train.Callback):
    """Stops after so many trials."""

    def __init__(self, number):
        self.number = number

    def on_trial(self, trainer, trial):
        if trial["number"] == self.number:
            trainer.stop_search("enough")


def test_the_search_ends_and_the_run_goes_on(world, data):
    whole = trainer(world, program(world), "mipro").fit(*data)
    stopped = trainer(world, program(world), "mipro", callbacks=[StopAt(1)]).fit(*data)
    assert len(whole.history) > len(stopped.history) >= 2
    assert "the search was stopped: enough" in stopped.notes
    assert stopped.spent.calls < whole.spent.calls
    assert [t.score for t in stopped.history] == [t.score for t in whole.history[: len(stopped.history)]]


def test_a_resumed_run_ends_its_search_at_the_same_place(world, data, tmp_path):
    result = trainer(world, program(world), "mipro", run_dir=tmp_path / "run", callbacks=[StopAt(2)]).fit(*data)
    journal = tmp_path / "run" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    (place,) = [n for n, line in enumerate(lines) if json.loads(line.rsplit("\t")[0]).get("kind") == "stopped"]
    for cut in (place + 1, place + 3):
        journal.write_text("".join(lines[:cut]))
        model = program(world)
        again = Trainer.resume(tmp_path / "run", model, world.optimizer("mipro", model), world.metric)
        assert again.outcome == result.outcome
        assert [t.score for t in again.history] == [t.score for t in result.history]


def test_patience_is_counted_from_the_last_better_candidate(world, data):
    early = train.EarlyStopping(patience=2)
    result = trainer(world, program(world), "mipro", callbacks=[early]).fit(*data)
    assert "the search was stopped: 2 trials without a better candidate" in result.notes
    assert (len(result.history), early.waited) == (3, 2)
    for bad in (0, True, 1.5):
        with pytest.raises(ValueError, match="patience is a number of trials"):
            train.EarlyStopping(bad)


def test_the_best_candidate_is_saved_when_it_is_found(world, data, tmp_path):
    seen = []

    class Look(train.Callback):
        def on_decision(self, trainer, decision):
            if decision["kind"] == "incumbent":
                seen.append(pg.load(tmp_path / "best.json"))

    model = program(world)
    before = model.state_dict()
    saves = [train.ModelCheckpoint(tmp_path / "best.json"), Look()]
    result = trainer(world, model, "tgd", callbacks=saves).fit(*data)
    assert result.shipped
    assert seen
    assert seen[-1] == model.state_dict() != before


def test_outside_of_a_run_they_say_where_they_belong(world):
    one = trainer(world, program(world))
    for call in (lambda: one.stop_search("x"), one.best_state):
        with pytest.raises(GraphError, match="is for callbacks, while a run is going on"):
            call()
