"""`Layer`: what layers in a row say of the LM below."""

from promptgrad.lm import Cache, FunctionLM, Layer, Limit, Retry, layered
from tests.counting import steps


def stack(lm):
    return Cache(Retry(Limit(lm, 4)))


class Named(Layer):
    """A layer that says by itself who it is."""

    name = "named"
    adapter = "json"

    def identity(self):
        return f"named {self.lm.identity()}"

    def traces(self):
        return True


def told(lm):
    return lm.name, lm.adapter, lm.identity(), lm.traces()


def test_layers_are_known_as_what_they_wrap():
    model = FunctionLM(lambda messages: "x", name="model", adapter="xml")
    assert told(stack(model)) == told(model) == ("model", "xml", "model", False)
    assert told(stack(Named(stack(model)))) == ("named", "json", "named model", True)


def test_the_same_layers_around_another_lm_are_known_as_that():
    model, other = (FunctionLM(lambda messages: "x", name=name) for name in ("model", "other"))
    assert told(layered(stack(model), {id(model): other})) == told(other)
    assert told(layered(stack(Named(model)), {id(model): other})) == ("named", "json", "named other", True)


def test_layers_do_not_ask_one_another():
    model = FunctionLM(lambda messages: "x", name="model")
    few, many = Cache(model), Cache(Retry(Retry(Retry(Retry(model)))))
    assert steps(lambda: told(many)) == steps(lambda: told(few))
