import copy
import enum
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptgrad.data import Example
from promptgrad.errors import DataError
from promptgrad.lm import AudioPart, ImagePart

qa = Example(question="2 + 2?", answer="4").with_inputs("question")


def test_fields_are_read_as_attributes_and_by_key():
    assert (qa.question, qa["answer"], qa.get("hint"), qa.get("hint", "none")) == ("2 + 2?", "4", None, "none")
    assert list(qa) == list(qa.keys()) == ["question", "answer"]
    assert dict(qa) == qa.to_dict() == dict(qa.items()) == {"question": "2 + 2?", "answer": "4"}
    assert list(qa.values()) == ["2 + 2?", "4"]
    assert "answer" in qa
    assert "hint" not in qa
    assert len(qa) == 2
    assert "question" in dir(qa)


def test_inputs_and_labels():
    assert qa.inputs() == {"question": "2 + 2?"}
    assert qa.labels() == {"answer": "4"}
    assert qa.input_keys == ("question",)
    assert Example(a=1).input_keys is None
    assert Example(a=1, b=2).with_inputs("b", "a", "b").input_keys == ("b", "a")
    assert Example(a=1, b=2).with_inputs(["b"]).input_keys == ("b",)
    assert Example(a=1).with_inputs().labels() == {"a": 1}


@pytest.mark.parametrize("what", ["inputs", "labels"])
def test_unmarked_inputs_are_an_error_that_shows_the_call(what):
    with pytest.raises(DataError, match=r"with_inputs\('question'\)"):
        getattr(Example(question="q", answer="a"), what)()


def test_a_copy_changes_and_the_original_does_not():
    other = qa.copy(answer="5", note="wrong")
    assert (other.answer, other.note, other.input_keys) == ("5", "wrong", ("question",))
    assert qa.to_dict() == {"question": "2 + 2?", "answer": "4"}
    assert qa.without("question", "nothing").to_dict() == {"answer": "4"}
    assert qa.without("question").input_keys == ()


def test_nothing_can_be_assigned():
    with pytest.raises(AttributeError, match=r"use example.copy\(answer=...\)"):
        qa.answer = "5"
    with pytest.raises(AttributeError, match=r"use example\.without"):
        del qa.answer


def test_wrong_names_get_the_right_one():
    with pytest.raises(AttributeError, match="did you mean 'answer'"):
        _ = qa.answr
    with pytest.raises(KeyError, match="did you mean 'question'"):
        qa["qestion"]
    with pytest.raises(DataError, match="no field 'quest'"):
        qa.with_inputs("quest")
    with pytest.raises(AttributeError, match=r"use to_dict\(\)"):
        qa.toDict()


def test_it_starts_from_a_dict_or_an_example():
    assert Example({"q": 1}, a=2) == Example(q=1, a=2)
    assert Example(qa, answer="5").input_keys == ("question",)
    assert Example({"base": 1, "self": 2}).to_dict() == Example(base=1, self=2).to_dict()
    with pytest.raises(DataError, match="one mapping, got list"):
        Example([1])
    with pytest.raises(DataError, match="must be strings"):
        Example({1: 2})


def test_it_is_no_mapping_so_torch_cannot_tear_it():
    assert not isinstance(qa, Mapping)
    torch_data = pytest.importorskip("torch.utils.data")
    with pytest.raises(TypeError):
        torch_data.default_collate([qa, qa])


def test_equality_and_hash_go_by_content():
    same = Example(answer="4", question="2 + 2?")
    assert qa == same
    assert len({qa, same, qa.copy(answer="5")}) == 2
    assert qa != qa.to_dict()
    assert Example(a=[1, {"b": (2, 3)}]) == Example(a=(1, {"b": [2, 3]}))
    assert Example(a=1) != Example(a="1")
    assert Example(a=True) != Example(a="True")
    assert Example(a=float("nan")) == Example(a=float("nan"))


class Colour(enum.Enum):
    RED = 1


@dataclass
class Point:
    x: int


class Opaque:
    pass


class Stateful:
    def __init__(self, n):
        self.n = n


def test_values_of_all_sorts_have_an_id():
    import numpy as np
    from pydantic import BaseModel

    class Person(BaseModel):
        name: str

    values = [
        Colour.RED, Point(1), Point(2), Person(name="a"), Person(name="b"), {1: 2}, {"1": 2}, {1, 2}, b"12", qa,
        np.arange(3), np.arange(3.0), Stateful(1), Stateful(2), None, "", [],
        ImagePart(b"one", "image/png"), ImagePart(b"two", "image/png"), AudioPart(b"two", "audio/wav"),
    ]  # fmt: skip
    ids = [Example(a=value).id for value in values]
    assert len(set(ids)) == len(ids)
    assert Example(a=Person(name="a")) == Example(a=Person(name="a"))
    assert Example(a=Stateful(1)) == Example(a=Stateful(1))
    with pytest.raises(DataError, match="no content to compare by"):
        _ = Example(a=Opaque()).id


def test_the_id_is_the_same_in_another_process():
    code = "from promptgrad.data import Example; print(Example(q='ä', s={'b', 'a', 'c'}, n=[1.5, None]).id)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert out == Example(n=[1.5, None], s={"c", "a", "b"}, q="ä").id


def test_a_field_named_id_is_read_by_key():
    row = Example(id="row-7", q="a")
    assert row["id"] == "row-7"
    assert row.id == Example(q="a", id="row-7").id != "row-7"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_copies_pickles_and_reordered_fields_are_equal(fields):
    example = Example(fields)
    for twin in (pickle.loads(pickle.dumps(example)), copy.deepcopy(example), copy.copy(example)):
        assert twin == example
        assert hash(twin) == hash(example)
    assert Example(dict(reversed(fields.items()))).id == example.id


def test_a_pickle_keeps_the_input_marks():
    assert pickle.loads(pickle.dumps(qa)).inputs() == qa.inputs()


def test_repr_shows_fields_and_inputs_and_cuts_long_values():
    assert repr(qa) == "Example(question='2 + 2?', answer='4').with_inputs('question')"
    assert len(repr(Example(text="x" * 10_000))) < 300
