"""Any value of any type comes back as it was, whatever markers, blanks or line breaks it holds."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import math
import re
from typing import Any, Literal

import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptgrad import lm
from promptgrad.adapters import (
    Adapter,
    ChatAdapter,
    CompactAdapter,
    Format,
    JSONAdapter,
    XMLAdapter,
    get_adapter,
    template,
)
from promptgrad.adapters._chat import _MARKER, escape, marker, unescape
from promptgrad.adapters._compact import CompactFormat
from promptgrad.adapters._shield import guard, shield, unguard, unshield
from promptgrad.adapters._xml import XMLFormat
from promptgrad.data import Example
from promptgrad.errors import InputError
from promptgrad.lm._thinking import _SIGNS
from promptgrad.signature import Field, Signature, make_signature

PIECES = [
    *("[[ ## answer ## ]]", "[[ ## first ## ]]", "[[ ## completed ## ]]", "[[##a##]]", "[[ ##", "## ]]", "[[", "]]"),
    *(
        "\\",
        "\\[[ ## answer ## ]]",
        "\\\\",
        "␣",
        "␣ ",
        " ␣",
        " ",
        "\t",
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        "\u2028",
        "\x0b",
        "\xa0",
    ),
    *(
        "```",
        "```json\n",
        '{"answer": "x"}',
        "**answer:** x",
        "answer: x",
        "# answer",
        "<answer>x</answer>",
        "</answer>",
        "<FIRST>",
        "<\\/answer>",
        "<![CDATA[",
        "]]>",
        "<",
        "null",
        "None",
    ),
    *(
        '"',
        "'",
        "é",
        "\U0001d518",
        "x",
        "0",
        "- a",
        "1. b",
        "}",
        "]",
        "[1, 2]",
        "(In this example, leave out `answer`.)",
    ),
]
texts = st.text(max_size=12) | st.lists(st.sampled_from(PIECES), max_size=6).map("".join)
THOUGHTS = [
    *("<think>", "</think>", "<think>hm</think>", "<think/>", "[THINK]", "[/THINK]", "<reasoning>", "</reasoning>"),
    *("analysis", "assistantfinal", "```thinking\nhm\n```", "<details><summary>Thoughts</summary>", "</details>"),
    *("<|channel|>analysis<|message|>hm", "Thinking...\n", "...done thinking.", "Here is my thought process:", ".\n"),
    *("{text}", "{text; x}", "{", "}", "<|im_end|>", "</s>", "<answer>", "</answer>", "␣", "␣ ", "word ", "word\n"),
    *(sign for pair in _SIGNS.items() for sign in pair),
]
thoughts = st.lists(st.sampled_from([*THOUGHTS, *PIECES]), min_size=1, max_size=4).map("".join)
"""Texts that may be taken for thoughts, for the end of a turn or for the form of the prompt."""


class Color(enum.Enum):
    RED = "red"
    ODD = " [[ ## answer ## ]]\n"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Point(pydantic.BaseModel):
    label: str
    xy: tuple[float, float]
    more: list[Point] = []


@dataclasses.dataclass
class Pair:
    left: str
    right: int | None = None


finite = st.floats(allow_nan=False, allow_infinity=False)
points = st.builds(Point, label=texts, xy=st.tuples(finite, finite), more=st.just([]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
TYPES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (str, texts),
    (str | None, st.none() | texts),
    (int, st.integers()),
    (float, st.floats(allow_nan=False)),
    (bool, st.booleans()),
    (bytes, st.binary(max_size=8)),
    (int | None, st.none() | st.integers()),
    (int | str, st.integers() | texts),
    (int | float, st.integers(-(2**53), 2**53) | finite),
    (bool | int | None, st.none() | st.booleans() | st.integers()),
    (
        Literal["yes", "no", "Yes ", "", "[[ ## completed ## ]]"],
        st.sampled_from(["yes", "no", "Yes ", "", "[[ ## completed ## ]]"]),
    ),
    (Literal["a", 1, None], st.sampled_from(["a", 1, None])),
    (list[str], st.lists(texts, max_size=4)),
    (list[list[int]], st.lists(st.lists(st.integers(), max_size=2), max_size=2)),
    (dict[str, int], st.dictionaries(texts, st.integers(), max_size=3)),
    (dict[int, list[str]], st.dictionaries(st.integers(), st.lists(texts, max_size=2), max_size=2)),
    (dict[str, Any], st.dictionaries(texts, json_values, max_size=3)),
    (Any, json_values),
    (tuple[int, str], st.tuples(st.integers(), texts)),
    (tuple[str, ...], st.lists(texts, max_size=3).map(tuple)),
    (set[int], st.sets(st.integers(), max_size=3)),
    (frozenset[str], st.frozensets(texts, max_size=3)),
    (Color, st.sampled_from(Color)),
    (Level, st.sampled_from(Level)),
    (Point, points),
    (list[Point] | None, st.none() | st.lists(points, max_size=2)),
    (Pair, st.builds(Pair, texts, st.none() | st.integers())),
    (datetime.date, st.dates()),
    (datetime.timedelta, st.timedeltas(min_value=datetime.timedelta(0), max_value=datetime.timedelta(days=999))),
]
CASES = [pytest.param(annotation, strategy, id=Field("x", annotation).type_name) for annotation, strategy in TYPES]
ADAPTERS: dict[str, Adapter] = {
    "chat": ChatAdapter(),
    "json": JSONAdapter(),
    "xml": XMLAdapter(),
    "compact": CompactAdapter(),
}


def shown_by(form: Format, message: Any) -> dict[str, str]:
    """The exact inverse of how inputs are written: nothing is stripped or guessed."""
    if isinstance(form, XMLFormat):
        found = re.findall(r"<(given|note|question)>(.*?)</\1>(?:\n\n|\Z)", message, re.DOTALL)
        return {name: form.unescape(body) for name, body in found}
    if isinstance(form, CompactFormat):
        parts = re.split(r"^(given|note|question): ", message, flags=re.MULTILINE)
        bodies = [body if i == len(parts[2::2]) else body.removesuffix("\n") for i, body in enumerate(parts[2::2], 1)]
        return {name: form.unescape(body) for name, body in zip(parts[1::2], bodies, strict=True)}
    return sections(message)


def sections(message: str) -> dict[str, str]:
    """The same for sections."""
    parts = _MARKER.split(message)
    assert parts[0] == ""
    bodies = {}
    for i in range(1, len(parts), 2):
        body = parts[i + 1].removeprefix("\n")
        bodies[parts[i]] = unescape(body if i + 2 >= len(parts) else body.removesuffix("\n\n"))
    return bodies


def same(a: Any, b: Any) -> bool:
    return a == b and type(a) is type(b)


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize(("annotation", "strategy"), CASES)
@given(data=st.data())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_values_come_back(adapter: str, annotation: Any, strategy: st.SearchStrategy[Any], data: st.DataObject) -> None:
    sig = Signature(
        [
            Field("given", annotation),
            Field("note"),
            Field("first", annotation, role="output"),
            Field("answer", annotation, role="output"),
        ]
    )
    values = {
        "given": data.draw(strategy),
        "note": data.draw(texts),
        "first": data.draw(strategy),
        "answer": data.draw(strategy),
    }
    form = ADAPTERS[adapter].format(sig)
    read = form.read(form.assistant({"first": values["first"], "answer": values["answer"]}))
    assert list(read) == ["first", "answer"]
    assert same(read["first"], values["first"])
    assert same(read["answer"], values["answer"])
    shown = shown_by(form, form.user(values))
    assert list(shown) == ["given", "note"]
    assert shown["note"] == values["note"]
    text = shown["given"]
    field = sig.inputs["given"]
    if annotation is str:
        assert text == values["given"]
    elif isinstance(values["given"], enum.Enum) and isinstance(values["given"].value, str):
        assert text == values["given"].value
    elif field.type_name.startswith("Literal['yes'"):
        assert text == values["given"]
    else:
        assert same(field.validate_json(text), values["given"])


@pytest.mark.parametrize("adapter", ADAPTERS)
@given(cases=st.lists(st.sampled_from(TYPES), min_size=2, max_size=4), data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_values_of_unlike_types_come_back_beside_one_another(
    adapter: str, cases: list[tuple[Any, st.SearchStrategy[Any]]], data: st.DataObject
) -> None:
    names = ["first", "answer", "note", "last"][: len(cases)]
    sig = Signature(
        [Field("given"), *(Field(name, case[0], role="output") for name, case in zip(names, cases, strict=True))]
    )
    values = {name: data.draw(case[1]) for name, case in zip(names, cases, strict=True)}
    form = ADAPTERS[adapter].format(sig)
    read = form.read(form.assistant(values))
    assert list(read) == names
    assert all(map(same, read.values(), values.values()))


@pytest.mark.parametrize("adapter", ADAPTERS)
@given(answer=texts)
@settings(max_examples=100, deadline=None)
def test_a_demo_shows_a_reply_that_parses(adapter: str, answer: str) -> None:
    sig = Signature("question -> answer")
    compiled = ADAPTERS[adapter].compile(sig, None, (Example(question=answer, answer=answer),))
    _, user, assistant = compiled.prefix.messages
    assert compiled.parse(assistant.content) == {"answer": answer}
    assert shown_by(ADAPTERS[adapter].format(sig), user.content) == {"question": answer}


@pytest.mark.parametrize(
    "adapter",
    [*ADAPTERS.values(), get_adapter("tools"), template("{question} =>", reply="Why: {first}\n=> {answer}")],
    ids=lambda adapter: adapter.name,
)
@given(first=thoughts, answer=thoughts, items=st.lists(thoughts, max_size=2))
@settings(max_examples=80, deadline=None)
def test_a_text_like_a_thought_comes_back_from_a_whole_reply(
    adapter: Adapter, first: str, answer: str, items: list[str]
) -> None:
    """As a reply to the model is read: thoughts are split off it, and the end of its turn is taken off."""
    for outputs, signature in (
        ({"first": first, "answer": answer}, "question -> first, answer"),
        ({"answer": answer}, "question -> answer"),
        ({"first": items, "answer": answer}, "question -> first: list[str], answer"),
    ):
        if adapter.name == "template" and len(outputs) == 1:
            continue
        form = adapter.format(make_signature(signature))
        try:
            reply = form.assistant(outputs)
        except InputError:
            assert adapter.name == "template"  # which says so, where its own words stand in a text
            continue
        assert form.parse_whole(lm.Completion(reply)) == outputs


@given(value=texts)
@settings(max_examples=120, deadline=None)
def test_escape_and_guard_are_undone(value: str) -> None:
    assert unescape(escape(value)) == value
    assert not _MARKER.search(escape(value))
    assert unguard(guard(value)) == value
    assert unshield(shield(value)) == value
    assert guard(value).strip() == guard(value)
    assert unguard(unescape(escape(guard(value)).strip())) == value


@settings(max_examples=200, deadline=None)
@given(
    st.lists(texts, min_size=2, max_size=2),
    st.sampled_from(["", "\n", "\n\n", " x", "\n[[ ## first ## ]]\ny"]),
    st.booleans(),
)
def test_the_short_way_reads_what_the_long_one_reads(bodies: list[str], rest: str, swapped: bool) -> None:
    form = ChatAdapter().make_format(make_signature("q -> first, answer"))
    names = ["answer", "first"] if swapped else ["first", "answer"]
    reply = "".join(f"{marker(name)}\n{body}\n\n" for name, body in zip(names, bodies, strict=True))
    reply += marker("completed") + rest
    short = form._as_asked(reply)
    assert short is None or short == form._sections(reply)


def test_the_short_way_is_taken_for_a_reply_as_asked_for() -> None:
    form = ChatAdapter().make_format(make_signature("q -> first, answer"))
    reply = form.assistant({"first": "a\n\nb", "answer": " c"})
    assert form._as_asked(reply) == {"first": "a\n\nb", "answer": " c"}
    assert form._as_asked(f"Sure!\n{reply}") is None


def test_plain_values_are_written_plainly() -> None:
    assert escape("see [[1]] and\n [[ 2 ]]") == "see [[1]] and\n [[ 2 ]]"
    assert escape("a\n  [[ ## x ## ]]") == "a\n  \\[[ ## x ## ]]"
    assert guard("plain  text") == "plain  text"
    assert guard(" x") == "␣ x"
    assert guard("") == ""


def test_a_field_called_like_the_end_marker() -> None:
    sig = Signature("text -> completed: bool, answer")
    form = ADAPTERS["chat"].format(sig)
    reply = form.assistant({"completed": True, "answer": "x"})
    assert reply.endswith(marker("completed_"))
    assert form.read(reply) == {"completed": True, "answer": "x"}


def test_not_a_number_comes_back() -> None:
    form = ADAPTERS["chat"].format(Signature("a -> x: float"))
    assert math.isnan(form.read(form.assistant({"x": math.nan}))["x"])
