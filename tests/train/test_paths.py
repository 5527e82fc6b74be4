"""What a parameter is called comes from the program that is trained, and from nothing that went on before."""

import pytest

import promptgrad as pg
from promptgrad import Budget, Trainer, func, lm, nn, optim

OPTIMIZERS = {
    "LabeledFewShot": lambda model: optim.LabeledFewShot(model.parameters(), k=4),
    "BootstrapFewShot": lambda model: optim.BootstrapFewShot(model.parameters(), max_bootstrapped_demos=2),
    "MIPRO": lambda model: optim.MIPRO(
        model.parameters(), num_candidates=0, num_demo_sets=2, num_trials=4, minibatch_size=12
    ),
    "TGD": lambda model: optim.TGD(model.parameters(), steps=2, batch_size=6, proposals=1),
}


class Outer(nn.Module):
    """A program whose second step can be trained alone."""

    def __init__(self, inner=None):
        super().__init__()
        self.pick = nn.Predict("text -> word", instruction="Take the last word.")
        self.inner = nn.Predict("word -> answer") if inner is None else inner

    def forward(self, text):
        return self.inner(word=self.pick(text=text).word)


def called(outer):
    outer(text="red green blue")


def unrecorded(outer):
    with pg.no_grad():
        outer(text="red green blue")


BEFORE = {
    "nothing": lambda outer: None,
    "called": called,
    "called unrecorded": unrecorded,
    "state_dict": lambda outer: outer.state_dict(),
    "prefix": lambda outer: list(outer.inner.named_parameters(prefix="x")),
    "parameters": lambda outer: list(outer.parameters()),
    "named": lambda outer: [setattr(parameter, "name", "mine") for parameter in outer.inner.parameters()],
    "stepped": lambda outer: optim.LabeledFewShot(outer.parameters()).step(),
}


@pytest.fixture
def outer(world):
    return Outer().to(lm.FunctionLM(world.answer))


def fit(world, model, name, examples, run_dir=None, teacher=None):
    trainer = Trainer(
        model,
        OPTIMIZERS[name](model),
        metric=world.metric,
        seed=3,
        budget=Budget(calls=2000),
        run_dir=run_dir,
        teacher=teacher,
    )
    return trainer.fit(examples[:36], examples[36:])


def reset(outer):
    for parameter in outer.parameters():
        parameter.data = () if parameter.kind == "demos" else "Do it."
    outer.pick.instruction.data = "Take the last word."


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("before", BEFORE)
def test_a_module_is_trained_alone_whatever_was_done_with_the_program_around_it(world, outer, name, before):
    _, examples = world.single()
    BEFORE[before](outer)
    result = fit(world, outer.inner, name, examples)
    assert result.outcome == "shipped"
    assert set(result.best) <= {"instruction", "demos"}
    assert outer.inner(word="abc").answer == "cba"


@pytest.mark.parametrize("name", ["BootstrapFewShot", "MIPRO", "TGD"])
def test_then_the_program_around_it_and_then_it_again(world, outer, name):
    _, single = world.single()
    expert = Outer().to(lm.FunctionLM(world.answer))  # whose traces have the paths of its own structure
    expert.inner.instruction.data = "Reverse the word."
    for model, examples, path, teacher in (
        (outer.inner, single, "", None),
        (outer, world.examples(72), "inner.", expert),
    ):
        for _ in range(2):
            reset(outer)
            result = fit(world, model, name, examples, teacher=teacher)
            assert result.outcome == "shipped"
            assert any(found.startswith(path) for found in result.best)
            model(**examples[0].inputs())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_programs_that_share_a_module(world, outer, name):
    _, single = world.single()
    other = nn.Sequential(outer.inner)
    for model, path in ((other, "0."), (outer.inner, ""), (nn.Sequential(nn.Sequential(outer.inner)), "0.0.")):
        reset(outer)
        result = fit(world, model, name, single)
        assert result.outcome == "shipped"
        assert set(result.best) <= {f"{path}instruction", f"{path}demos"}
        outer(text="red green blue")
        assert outer.inner(word="abc").answer == "cba"


def test_a_resumed_run_of_the_inner_module_finds_its_paths(world, outer, tmp_path):
    _, examples = world.single()
    outer.state_dict()
    first = fit(world, outer.inner, "TGD", examples, tmp_path / "run")
    other = Outer().to(lm.FunctionLM(world.answer))
    called(other)
    resumed = Trainer.resume(tmp_path / "run", other.inner, OPTIMIZERS["TGD"](other.inner), metric=world.metric)
    assert resumed.best == first.best


class TestLoopsOfYourOwn:
    def test_a_backward_calls_parameters_as_the_program_that_was_called_does(self, world, outer):
        criterion = nn.MetricLoss(world.metric, critic=lm.FunctionLM(world.answer))
        rows = world.single()[1][:3]
        outer.inner(word="abc")
        reports = []
        for model, name in ((outer.inner, "instruction"), (nn.Sequential(outer.inner), "0.instruction")):
            loss = criterion(model.map(rows), rows)
            reports.append(loss.backward(retain_graph=True))
            assert name in reports[-1].reached
            assert {critique.parameter for critiques in reports[-1].critiques.values() for critique in critiques} == {
                name
            }
            assert list(func.grad(criterion)(model.map(rows), rows)) == [name, name.replace("instruction", "demos")]
            model.zero_grad()

    def test_a_step_calls_them_as_they_were_given(self, world, outer):
        outer.state_dict()
        for params, path in (
            (outer.inner.parameters(), "demos"),
            (outer.parameters(), "inner.demos"),
            ({"params": outer.inner.parameters()}, "demos"),
            (outer.inner.named_parameters(prefix="x"), "x.demos"),
            ([("mine", outer.inner.demos)], "mine"),
            ([outer.inner.demos], "parameter0"),
        ):
            opt = optim.LabeledFewShot([params] if isinstance(params, dict) else params, examples=world.single()[1])
            outer.inner.demos.data = ()
            assert [change.path for change in opt.step().accepted] == [path]

    def test_the_history_knows_the_program_that_was_called(self, outer):
        outer.inner.state_dict()
        for model, paths in ((outer, ["pick", "inner"]), (outer.inner, [""])):
            inputs = {"text": "a b"} if model is outer else {"word": "a"}
            model(**inputs)
            assert [call.module for call in pg.inspect_history(len(paths))] == paths
            with pg.no_grad():
                model(**inputs)
            assert [call.module for call in pg.inspect_history(len(paths))] == paths
            with pg.inference_mode():
                model.map([inputs])
            assert [call.module for call in pg.inspect_history(len(paths))] == paths
