"""A report names what made rows fail, as nobody else will: a metric that counts to 100, a program that cannot."""

import pytest

import promptgrad as pg
from promptgrad import Budget, Trainer, lm, nn, optim

pytestmark = pytest.mark.usefixtures("overlap_is_known")


def fit(world, metric, model=None, ship=0.9):
    model = (model or world.Program)().to(lm.FunctionLM(world.answer, name="simulated"))
    optimizer = optim.TGD(model.parameters())
    run = Trainer(model, optimizer, metric=metric, seed=5, budget=Budget(calls=200), ship=ship)
    return run.fit(world.examples(12), world.examples(20, seed=1))


def test_a_metric_that_counts_to_100(world):
    def percent(example, output):
        return 100 if example.text[0] < "m" else 0

    result = fit(world, percent)
    note, of_training = (note for note in result.notes if note.startswith("the start failed on"))
    assert "training examples: MetricError" in of_training
    failed = sum(example.text[0] < "m" for example in world.examples(20, seed=1))
    assert 0 < failed < 20
    assert f"failed on {failed} of 20 validation examples: MetricError" in note
    assert "100 lies outside [0, 1]; scale it, or give the metric function an attribute `best`" in note
    assert note in str(result)


def test_a_program_that_cannot_read_some_rows(world):
    class Picky(world.Program):
        def forward(self, text):
            if text[0] < "m":
                raise KeyError(f"no word\nfor {text}")
            return super().forward(text)

    note, _ = (note for note in fit(world, world.metric, Picky).notes if note.startswith("the start failed on"))
    assert "KeyError: " in note
    assert "\n" not in note


def test_nothing_is_said_where_nothing_failed(world):
    assert not [note for note in fit(world, world.metric).notes if "failed on" in note]


def test_a_budget_that_is_too_small_says_what_to_do(world):
    asked = []
    model = world.Program().to(lm.FunctionLM(lambda messages: asked.append(messages), name="simulated"))
    run = Trainer(model, optim.TGD(model.parameters()), metric=world.metric, budget=Budget(calls=20))
    with pytest.raises(pg.errors.BudgetExceeded, match=r"give a larger budget .* or fewer validation examples"):
        run.fit(world.examples(12), world.examples(20, seed=1))
    assert not asked  # it is known before anything is sent


def test_bootstrapping_runs_what_a_small_budget_pays_for():
    words = [f"w{number} x{number}" for number in range(30)]
    examples = [pg.Example(text=text, word=text.split()[number % 2]) for number, text in enumerate(words)]
    examples = [example.with_inputs("text") for example in examples]
    asked = []

    def first(messages):
        asked.append(messages)
        return f"[[ ## word ## ]]\n{messages[-1].text.split()[5]}\n\n[[ ## completed ## ]]"

    def fit(calls):
        asked.clear()
        model = nn.Predict("text -> word").to(lm.FunctionLM(first, name="first"))
        optimizer = optim.BootstrapFewShot(model.parameters(), max_bootstrapped_demos=6, max_labeled_demos=0)
        run = Trainer(model, optimizer, metric=pg.metrics.exact_match, budget=Budget(calls=calls), seed=0)
        result = run.fit(examples[:20], examples[20:])
        assert len(asked) == result.calls <= calls
        return result

    few = fit(26)  # 20 are kept for start and result on validation examples
    assert few.calls == 26
    assert 0 < len(few.best["demos"]) < 6
    assert len(fit(60).best["demos"]) == 6
    none = fit(20)
    assert (none.outcome, none.calls) == ("no candidate", 0)
    assert "calls: 0 of 20, 20 kept" in none.notes[-1]


@pytest.fixture
def blind(world):
    """A program that fails on every training example and on no other."""

    class Blind(world.Program):
        def forward(self, text):
            if text in seen:
                raise LookupError("no index")
            return super().forward(text)

    seen = {example.text for example in world.examples(12)}
    return Blind().to(lm.FunctionLM(world.answer, name="simulated"))


def test_training_examples_that_no_run_can_use(world, blind):
    run = Trainer(blind, optim.TGD(blind.parameters(), steps=3), metric=world.metric, seed=5)
    result = run.fit(world.examples(12), world.examples(20, seed=1))
    assert result.notes[0] == "the start failed on 12 of 12 training examples: LookupError: no index"


@pytest.mark.parametrize(
    ("count", "note"), [(1, "1 example can hardly show any gain"), (10, "10 examples show gains of about 43% and more")]
)
def test_what_few_examples_can_show(world, count, note):
    model = world.Program().to(lm.FunctionLM(world.answer, name="simulated"))
    run = Trainer(model, optim.TGD(model.parameters()), metric=world.metric, seed=5)
    result = run.fit(world.examples(12), world.examples(count, seed=1))
    assert [told for told in result.notes if told.startswith(note)]


def test_compile_warns_of_them(world, blind):
    with pytest.warns(
        UserWarning, match=r"the program is as it was: .*; the start failed on 12 of 12 training examples"
    ):
        pg.compile(blind, world.examples(12), world.metric, valset=world.examples(20, seed=1), budget=Budget(calls=200))


def test_a_teacher_that_fails(world):
    class Lost(nn.Module):
        def forward(self, text):
            raise LookupError("no index")

    rows = [pg.Example(text=f"w{n} x{n}", word=f"x{n}").with_inputs("text") for n in range(20)]
    model = nn.Predict("text -> word").to(lm.FunctionLM(lambda messages: "x", name="x"))
    optimizer = optim.BootstrapFewShot(model.parameters(), teacher=Lost())
    result = Trainer(model, optimizer, metric=pg.metrics.exact_match, seed=5).fit(rows[:10], rows[10:])
    assert "the teacher failed on 10 of 10 training examples: LookupError: no index" in result.notes
