"""Labelled lines: what is written in few tokens, and what is read."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any, Literal

import pydantic
import pytest

from promptgrad.adapters import get_adapter
from promptgrad.adapters._compact import short_type
from promptgrad.errors import ParseError
from promptgrad.signature import Field, Signature, make_signature
from tests.counting import steps

COMPACT = get_adapter("compact")
COT = make_signature("question -> reasoning, answer")


class Item(pydantic.BaseModel):
    name: str = pydantic.Field(description="as printed")
    count: int | None = None
    kind: Literal["a", "b"] = "a"
    parts: list[Item] = []


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (str, "text"),
        (int, "int"),
        (bool, "true|false"),
        (Literal["a", "b"], "one of `a`, `b`"),
        (Literal[1, "b"], '1|"b"'),
        (list[str], '["text", ...]'),
        (dict[str, int], "{text: int, ...}"),
        (tuple[int, str], '[int, "text"]'),
        (float | None, "number|null"),
        (Item, '{name: "text" (as printed), count?: int|null, kind?: "a"|"b", parts?: [Item, ...]}'),
        (Any, "JSON"),
    ],
)
def test_types_in_few_tokens(annotation: Any, words: str) -> None:
    assert short_type(Field("x", annotation, role="output")) == words


@pytest.mark.parametrize(
    "reply",
    [
        "reasoning: It is the capital.\nanswer: Paris",
        "Reasoning: It is the capital.\n\nAnswer:   Paris\n",
        "Sure:\nreasoning: It is the capital.\nanswer: Paris",
        "```\nreasoning: It is the capital.\nanswer: Paris\n```",
        "reasoning:\nIt is the capital.\nanswer:\nParis",
        "reasoning: It is the capital.\nanswer: Paris\nquestion: Next?\nanswer: Rome",
        "**Reasoning:** It is the capital.\n**Answer:** Paris",
        '{"reasoning": "It is the capital.", "answer": "Paris"}',
        "[[ ## reasoning ## ]]\nIt is the capital.\n\n[[ ## answer ## ]]\nParis",
    ],
)
def test_two_texts(reply: str) -> None:
    assert COMPACT.parse(COT, reply) == {"reasoning": "It is the capital.", "answer": "Paris"}


def test_one_reading_or_none() -> None:
    assert COMPACT.parse(make_signature("q -> answer"), "Paris") == {"answer": "Paris"}
    reply = "reasoning: The question: what?\nquestion: what?\nanswer: 4"
    assert COMPACT.parse(COT, reply) == {"reasoning": "The question: what?\nquestion: what?", "answer": "4"}
    with pytest.raises(ParseError, match="comes twice"):
        COMPACT.parse(COT, "reasoning: a\nanswer: 3\nanswer: 4")
    with pytest.raises(ParseError, match="`answer` is missing"):
        COMPACT.parse(COT, "reasoning: a")
    with pytest.raises(ParseError, match="too many labels"):
        COMPACT.parse(COT, "answer: a\n" * 3_000)


@pytest.mark.parametrize("piece", ["x:", "x: \n", "\\x:", "\n", " ", "q: a\n", "x", "\\", "\n\\\\x:"])
@pytest.mark.parametrize("annotation", [str, Item])
def test_the_work_grows_no_faster_than_the_reply(piece: str, annotation: Any) -> None:
    sig = Signature([Field("q"), Field("x", annotation, role="output")])

    def read(reply: str) -> None:
        with contextlib.suppress(ParseError):
            COMPACT.parse(sig, reply)

    read("warm")
    short, long = (steps(partial(read, piece * (size // len(piece)))) for size in (2_000, 8_000))
    assert long <= 5 * short + 2_000
    read(piece * (100_000 // len(piece)))
    shorter, longer = (steps(partial(stream, piece, size)) for size in (2_000, 8_000))
    assert longer <= 5 * shorter + 2_000


def stream(piece: str, size: int) -> None:
    feed = COMPACT.format(COT).feed()
    assert feed is not None
    for text in ("reasoning: ", *(piece * (size // len(piece)))):
        list(feed.feed(text))


def test_an_input_that_is_named_within_a_text_stays_as_it_is() -> None:
    reply = "reasoning: a\n  Question : b\nanswer: c\nquestion: d\nanswer: e"
    assert COMPACT.parse(COT, reply) == {"reasoning": "a\n  Question : b", "answer": "c"}


def test_the_place_of_a_value() -> None:
    form = COMPACT.format(make_signature("q -> why, label: Literal['a', 'b'], n: int"))
    reply = "why: so\nlabel:  b\nn: 3"
    places = [form.place(reply, name) for name in ("why", "label", "n")]
    assert [reply[place.start : place.end] for place in places if place is not None] == ["so", "b", "3"]
    assert [place.after for place in places if place is not None] == ["\nlabel:", "\nn:", ""]


def test_a_label_in_another_case_is_escaped_too():
    form = get_adapter("compact").format(Signature("question -> reasoning, answer"))
    values = {"reasoning": "So\nANSWER: no", "answer": "yes"}
    assert form.read(form.assistant(values)) == values
