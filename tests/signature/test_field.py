"""One field: validation, JSON, constraints, and that it is a frozen value."""

from __future__ import annotations

import copy
import enum
import pickle
from typing import Any, Literal

import pydantic
import pytest

from promptgrad.errors import InputError, ParseError, SignatureError
from promptgrad.signature import Field, Input, Output


class Person(pydantic.BaseModel):
    name: str
    age: int = pydantic.Field(ge=0)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Text(str):
    """As the graph's text: its identity matters."""


def test_a_text_stays_the_object_it_is() -> None:
    text = Text("hi")
    assert Field("a").validate(text) is text
    assert Field("a", constraints={"max_length": 5}).validate(text) is text


@pytest.mark.parametrize(
    ("annotation", "value", "wanted"),
    [
        (int, "3", 3),
        (float, 1, 1.0),
        (bool, "yes", True),
        (list[int], ("1", 2), [1, 2]),
        (Person, {"name": "Ann", "age": "3"}, Person(name="Ann", age=3)),
        (Color, "red", Color.RED),
        (Literal["a", 1], "a", "a"),
        (int | None, None, None),
    ],
)
def test_validate_converts_where_nothing_is_lost(annotation: Any, value: Any, wanted: Any) -> None:
    assert Field("a", annotation).validate(value) == wanted


def test_a_misfit_is_an_input_error_or_a_parse_error() -> None:
    with pytest.raises(InputError, match=r"input 'n' \(int\): does not fit: .*valid integer.*; got 'x'"):
        Field("n", int).validate("x")
    with pytest.raises(InputError, match="must be str, not int; got 5"):
        Field("n").validate(5)
    with pytest.raises(ParseError) as caught:
        Field("p", Person, role="output").validate({"name": "Ann", "age": -1})
    assert "at age: Input should be greater than or equal to 0" in caught.value.reason
    assert caught.value.reason.startswith("`p` does not fit")


def test_json_round_trip() -> None:
    for annotation, value in [
        (Person, Person(name="Ann\n", age=3)),
        (Color, Color.BLUE),
        (dict[int, list[str]], {1: ["a\n[["]}),
        (bytes, b"\x00\xff"),
        (float, float("inf")),
        (tuple[int, str], (1, "x")),
        (set[int], {1, 2}),
        (Any, {"a": [None, 1.5]}),
    ]:
        field = Field("a", annotation)
        text = field.dump_json(value)
        assert "\n" not in text
        assert field.validate_json(text) == value
    with pytest.raises(InputError, match="cannot be written as JSON"):
        Field("a", Any).dump_json(object())


def test_json_schema() -> None:
    assert Field("a").json_schema() == {"type": "string"}
    assert Field("a", description="d").json_schema() == {"type": "string", "description": "d"}
    assert Field("a", int, constraints={"ge": 1}).json_schema() == {"type": "integer", "minimum": 1}
    assert Field("a", Literal["x", "y"]).json_schema()["enum"] == ["x", "y"]


def test_constraints_are_checked_early_and_late() -> None:
    field = Field("a", float, role="output", constraints={"ge": 0, "le": 1})
    assert field.validate(0.5) == 0.5
    with pytest.raises(ParseError, match="less than or equal to 1"):
        field.validate(2)
    with pytest.raises(SignatureError, match="'ge' has no meaning for str"):
        Field("a", str, constraints={"ge": 0})
    with pytest.raises(SignatureError, match="'pattern' has no meaning for int"):
        Field("a", int, constraints={"pattern": "a"})
    with pytest.raises(SignatureError, match=r"unknown constraint 'maximum'"):
        Field("a", str, constraints={"maximum": 0})
    with pytest.raises(SignatureError, match="did you mean 'max_length'"):
        Output(max_lenght=3)
    with pytest.raises(SignatureError, match="a field has no default"):
        Input(default="x")


def test_is_text() -> None:
    assert Field("a").is_text
    assert Field("a", str, constraints={"max_length": 3}).is_text
    assert not Field("a", str | None).is_text
    assert Field("a").is_plain
    assert not Field("a", str, constraints={"max_length": 3}).is_plain


def test_a_field_is_a_frozen_value() -> None:
    field = Field("a", list[int], "numbers", "output", {"min_length": 1})
    assert field == Field("a", list[int], "numbers", "output", {"min_length": 1})
    assert hash(field) == hash(field.replace())
    assert field != field.replace(description="")
    assert pickle.loads(pickle.dumps(field)) == field
    assert copy.deepcopy(field) is field
    assert repr(field) == "Field('a', list[int], role='output', description='numbers', min_length=1)"
    with pytest.raises(AttributeError, match=r"frozen; use field\.replace"):
        field.name = "b"
    with pytest.raises(SignatureError, match="is not a Python identifier"):
        Field("a b")


class Crowd(pydantic.BaseModel):
    tags: set[str]
    by_name: dict[str, frozenset[str]] = {}


WORDS = ("delta", "alpha", "Éclair", "charlie", "bravo")


@pytest.mark.parametrize(
    ("annotation", "value", "wanted"),
    [
        (set[str], {*WORDS}, '["alpha","bravo","charlie","delta","Éclair"]'),
        (frozenset[int], frozenset({3, 1, 2}), "[1,2,3]"),
        (set[bytes], {b"\xff", b"a"}, '["YQ==","_w=="]'),
        (dict[str, list[set[str]]], {"b": [{"y", "x"}], "a": []}, '{"b":[["x","y"]],"a":[]}'),
        (set[frozenset[str]], {frozenset({"b", "a"}), frozenset({"0"})}, '[["0"],["a","b"]]'),
        (tuple[set[str], int], ({"b", "a"}, 1), '[["a","b"],1]'),
        (Crowd, Crowd(tags={"b", "a"}, by_name={"x": {"d", "c"}}), '{"tags":["a","b"],"by_name":{"x":["c","d"]}}'),
        (list[Crowd], [Crowd(tags={"b", "a"})], '[{"tags":["a","b"],"by_name":{}}]'),
        (Any, {"items": {"b", "a"}}, '{"items":["a","b"]}'),
    ],
)
def test_sets_are_written_in_one_order(annotation: Any, value: Any, wanted: str) -> None:
    field = Field("a", annotation)
    assert field.dump_json(value) == wanted
    if annotation is not Any:
        assert field.validate_json(wanted) == value


@pytest.mark.parametrize(
    "other",
    [
        Field("a", int, "how many", "output", {"ge": 2}),
        Field("a", int, "how many", "output"),
        Field("a", int, "how much", "output", {"ge": 1}),
        Field("a", float, "how many", "output", {"ge": 1}),
        Field("a", int, "how many", "input", {"ge": 1}),
        Field("b", int, "how many", "output", {"ge": 1}),
    ],
)
def test_fields_that_differ_in_anything_are_not_equal(other):
    assert Field("a", int, "how many", "output", {"ge": 1}) != other


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (list[str], ["\ud83d", "a é \ud83d"]),
        (dict[str, Any], {"a": ["\ud83d"], "b": 1.5}),
        (Person, Person.model_construct(name="\udc00", age=3)),
        (set[str], {"\ud83d", "a"}),
        (dict[str, Any], {"\ud83d": {"\ufffd": "\ud83d"}, "a": [{"\udc00": 1}]}),
        (dict[str, str], {"\ufffd": "b"}),
    ],
)
def test_half_of_a_character_is_written_and_read_back(annotation: Any, value: Any) -> None:
    """What a server makes of an emoji that it cuts: a reply may hold it, and so may what is made of the reply."""
    field = Field("a", annotation)
    text = field.dump_json(value)
    assert text == text.encode().decode()
    assert field.validate_json(text) == value
    assert "é" not in repr(value) or "é" in text


class Sign(enum.Enum):
    ODD = "a\ufffd"
    TWO = 2


def test_keys_that_are_no_texts_are_written_as_their_values_beside_half_a_character() -> None:
    field = Field("a", dict[Sign, str])
    value = {Sign.ODD: "\ud83d", Sign.TWO: "b"}
    assert field.dump_json(value) == '{"a\ufffd":"\\ud83d","2":"b"}'
