"""Arguments of DSPy, gepa and TextGrad, written out of habit, get an error that names what to write here."""

import asyncio
import re

import pytest

import promptgrad as pg
from promptgrad import nn, optim
from promptgrad.data import DataLoader


@pytest.mark.parametrize(
    ("make", "argument", "hint"),
    [
        (optim.TGD, "engine", "lm="),
        (optim.TGD, "gradient_memory", "nothing: Trainer.fit shows the writer every run"),
        (optim.TGD, "momentum", "critiques add up until zero_grad()"),
        (optim.TGD, "optimizer_system_prompt", "optimizer.proposer.instruction.data"),
        (optim.TGD, "lr", "max_edit="),
        (optim.TGD, "verbose", "print(report)"),
        (optim.BootstrapFewShot, "metric", "Trainer(model, BootstrapFewShot(...), metric=...)"),
        (optim.BootstrapFewShot, "teacher_settings", "teacher="),
        (optim.BootstrapFewShot, "max_errors", "nothing: "),
        (optim.MIPRO, "metric", "Trainer(model, MIPRO(...), metric=...)"),
        (optim.MIPRO, "task_model", "model.to(lm)"),
        (optim.MIPRO, "prompt_lm", "lm=..."),
        (optim.MIPRO, "prompt_model", "lm=..."),
        (optim.MIPRO, "minibatch_full_eval_steps", "full_eval_every="),
        (optim.GEPA, "component_selector", 'components="blamed", "round_robin" or "all"'),
        (optim.GEPA, "auto", "Budget(calls=...)"),
        (optim.RandomSearch, "metric", "Trainer(model, RandomSearch(...), metric=...)"),
    ],
)
def test_a_habit_gets_a_hint(make, argument, hint):
    wanted = f"^{make.__name__} has no argument '{argument}': write .*{re.escape(hint)}"
    with pytest.raises(TypeError, match=wanted):
        make([pg.Parameter("x")], **{argument: 1})


@pytest.mark.parametrize("make", [optim.TGD, optim.BootstrapFewShot, optim.MIPRO, optim.GEPA, optim.RandomSearch])
def test_another_argument_is_unknown(make):
    with pytest.raises(TypeError, match=f"^{make.__name__} has no argument 'qqq'$"):
        make([pg.Parameter("x")], qqq=1)


def test_a_misspelt_argument_gets_the_near_name():
    with pytest.raises(TypeError, match=r"^TGD has no argument 'stepps': did you mean 'steps'\?$"):
        optim.TGD([pg.Parameter("x")], stepps=1)


@pytest.mark.parametrize(
    "make",
    [optim.TGD, optim.BootstrapFewShot, optim.MIPRO, optim.GEPA, optim.RandomSearch, optim.Auto, optim.KNNFewShot,
     optim.LabeledFewShot, optim.BootstrapFinetune, optim.GRPO, optim.Ensemble, optim.BetterTogether],
)  # fmt: skip
@pytest.mark.parametrize("argument", ["metric", "trainset"])
def test_the_first_line_of_dspy_is_answered(make, argument):
    hint = rf"^{make.__name__} has no argument '{argument}': write .*Trainer\(model, {make.__name__}\(...\), metric="
    with pytest.raises(TypeError, match=hint):
        make(**{argument: 1})


@pytest.mark.parametrize(
    ("make", "argument", "hint"),
    [
        (optim.GEPA, "lr", "max_edit=... of TGD"),
        (optim.TGD, "weight_decay", "length_price="),
        (optim.MIPRO, "betas", "nothing: it belongs to steps along numbers"),
        (optim.Auto, "auto", "Budget(calls=...)"),
        (optim.LabeledFewShot, "sample", "by its seed"),
        (optim.KNNFewShot, "embedder", "vectorizer="),
        (optim.Ensemble, "reduce_fn", "reduce="),
        (optim.BootstrapFinetune, "train_kwargs", "lora=, steps=, epochs=, lr="),
        (optim.GRPO, "num_train_steps", "steps=..."),
        (optim.BetterTogether, "prompt_optimizer", "p=optim.MIPRO(...)"),
    ],
)
def test_more_habits_get_hints(make, argument, hint):
    with pytest.raises(TypeError, match=f"^{make.__name__} has no argument '{argument}': write .*{re.escape(hint)}"):
        make(**{argument: 1})


def test_parameters_are_no_strategy():
    with pytest.raises(TypeError, match="BetterTogether takes a strategy first"):
        optim.BetterTogether([pg.Parameter("x")])


PREDICT = nn.Predict("question -> answer")


def trainer():
    return pg.Trainer(PREDICT, optim.TGD(PREDICT.parameters()), metric=pg.metrics.exact_match)


@pytest.mark.parametrize(
    ("call", "argument", "hint"),
    [
        (lambda **k: pg.Trainer(PREDICT, optim.TGD(PREDICT.parameters()), metric=len, **k), "patience",
         "callbacks=[train.EarlyStopping(patience)]"),
        (lambda **k: pg.Trainer(PREDICT, optim.TGD(PREDICT.parameters()), metric=len, **k), "max_epochs", "steps=..."),
        (pg.Trainer, "num_threads", "concurrency="),
        (pg.Trainer, "trainset", "Trainer.fit(trainset, valset, testset)"),
        (lambda **k: trainer().fit([], **k), "epochs", "steps=... of the optimizer"),
        (lambda **k: trainer().fit([], **k), "train_dataloaders", "Trainer.fit(trainset"),
        (lambda **k: pg.evaluate(PREDICT, **k), "devset", "evaluate(program, data, metric)"),
        (lambda **k: pg.evaluate(PREDICT, [], len, **k), "num_threads", "concurrency="),
        (lambda **k: pg.compile(PREDICT, [], len, **k), "auto", 'budget="light"'),
        (lambda **k: DataLoader([1], **k), "num_workers", "concurrency="),
        (lambda **k: DataLoader([1], **k), "generator", "seed="),
        (lambda **k: PREDICT.map([], **k), "num_threads", "concurrency="),
        (lambda **k: PREDICT.to(**k), "device", "its device is a language model"),
        (lambda **k: PREDICT.to("openai/m", **k), "api_base", "module.to(promptgrad.LM(name, ...))"),
        (lambda **k: PREDICT.load_state_dict(**k), "state_dict", "load_state_dict(state)"),
        (lambda **k: PREDICT.state_dict(**k), "prefix", "prefix + path"),
        (lambda **k: PREDICT.load_state_dict({}, **k), "assign", "nothing: values are set"),
        (lambda **k: nn.MetricLoss(len, **k), "reduction", "loss.item()"),
        (pg.configure, "temperature", "pg.LM(name, temperature=...)"),
        (pg.context, "rm", "forward"),
        (lambda **k: pg.save({}, "x.json", **k), "save_program", "without code"),
        (lambda **k: pg.load("x.json", **k), "weights_only", "nothing: loading never runs code"),
    ],
)  # fmt: skip
def test_habits_of_calls_get_hints(call, argument, hint):
    with pytest.raises(TypeError, match=f"has no argument '{argument}': write .*{re.escape(hint)}"):
        call(**{argument: 1})


def test_coroutines_answer_with_the_same_hints():
    with pytest.raises(TypeError, match="evaluate has no argument 'num_threads': write concurrency="):
        asyncio.run(pg.aevaluate(PREDICT, [], len, num_threads=2))
    with pytest.raises(TypeError, match="did you mean 'concurrency'"):
        asyncio.run(PREDICT.amap([], concurency=2))


@pytest.mark.parametrize("owner", [PREDICT, optim.TGD(PREDICT.parameters())])
def test_zero_grad_takes_the_argument_of_torch(owner):
    for parameter in PREDICT.parameters():
        parameter.grad = object()
    owner.zero_grad(set_to_none=True)
    assert [parameter.grad for parameter in PREDICT.parameters()] == [None, None]
    with pytest.raises(ValueError, match="no critique is zero"):
        owner.zero_grad(set_to_none=False)


def test_a_loader_takes_a_collate_fn():
    assert list(DataLoader([1, 2, 3], batch_size=2, collate_fn=sum)) == [3, 3]


def test_what_a_hint_names_is_there():
    optimizer = optim.TGD([pg.Parameter("x")])
    assert optimizer.proposer.instruction.data
    assert optimizer.proposer.demos.data == ()


@pytest.mark.parametrize(
    ("room", "name", "hint"),
    [
        (pg.data, "random_split", "promptgrad.data.split("),
        (pg.data, "Dataset", "a list of them"),
        (pg.data, "from_pandas", "promptgrad.data.from_dicts("),
    ],
)
def test_names_of_others_get_hints(room, name, hint):
    with pytest.raises(AttributeError, match=f"has no attribute '{name}': write .*{re.escape(hint)}"):
        getattr(room, name)
