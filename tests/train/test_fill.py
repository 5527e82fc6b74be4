"""`Trainer(synthesize=n)`: a language model writes the training data that lacks, and nothing else."""

import json
import random

import pytest

import promptgrad as pg
from promptgrad import Trainer, lm, nn, optim
from promptgrad.errors import DataError
from promptgrad.testing import Fields
from promptgrad.train._fill import signature_of

WORDS = [
    "loan",
    "house",
    "river",
    "stone",
    "paper",
    "winter",
    "yellow",
    "dance",
    "bridge",
    "candle",
    "forest",
    "engine",
    "marble",
    "pocket",
    "silver",
]


def text(number):
    return " ".join(random.Random(number).choices(WORDS, k=9))


def rows(count, first=0):
    return [pg.Example(text=text(n), last=text(n).split()[-1]).with_inputs("text") for n in range(first, first + count)]


class World:
    """A model that answers with the last word once it is shown demos, and writes examples on request."""

    def __init__(self):
        self.written = 0

    def examples(self, inputs):
        made = []
        for _ in range(int(inputs["count"])):
            self.written += 1
            made.append({"text": text(1000 + self.written), "last": text(1000 + self.written).split()[-1]})
        return json.dumps(made)

    def __call__(self, messages):
        shown = any(message["role"] == "assistant" for message in messages)
        return Fields(
            last=lambda inputs: inputs["text"].split()[-1] if shown else "?",
            aspects='["loans"]',
            new_examples=self.examples,
        )(messages)


def fit(world, train, val, test=None, **options):
    model = nn.Predict("text -> last").to(lm.FunctionLM(world, name="world"))
    trainer = Trainer(model, optim.LabeledFewShot(model.parameters(), k=4), metric=pg.metrics.exact_match, **options)
    return model, trainer.fit(train, val, test)


def test_what_lacks_is_written_and_learned_from():
    world = World()
    model, result = fit(world, rows(3), rows(30, 100), synthesize=12, seed=0)
    assert world.written >= 9
    assert "9 of 12 training examples are synthetic" in result.notes
    assert result.shipped
    assert any(nn.is_synthetic(demo) or demo.text not in {row.text for row in rows(3)} for demo in model.demos.data)


def test_the_plan_counts_what_is_written_as_a_bound():
    world, asked = World(), []

    def counted(messages):
        asked.append("situations" in str(messages[0]["content"]) or "new_examples" in str(messages[0]["content"]))
        return world(messages)

    model = nn.Predict("text -> last").to(lm.FunctionLM(counted, name="world"))

    def trainer(**options):
        return Trainer(model, optim.LabeledFewShot(model.parameters(), k=4), metric=pg.metrics.exact_match, **options)

    planned = {phase.name: phase for phase in trainer(synthesize=12).plan(rows(3), rows(30, 100)).phases}
    assert (planned["synthesize"].calls, planned["synthesize"].exact) == (1 + 3 * 2, False)
    assert planned["synthesize"].tokens_per_call > 800
    for options in ({}, {"synthesize": 3}):
        assert "synthesize" not in str(trainer(**options).plan(rows(3), rows(30, 100)))
    trainer(synthesize=12, seed=0).fit(rows(3), rows(30, 100))
    assert 1 <= sum(asked) <= planned["synthesize"].calls
    with_teacher = trainer(synthesize=12, teacher=model).plan(rows(3), rows(30, 100))
    assert {phase.name: phase.calls for phase in with_teacher.phases}["synthesize: teacher"] == 6 * 5


def test_what_is_like_the_data_that_decides_is_not_written():
    """A writer that brings validation and test examples, word for word or nearly: training data gets none of them."""

    class Copies(World):
        def examples(self, inputs):
            held = [*rows(3, 100), *rows(2, 300)]
            made = [{"text": row.text.upper() + "!", "last": row.last} for row in held]
            return json.dumps([*made, *json.loads(super().examples(inputs))])

    seen = []

    class Looks(optim.LabeledFewShot):
        async def fit(self, session):
            seen.extend(session.train)
            await super().fit(session)

    model = nn.Predict("text -> last").to(lm.FunctionLM(Copies(), name="world"))
    result = Trainer(model, Looks(model.parameters(), k=4), metric=pg.metrics.exact_match, seed=0, synthesize=12).fit(
        rows(3), rows(30, 100), rows(5, 300)
    )
    assert len(seen) == 12
    held = {row.text for row in [*rows(30, 100), *rows(5, 300)]}
    assert not any(row.text.lower().strip("!") in held for row in seen)
    assert any("is to be avoided" in note for note in result.notes)


def test_a_teacher_that_is_a_program_must_agree():
    world = World()
    teacher = nn.Predict("text -> last", instruction="Teach.").to(
        lm.FunctionLM(Fields(last=lambda i: i["text"].split()[-1] if "loan" in i["text"] else "?"), name="teacher")
    )
    _, result = fit(world, rows(3), rows(30, 100), synthesize=9, seed=0, teacher=teacher)
    (note,) = [note for note in result.notes if "synthetic" in note]
    assert "not agreed with" in note


def test_where_there_are_enough_nothing_is_written():
    world = World()
    fit(world, rows(12), rows(30, 100), synthesize=12, seed=0)
    assert world.written == 0


def test_a_run_that_is_resumed_asks_for_none_again(tmp_path):
    world = World()
    _, result = fit(world, rows(3), rows(30, 100), synthesize=12, seed=0, run_dir=tmp_path / "run")
    asked = world.written
    model = nn.Predict("text -> last").to(lm.FunctionLM(world, name="world"))
    optimizer = optim.LabeledFewShot(model.parameters(), k=4)
    again = Trainer.resume(tmp_path / "run", model, optimizer, pg.metrics.exact_match)
    assert world.written == asked
    assert (again.notes, again.shipped) == (result.notes, result.shipped)


def test_a_budget_that_does_not_pay_for_it_is_told():
    world = World()
    _, result = fit(world, rows(3), rows(30, 100), synthesize=200, seed=0, budget=pg.Budget(calls=31))
    assert any("no training examples were written" in note for note in result.notes)


def test_a_writer_whose_replies_cannot_be_read_ends_no_run():
    class Mumbles(World):
        def __call__(self, messages):
            return "I would rather not." if "situations" in str(messages[0]["content"]) else super().__call__(messages)

    _, result = fit(Mumbles(), rows(3), rows(30, 100), synthesize=12, seed=0)
    assert any("no training examples were written" in note for note in result.notes)
    assert result.after is not None


def test_synthetic_rows_neither_choose_nor_report():
    made = [pg.Example(row, synthetic={"aspect": "x"}).with_inputs("text") for row in rows(10, 50)]
    for val, test in ((made, None), (rows(30, 100), made)):
        with pytest.raises(DataError, match="examples that a language model wrote: they are for training"):
            fit(World(), rows(3), val, test)
    with pytest.raises(DataError, match="3 training examples that no language model wrote cannot be split"):
        fit(World(), [*rows(3), *made], None)
    _, result = fit(World(), [*rows(40), *made], None, seed=0)
    assert result.before is not None


def test_compile_fills_up_on_request():
    world, results = World(), []
    model = nn.Predict("text -> last").to(lm.FunctionLM(world, name="world"))
    options = {"valset": rows(30, 100), "optimizer": lambda params: optim.LabeledFewShot(params, k=4), "seed": 0}
    pg.compile(model, rows(3), pg.metrics.exact_match, synthesize=0, **options)
    assert world.written == 0
    pg.compile(model, rows(3), pg.metrics.exact_match, synthesize=12, report=results.append, **options)
    assert "9 of 12 training examples are synthetic" in results[0].notes


def test_where_rows_come_from_survives_a_file(tmp_path):
    """Saved and read again they are still refused where a run decides."""
    writer = nn.Synthesizer("text -> last", lm=lm.FunctionLM(World(), name="world"), aspects=1, difficulty="easy")
    made = writer(rows(3), n=4)
    (tmp_path / "made.jsonl").write_text("".join(json.dumps(row.to_dict()) + "\n" for row in made))
    read = pg.data.read_jsonl(tmp_path / "made.jsonl", inputs=["text"])
    assert [row.synthetic for row in read] == [row.synthetic for row in made]
    assert read[0].synthetic.keys() == {"aspect", "difficulty", "round", "lm"}
    with pytest.raises(DataError, match="examples that a language model wrote"):
        fit(World(), rows(3), read)


def test_the_signature_is_that_of_the_data_with_the_types_of_the_program():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Predict("question -> facts: list[str]", instruction="Find facts.")
            self.b = nn.Predict("facts: list[str] -> score: float", instruction="Score them.")

        def forward(self, question):
            return self.b(facts=self.a(question=question).facts)

    row = pg.Example(question="?", score=1.0, tags=["x"]).with_inputs("question")
    made = signature_of(Two(), [row])
    assert repr(made) == repr(nn.Predict("question -> score: float, tags: list[str]").signature)
    assert made.instruction == "A program with these steps:\n- Find facts.\n- Score them."
    with pytest.raises(DataError, match="labels that all of them have"):
        signature_of(Two(), [pg.Example(question="?").with_inputs("question")])
