import copy
import pickle

import pytest

from promptgrad import Text, nn


class Node:
    """Stands for a node of the graph: all that a prediction does with one is to tell it what was read."""

    def __init__(self):
        self.touched = []

    def touch(self, field):
        self.touched.append(field)


def test_fields_are_attributes_and_keys_in_order():
    prediction = nn.Prediction(answer="x", score=0.5)
    assert prediction.answer == prediction["answer"] == "x"
    assert list(prediction) == list(prediction.keys()) == ["answer", "score"]
    assert dict(prediction) == prediction.to_dict() == {"answer": "x", "score": 0.5}
    assert {**prediction} == {"answer": "x", "score": 0.5}
    assert list(prediction.values()) == ["x", 0.5]
    assert list(prediction.items()) == [("answer", "x"), ("score", 0.5)]
    assert prediction.get("answer") == "x"
    assert prediction.get("other", 1) == 1
    assert "answer" in prediction
    assert len(prediction) == 2
    assert "answer" in dir(prediction)


def test_equality_hash_and_repr():
    assert nn.Prediction(a="x") == nn.Prediction(a="x") == {"a": "x"}
    assert nn.Prediction(a="x") != nn.Prediction(a="y")
    assert nn.Prediction(a="x") != "x"
    assert hash(nn.Prediction(a="x")) == hash(nn.Prediction({"a": Text("x")}))
    assert repr(nn.Prediction(a="x", b=1)) == "Prediction(a='x', b=1)"
    assert repr(nn.Prediction(a="x" * 90)).startswith("Prediction(\n    a='xxx")


def test_it_does_not_change():
    prediction = nn.Prediction(a="x")
    with pytest.raises(AttributeError, match="does not change"):
        prediction.a = "y"
    with pytest.raises(AttributeError, match="does not change"):
        del prediction.a


def test_an_unknown_field_names_the_nearest():
    prediction = nn.Prediction(answer="x")
    with pytest.raises(AttributeError, match=r"no field 'anser' \(did you mean 'answer'\?\): its fields are answer"):
        _ = prediction.anser
    with pytest.raises(KeyError, match="no field 'other'"):
        _ = prediction["other"]


def test_a_field_named_like_what_is_known_of_the_call_wins():
    prediction = nn.Prediction(usage="of words")
    assert prediction.usage == "of words"
    assert prediction.reasks == 0
    assert prediction.messages == []
    assert prediction.reply == ""
    assert prediction.grad_fn is None


def test_reads_are_told_to_the_graph():
    from promptgrad.nn._prediction import fields_of, make_prediction

    node = Node()
    prediction = make_prediction({"a": 1, "b": 2, "c": 3}, node, nn.Prediction()._call)
    assert prediction == {"a": 1, "b": 2, "c": 3}
    assert "a" in repr(prediction)
    assert fields_of(prediction)["a"] == 1
    assert node.touched == []
    _ = prediction.b, prediction["a"], prediction.get("c")
    assert node.touched == ["b", "a", "c"]


def test_copies_and_pickles_leave_the_graph_behind(scripted):
    predict = nn.Predict("question -> answer").to(scripted(lambda question: {"answer": "x"}))
    prediction = predict(question="a")
    assert copy.copy(prediction) is prediction
    for twin in (copy.deepcopy(prediction), pickle.loads(pickle.dumps(prediction))):
        assert twin == prediction
        assert twin.grad_fn is None
        assert twin.answer.grad_fn is None
