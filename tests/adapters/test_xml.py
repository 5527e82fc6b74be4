"""Replies between tags, as language models write them, and those that are asked again."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

import pydantic
import pytest

from promptgrad import nn
from promptgrad.adapters import Adapter, get_adapter
from promptgrad.errors import ParseError
from promptgrad.lm import HTTP
from promptgrad.signature import Field, Signature, make_signature
from promptgrad.testing import LoopbackLM
from tests.counting import steps

XML = get_adapter("xml")
QA = make_signature("question -> answer")
COT = make_signature("question -> reasoning, answer")


class Person(pydantic.BaseModel):
    name: str
    age: int


@pytest.mark.parametrize(
    "reply",
    [
        "<answer>Paris</answer>",
        "<answer>\nParis\n</answer>",
        "<Answer>Paris</Answer>",
        "<answer >Paris</answer >",
        "Sure! Here it is:\n<answer>Paris</answer>\nAnything else?",
        "```xml\n<answer>Paris</answer>\n```",
        "<response>\n  <answer>Paris</answer>\n</response>",
        "<answer>Paris",
        "```xml\n<answer>Paris\n```",
        "Paris</answer>",
        "<answer><![CDATA[Paris]]></answer>",
        "<question>What?</question>\n<answer>Paris</answer>",
        "<answer>Paris</answer>\n<question>Next?</question>\n<answer>Rome</answer>",
        "<answer>Paris</answer>\n<answer>Paris</answer>",
        "<answer></answer><answer>Paris</answer>",
        "<explanation>It is the capital.</explanation><answer>Paris</answer>",
        "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]",
        "**Answer:** Paris",
        '{"answer": "Paris"}',
        "Paris",
    ],
)
def test_one_text(reply: str) -> None:
    assert XML.parse(QA, reply) == {"answer": "Paris"}


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("<answer>a < b & c &lt; d</answer>", "a < b & c &lt; d"),
        ("<answer><b>bold</b></answer>", "<b>bold</b>"),
        ("<answer><\\/answer></answer>", "</answer>"),
        ("<answer>see <question> there</answer>", "see <question> there"),
    ],
)
def test_signs_mean_themselves(reply: str, answer: str) -> None:
    assert XML.parse(QA, reply) == {"answer": answer}


@pytest.mark.parametrize(
    "reply",
    [
        "<reasoning>It is the capital.</reasoning>\n\n<answer>Paris</answer>",
        "<reasoning>It is the capital.\n<answer>Paris</answer>",
        "It is the capital.</reasoning>\n<answer>Paris</answer>",
        "<answer>Paris</answer><reasoning>It is the capital.</reasoning>",
        "<think>Hm.</think><reasoning>It is the capital.</reasoning><answer>Paris</answer>",
    ],
)
def test_two_texts(reply: str) -> None:
    assert XML.parse(COT, reply) == {"reasoning": "It is the capital.", "answer": "Paris"}


def test_what_is_inside_a_field_belongs_to_it() -> None:
    reply = "<reasoning>The <answer>4</answer> of before was wrong.</reasoning><answer>5</answer>"
    assert XML.parse(COT, reply) == {"reasoning": "The <answer>4</answer> of before was wrong.", "answer": "5"}
    with pytest.raises(ParseError, match="the field `answer` is missing"):
        XML.parse(COT, "<reasoning>So <answer>4</answer>.</reasoning>")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("<answer>Paris</answer><answer>Rome</answer>", "comes twice, with different values"),
        ("<answer>Paris</answer>\nWait, that is wrong.", "may take the answer back"),
        ("<answer>Paris</answer><corrected_answer>Rome</corrected_answer>", "beside its fields stands"),
        ("For example:\n<answer>Paris</answer>", "may be an example or a draft"),
        ("<answer>" * 3_000, "too many tags"),
    ],
)
def test_two_readings_are_none(reply: str, reason: str) -> None:
    with pytest.raises(ParseError, match=reason):
        XML.parse(QA, reply)


def test_values_are_read_as_elsewhere() -> None:
    sig = make_signature("text -> people: list[Person], sure: bool", types={"Person": Person})
    reply = '<people>```json\n[{"Name": "Ann", "age": "41",}]\n```</people><sure>Yes.</sure>'
    assert XML.parse(sig, reply) == {"people": [Person(name="Ann", age=41)], "sure": True}
    with pytest.raises(ParseError, match="`sure`"):
        XML.parse(sig, "<people>[]</people><sure>perhaps</sure>")


def test_fields_that_differ_by_case() -> None:
    sig = make_signature("question -> a, A")
    form = XML.format(sig)
    assert form.read(form.assistant({"a": "1</A>", "A": "2"})) == {"a": "1</A>", "A": "2"}


HOSTILE = [
    "<",
    "</",
    "<x>",
    "</x>",
    "<x",
    "<x ",
    "<\\",
    "<x></x>",
    "<![CDATA[",
    "]]>",
    "<x>a</x",
    "<y>",
    "&lt;",
    "[[ x",
]


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("annotation", [str, Person])
def test_the_work_grows_no_faster_than_the_reply(piece: str, annotation: Any) -> None:
    sig = Signature([Field("q"), Field("x", annotation, role="output")])

    def read(reply: str) -> None:
        with contextlib.suppress(ParseError):
            XML.parse(sig, reply)

    read("warm")
    short, long = (steps(partial(read, piece * (size // len(piece)))) for size in (2_000, 8_000))
    assert long <= 5 * short + 2_000
    read(piece * (100_000 // len(piece)))


@pytest.mark.parametrize("adapter", ["xml", XML])
def test_a_call_and_asking_again(adapter: str | Adapter) -> None:
    with LoopbackLM() as server:
        server.script("<answer>Paris</answer><answer>Rome</answer>", "<answer>Rome</answer>")
        predict = nn.Predict("question -> answer", adapter=adapter, lm=HTTP("m", server.url))
        found = predict(question="a </question> b")
    assert (found.answer, found.reasks) == ("Rome", 1)
    first, second = server.requests
    assert first.json["messages"][1]["content"].startswith("<question>a <\\/question> b</question>")
    assert "comes twice" in second.json["messages"][-1]["content"]


def test_the_place_of_a_value() -> None:
    place = XML.format(COT).place("<reasoning>a</reasoning>\n<answer> Paris </answer>", "answer")
    assert place is not None
    assert (place.start, place.end, place.after) == (34, 39, " </answer>")
    assert XML.format(COT).place("Paris", "answer") is None
