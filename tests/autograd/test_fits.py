"""What fits a protocol, by its class or by itself, is what `isinstance` says."""

import pytest

import promptgrad as pg
from promptgrad import nn
from promptgrad.autograd import Sample, Selector
from promptgrad.autograd._fits import fits


class ByItself:
    """A sample whose properties are its own attributes."""

    def __init__(self):
        self.id, self.input_keys = "a", None

    def inputs(self):
        return {}

    def labels(self):
        return {}

    def to_dict(self):
        return {}


VALUES = [
    pg.Example(question="x"),
    ByItself(),
    nn.Neighbours([pg.Example(question="x", answer="y").with_inputs("question")], k=1),
    "text",
    (pg.Example(question="x"),),
    {"id": 1},
    None,
    3,
]


@pytest.mark.parametrize("protocol", [Sample, Selector], ids=lambda protocol: protocol.__name__)
@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_fits_is_isinstance(value, protocol):
    assert fits(value, protocol) is isinstance(value, protocol)


def test_some_values_fit():
    assert [[fits(value, protocol) for value in VALUES[:3]] for protocol in (Sample, Selector)] == [
        [True, True, False],
        [False, False, True],
    ]
