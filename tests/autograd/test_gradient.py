import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptgrad.autograd import Critique, Gradient, Text, Trace
from promptgrad.data import Example

critiques = st.builds(
    Critique, st.text(max_size=2), st.just("solve"), st.integers(0, 3), st.just("instruction"), st.text()
)
traces = st.builds(
    Trace, st.text(max_size=2), st.just("solve"), st.integers(0, 3), st.just({}), st.just({}), st.floats(0, 1)
)
gradients = st.lists(critiques | traces, max_size=5).map(Gradient)


@given(gradients, gradients, gradients)
def test_addition_appends_and_associates(a, b, c):
    assert (a + b) + c == a + (b + c)
    assert (a + b).records == a.records + b.records
    assert a + Gradient() == Gradient() + a == a
    assert a + None == a
    assert sum([a, b, c], Gradient()) == sum([a, b, c]) == a + b + c


@given(gradients)
def test_it_is_a_sequence_of_records(gradient):
    assert len(gradient) == len(list(gradient)) == len(gradient.critiques) + len(gradient.traces)
    assert bool(gradient) == bool(gradient.records)
    json.dumps(gradient.to_dict())


def test_it_is_frozen():
    critique = Critique("e", "solve", 0, "instruction", "no")
    with pytest.raises(dataclasses.FrozenInstanceError):
        critique.text = "other"
    gradient = Gradient([critique])
    before = gradient.records
    _ = gradient + gradient
    assert gradient.records is before
    with pytest.raises(TypeError):
        hash(gradient)
    with pytest.raises(TypeError):
        gradient + 1


def test_as_dict_it_is_in_json_types():
    class Dumps:
        def model_dump(self):
            return {"k": (1, None)}

    evidence = {"inputs": {"a": Text("x"), "b": Dumps(), "c": Example(q="1"), "d": object}, "feedback": ("f",)}
    gradient = Gradient(
        [
            Critique("e", "solve", 1, "instruction", Text("no"), evidence),
            Trace("e", "solve", 0, {"q": 1}, {"a": [2.5]}, 1.0),
        ]
    )
    dumped = json.loads(json.dumps(gradient.to_dict()))
    assert dumped == gradient.to_dict()
    assert dumped["critiques"][0]["evidence"]["inputs"] == {
        "a": "x",
        "b": {"k": [1, None]},
        "c": {"q": "1"},
        "d": str(object),
    }
    assert dumped["traces"] == [
        {"example_id": "e", "path": "solve", "index": 0, "inputs": {"q": 1}, "outputs": {"a": [2.5]}, "score": 1.0}
    ]
    assert type(gradient.to_dict()["critiques"][0]["text"]) is str


def test_its_repr_counts():
    critique, trace = Critique("e", "s", 0, "i", "no"), Trace("e", "s", 0, {}, {}, 1.0)
    assert repr(Gradient([critique, critique, trace])) == "Gradient(2 critiques, 1 trace: 'no', 'no')"
    long = Gradient([Critique("e", "s", 0, "i", "name the unit, " * 9)] * 3)
    assert repr(long).startswith("Gradient(3 critiques: 'name the unit, name")
    assert repr(long).endswith("...', ...)")
    assert len(repr(long)) < 170
    assert repr(Gradient()) == "Gradient()"
