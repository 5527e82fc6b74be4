"""Auto in the trainer: it learns texts of several steps and demos, spends its budget, and is the same again."""

import random
import re
from types import SimpleNamespace

import pytest

import promptgrad as pg
from promptgrad import lm, nn, optim, run
from promptgrad.data import Example
from promptgrad.optim._auto import Course
from promptgrad.search import Candidate, Measured
from promptgrad.testing import Fields


def program(world, answer=None):
    return world.Program().to(lm.FunctionLM(answer or world.answer, name="simulated"))


def fit(world, model=None, optimizer=None, run_dir=None, data=None, **options):
    model = model or program(world)
    optimizer = optimizer or optim.Auto(model.parameters(), steps=8)
    trainer = pg.Trainer(model, optimizer, metric=world.metric, seed=5, run_dir=run_dir, **options)
    return trainer.fit(*(data or (world.examples(24), world.examples(40, seed=1))))


def events(path, kind):
    return [event for event in run.Journal(path / "journal.jsonl", readonly=True).events() if event["kind"] == kind]


class TestInTheTrainer:
    def test_it_improves_a_program_of_two_steps(self, world, tmp_path):
        result = fit(world, run_dir=tmp_path / "run")
        assert result.shipped
        assert result.after.mean > result.before.mean + 0.5
        first = events(tmp_path / "run", "arms")[0]
        assert first["pulled"][0] == "texts to blame"
        assert set(first["rates"]) == {"texts to blame", "demos", "merge"}

    def test_where_the_run_has_a_critic_it_divides_the_blame(self, world, tmp_path):
        result = fit(world, critic=lm.FunctionLM(world.answer, name="critic"), run_dir=tmp_path / "run")
        assert result.shipped
        first = events(tmp_path / "run", "arms")[0]
        assert first["pulled"][0] == "all texts"
        assert set(first["rates"]) == {"all texts", "pick.instruction", "spell.instruction", "demos", "merge"}

    def test_from_the_start_demos_are_tried_on_new_texts_and_without(self, world, tmp_path):
        model, rows = world.single()
        model.to(lm.FunctionLM(world.answer, name="simulated"))
        fit(
            world, model, optim.Auto(model.parameters(), steps=1), run_dir=tmp_path / "run", data=(rows[:20], rows[20:])
        )
        made = {event["origin"]: event["values"] for event in events(tmp_path / "run", "candidate")}
        assert set(made["step 0, 8 demos"]) == {"instruction", "demos"}
        assert set(made["step 0, 4 demos"]) == {"demos"}

    @pytest.mark.parametrize(("calls", "asked"), [(600, [3, 3, 6, 12]), (200, [2])])
    def test_a_writer_is_asked_again_while_its_texts_gain_nothing_if_the_budget_is_large(self, tmp_path, calls, asked):
        replies = {
            "answer": "?",
            "analysis": "",
            "new_instruction": lambda inputs: f"Do it like {inputs['tip'] or 'so'}",
        }
        model = nn.Predict("word -> answer", instruction="Do it.").to(lm.FunctionLM(Fields(**replies), name="idle"))
        rows = [Example(word=f"w{n}", answer=f"v{n}").with_inputs("word") for n in range(60)]
        optimizer = optim.Auto(model.parameters(), steps=1, demos=())
        options = {"metric": pg.metrics.exact_match, "seed": 5, "budget": run.Budget(calls=calls), "progress": False}
        result = pg.Trainer(model, optimizer, run_dir=tmp_path / "run", **options).fit(rows[:20], rows[20:])
        made = [event["variant"] for event in events(tmp_path / "run", "proposal")]
        assert made == list(range(sum(asked)))
        assert len(events(tmp_path / "run", "sift")) == (len(asked) > 1)
        assert not result.shipped

    def test_a_budget_of_calls_ends_it_and_no_plateau(self, world):
        def cold(example, output):
            return float(len(example.text) % 3 == 0)

        model = program(world)
        options = {"metric": cold, "seed": 5, "budget": run.Budget(calls=900), "progress": False}
        trainer = pg.Trainer(model, optim.Auto(model.parameters()), **options)
        result = trainer.fit(world.examples(24), world.examples(40, seed=1))
        assert result.calls > 850

    def test_demos_alone_teach_where_no_text_is_trained(self, world):
        model, rows = world.single()
        model.to(lm.FunctionLM(world.answer, name="simulated"))
        optimizer = optim.Auto([("demos", model.demos)], demos=(2, 4))
        result = fit(world, model, optimizer, data=(rows[:20], rows[20:60]))
        assert result.shipped
        assert set(result.values) == {"demos"}

    def test_choices_are_searched_once_they_require_a_gradient(self):
        class Toned(nn.Module):
            def __init__(self):
                super().__init__()
                self.say = nn.Predict("word -> answer")
                self.tone = nn.Parameter("flat", "choice", options=("flat", "glad", "sad"))

            def forward(self, word):
                return self.say(word=f"{word} {self.tone.data}")

        model = Toned().to(lm.FunctionLM(Fields(), name="any"))
        model.tone.requires_grad_()
        rows = [Example(word=f"w{n}").with_inputs("word") for n in range(40)]
        optimizer = optim.Auto([("tone", model.tone)])
        result = pg.Trainer(
            model, optimizer, metric=lambda example, output: float(model.tone.data == "sad"), seed=1, progress=False
        ).fit(rows[:10], rows[10:])
        assert result.shipped
        assert model.tone.data == "sad"

    def test_a_budget_is_spent_and_not_exceeded(self, world):
        def cold(example, output):  # nothing helps, so that only the budget ends the search
            return float(len(example.text) % 3 == 0)

        model = program(world)
        trainer = pg.Trainer(
            model, optim.Auto(model.parameters(), patience=60), metric=cold, seed=5, budget=run.Budget(calls=300)
        )
        result = trainer.fit(world.examples(24), world.examples(40, seed=1))
        assert 150 <= result.calls <= 300
        assert not result.shipped

    def test_a_plateau_ends_it(self, world, tmp_path):
        def cold(example, output):
            return float(len(example.text) % 3 == 0)

        model = program(world)
        optimizer = optim.Auto(model.parameters(), patience=3)
        pg.Trainer(model, optimizer, metric=cold, seed=5, run_dir=tmp_path / "run").fit(
            world.examples(24), world.examples(40, seed=1)
        )
        assert events(tmp_path / "run", "stop")[0]["reason"] == "3 steps without a gain"

    def test_a_small_budget_measures_the_winner_on_all_rows(self, world):
        result = fit(world, budget=run.Budget(calls=260))
        (ended,) = [note for note in result.notes if note.endswith("too few for another step")]
        assert re.match(r"the budget leaves \d+ runs of the program after step \d+, ", ended)
        assert result.shipped
        assert result.calls <= 260


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("scores", "left", "asked"),
    [
        ([1, 0, 1, 0, 1, 1], 61, True),  # four right beside three: open
        ([1, 0, 1, 0, 1, 1], 60, False),  # the training rows would take too much of what is left
        ([0, 0, 0, 0, 0, 0], 100, False),  # plainly worse
        ([1, 1, 1, 1, 1, 1], 100, False),  # plainly better
    ],
)
async def test_training_rows_decide_what_validation_leaves_open_if_there_are_calls_for_it(scores, left, asked):
    rows = [str(number) for number in range(len(scores) * 4)]
    start, child = Candidate(), Candidate({"solve.instruction": "x"}, "child")
    known = {
        start.key: Measured(start, tuple(rows), (1.0, 0.0, 1.0, 0.0, 1.0, 0.0) * 4),
        child.key: Measured(child, tuple(rows), tuple(map(float, scores)) * 4),
    }
    seen = []

    class Watched(Course):
        def __init__(self):
            self.session = SimpleNamespace(
                incumbent=start,
                standings=SimpleNamespace(of=lambda one: known[one.key]),
                train=[None] * 10,
                runs_left=lambda: left,
                trial=lambda *details: None,
                promote=lambda measured: None,
            )

        async def observe(self, step, candidate, what, count):
            seen.append((candidate, count))

        def pooled(self, candidate):
            return known[candidate.key]

    await Watched().judge(None, [child])
    assert seen == ([(start, 10), (child, 10)] if asked else [])


@pytest.mark.asyncio
async def test_a_candidate_is_run_once_on_each_training_example_and_not_on_those_its_demos_show():
    rows = [Example(text=str(number)).with_inputs("text") for number in range(8)]
    child, ran = Candidate({"solve.instruction": "x"}, "child"), []

    class Watched(Course):
        def __init__(self):
            self.auto, self.first = SimpleNamespace(batch_size=3), 2
            self.trained, self.divides = {}, False
            self.session = SimpleNamespace(train=rows, rng=lambda *path: random.Random(0), forward=self.forward)
            self.session.unanswered = SimpleNamespace(rows=lambda key: set())

        async def forward(self, candidate, batch, scope):
            ran.append([example.id for example in batch])
            return batch

        def leaked(self, candidate):
            return {rows[0].id}

    def measured(candidate, batch):
        return Measured(candidate, tuple(example.id for example in batch), (1.0,) * len(batch))

    course, step = Watched(), SimpleNamespace(scope=str, measured=measured)
    for _ in range(4):
        await course.observe(step, child, "forward")
    assert [len(batch) for batch in ran] == [2, 3, 2], "first a few, then batches, until none is left"
    assert sorted(key for batch in ran for key in batch) == sorted(example.id for example in rows[1:])
    assert len(course.trained[child.key].ids) == 7


def test_the_gain_of_a_candidate_is_shrunken_and_that_of_one_that_was_not_measured_is_none():
    start, child, unknown = Candidate(), Candidate({"a": "b"}, "child"), Candidate({"a": "c"}, "other")
    rows = tuple(str(number) for number in range(40))
    known = {
        start.key: Measured(start, rows, (0.0,) * 40),
        child.key: Measured(child, rows, (1.0,) * 40),
    }
    course = Course.__new__(Course)
    course.session = SimpleNamespace(incumbent=start, standings=SimpleNamespace(of=lambda one: known.get(one.key)))
    assert course.gain(unknown) == course.gain(start) == 0.0
    assert 0.5 < course.gain(child) < 1.0


class TestSettings:
    def test_print(self, world):
        assert repr(optim.Auto(program(world).parameters())).startswith("Auto(4 parameters trained")

    @pytest.mark.parametrize(
        ("options", "message"),
        [({"steps": 0}, "steps"), ({"demos": (0,)}, "demos"), ({"rows": 0}, "rows"), ({"temperature": -1}, "temp")],
    )
    def test_numbers_out_of_range(self, world, options, message):
        with pytest.raises(ValueError, match=message):
            optim.Auto(program(world).parameters(), **options)

    def test_settings_are_in_json_types(self, world):
        config = optim.Auto(program(world).parameters(), lm="openai/writer", demos=(4,)).config()
        assert config["lm"] == "openai/writer"
        assert config["demos"] == [4]
