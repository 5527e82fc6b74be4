"""A number that is given as something else is an error that names the argument, at once and everywhere."""

import contextlib

import pytest

import promptgrad as pg
from promptgrad import data, finetune, lm, nn, optim

ECHO = lm.FunctionLM(lambda messages: "x", name="x")
ROWS = [pg.Example(q="a", a="x").with_inputs("q")]


@pytest.fixture
def model():
    return nn.Predict("q -> a").to(ECHO)


def evaluated(model, value):
    return pg.evaluate(model, ROWS, pg.metrics.exact_match, concurrency=value, progress=False)


def trainer(name):
    def make(model, value):
        optimizer = optim.TGD(model.parameters())
        return pg.Trainer(model, optimizer, metric=pg.metrics.exact_match, **{name: value})

    return make


def tuning(way, name):
    """The program has no weights, which is seen after its arguments are."""

    def tune(model, value):
        with contextlib.suppress(pg.errors.NoLMError):
            getattr(finetune, way)(model, ROWS, metric=pg.metrics.exact_match, **{name: value})

    return tune


PLACES = {
    "evaluate, concurrency": evaluated,
    "map, n": lambda model, value: model.map(ROWS, n=value),
    "map, concurrency": lambda model, value: model.map(ROWS, concurrency=value),
    "Parallel, concurrency": lambda model, value: nn.Parallel(model, concurrency=value),
    "Predict, retries": lambda model, value: nn.Predict("q -> a", retries=value),
    "MetricLoss, group": lambda model, value: nn.Critic(group=value),
    "HTTP, concurrency": lambda model, value: lm.HTTP("m", base_url="http://127.0.0.1:1", concurrency=value),
    "Limit, concurrency": lambda model, value: lm.Limit(ECHO, value),
    "Retry, attempts": lambda model, value: lm.Retry(ECHO, attempts=value),
    "Retry, turns": lambda model, value: lm.Retry(ECHO, turns=value),
    "Cache, max_entries": lambda model, value: lm.Cache(ECHO, max_entries=value),
    "BootstrapFewShot, max_rounds": lambda model, value: optim.BootstrapFewShot(model.parameters(), max_rounds=value),
    **{f"Trainer, {name}": trainer(name) for name in ("concurrency", "group", "finalists", "synthesize", "seed")},
    **{
        f"sft, {name}": tuning("sft", name)
        for name in ("steps", "batch_size", "max_length", "checkpoint_every", "micro_batch_tokens", "seed")
    },
    "dpo, n": tuning("dpo", "n"),
    **{f"grpo, {name}": tuning("grpo", name) for name in ("inner", "batch_size")},
    "DataLoader, seed": lambda model, value: data.DataLoader(ROWS, seed=value),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", ["3", 2.5, True])
def test_what_is_no_whole_number(model, place, value):
    name = place.split(", ")[1]
    with pytest.raises(TypeError, match=rf"^{name} is .*, not {value!r}$"):
        PLACES[place](model, value)


@pytest.mark.parametrize("place", [place for place in PLACES if "seed" not in place])
def test_what_is_too_small(model, place):
    name = place.split(", ")[1]
    with pytest.raises(ValueError, match=rf"^{name} is .*at least [01], not -1$"):
        PLACES[place](model, -1)


def test_numbers_of_numpy_serve(model):
    numpy = pytest.importorskip("numpy")
    for place, make in PLACES.items():
        make(model, numpy.int64(2)), place
    assert type(data.DataLoader(ROWS, seed=numpy.int64(2)).seed) is int


@pytest.mark.parametrize("after", ["1", None])
def test_seconds_of_a_hedge(after):
    quantile = "0.9" if after is None else None
    with pytest.raises(ValueError, match=r"^(after|quantile) is .*, not '"):
        lm.Hedge(ECHO, after, quantile=quantile)


def test_a_share_to_confirm_on(model):
    with pytest.raises(TypeError, match="confirm is a share or a number of validation examples, not '3'"):
        pg.Trainer(model, optim.TGD(model.parameters()), metric=pg.metrics.exact_match, ship="significant", confirm="3")
