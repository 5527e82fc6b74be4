"""Replies as language models really write them, and those that are refused with a reason."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal

import pydantic
import pytest

from promptgrad.adapters import Adapter, ChatAdapter, JSONAdapter
from promptgrad.errors import ParseError
from promptgrad.lm import Completion
from promptgrad.signature import Input, Output, Signature

CHAT, JSON = ChatAdapter(), JSONAdapter()
QA = Signature("question -> answer")
COT = Signature("question -> reasoning, answer")
NUMBER = Signature("question -> answer: float")
PARIS = {"answer": "Paris"}
THOUGHT = {"reasoning": "It is the capital.", "answer": "Paris"}


class Person(pydantic.BaseModel):
    name: str
    age: int


@pytest.mark.parametrize(
    "reply",
    [
        "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]",
        "[[ ## answer ## ]]\nParis",
        "[[ ## answer ## ]] Paris",
        "  [[ ## answer ## ]]  \r\n\r\nParis\r\n\r\n[[ ## completed ## ]]\r\n",
        "[[ ## Answer ## ]]\nParis\n[[ ## COMPLETED ## ]]",
        "[[## answer ##]]\nParis",
        "[[ answer ]]\nParis\n[[ completed ]]",
        "Sure! Here is what you asked for:\n\n[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]\nAnything else?",
        "```\n[[ ## answer ## ]]\nParis\n```",
        "```text\n[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]\n```",
        "**[[ ## answer ## ]]**\nParis",
        "### [[ ## answer ## ]]\nParis",
        "**Answer:** Paris",
        "**Answer**: Paris",
        "Answer: Paris",
        "## Answer\nParis",
        "**Answer**\n\nParis\n",
        "- answer: Paris",
        "<answer>Paris</answer>",
        '{"answer": "Paris"}',
        '```json\n{"Answer": "Paris",}\n```',
        "Paris",
        "\nParis\n\n[[ ## completed ## ]]",
        "[[ ## answer ## ]]\n\n[[ ## answer ## ]]\nParis",
        "**Question:** What?\n**Answer:** Paris",
        "[[ ## question ## ]]\nWhat?\n\n[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]\n\n[[ ## answer ## ]]\nRome",
        "[[ ## answer ## ]]\nParis\n\n[[ ## explanation ## ]]\nBecause.",
    ],
)
def test_one_text(reply: str) -> None:
    assert CHAT.parse(QA, reply) == PARIS


@pytest.mark.parametrize(
    "reply",
    [
        "[[ ## reasoning ## ]]\nIt is the capital.\n\n[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]",
        "It is the capital.\n\n[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]",
        "[[ ## reasoning ## ]] It is the capital. [[ ## answer ## ]] Paris [[ ## completed ## ]]",
        "Reasoning: It is the capital.\nAnswer: Paris",
        "**Reasoning:** It is the capital.\n\n**Answer:** Paris",
        "**Reasoning**\nIt is the capital.\n\n**Answer**\nParis",
        "## Reasoning\n\nIt is the capital.\n\n## Answer\n\nParis",
        "**[[ ## reasoning ## ]]**\nIt is the capital.\n\n**[[ ## answer ## ]]**\nParis",
        "<reasoning>It is the capital.</reasoning>\n<answer>\nParis\n</answer>",
        '{\n  "reasoning": "It is the capital.",\n  "answer": "Paris"\n}',
        "[[ ## answer ## ]]\nParis\n\n[[ ## reasoning ## ]]\nIt is the capital.",
    ],
)
def test_two_texts(reply: str) -> None:
    assert CHAT.parse(COT, reply) == THOUGHT
    assert list(CHAT.parse(COT, reply)) == ["reasoning", "answer"]


@pytest.mark.parametrize(
    "written",
    [
        "42",
        "42.0",
        " 42 ",
        "**42**",
        "`42`",
        "$42",
        "42.",
        "= 42",
        "The answer is 42.",
        "42 metres",
        "```json\n42\n```",
        '"42"',
    ],
)
def test_numbers(written: str) -> None:
    assert CHAT.parse(NUMBER, f"[[ ## answer ## ]]\n{written}\n\n[[ ## completed ## ]]") == {"answer": 42.0}
    assert CHAT.parse(NUMBER, written) == {"answer": 42.0}


@pytest.mark.parametrize(
    ("annotation", "written", "wanted"),
    [
        ("float", "1,234.5", 1234.5),
        ("float", "-3e2", -300.0),
        ("int", "1,234", 1234),
        ("int", "It is -7.", -7),
        ("bool", "Yes", True),
        ("bool", "**False**", False),
        ("bool", "true.", True),
        ("Literal['positive', 'negative']", "Positive.", "positive"),
        ("Literal['positive', 'negative']", '"negative"', "negative"),
        ("Literal['positive', 'negative']", "**positive**", "positive"),
        ("Literal[1, 2]", "2", 2),
        ("str | None", "Paris", "Paris"),
        ("str | None", "42", "42"),
        ("str | None", "None", None),
        ("int | None", "null", None),
        ("int | None", "None", None),
        ("list[str]", '["a", "b"]', ["a", "b"]),
        ("list[str]", '```json\n["a",\n "b"]\n```', ["a", "b"]),
        ("list[str]", "['a', 'b']", ["a", "b"]),
        ("list[str]", '["a", "b",]', ["a", "b"]),
        ("list[str]", 'Here they are: ["a", "b"]', ["a", "b"]),
        ("list[str]", "- a\n- b c", ["a", "b c"]),
        ("list[str]", "1. a\n2. b", ["a", "b"]),
        ("list[int]", "1. 10\n2. 20", [10, 20]),
        ("list[str]", "[]", []),
        ("dict[str, int]", "{'a': 1, b: 2}", {"a": 1, "b": 2}),
        ("dict[str, bool]", "{'a': True}", {"a": True}),
        ("Person", '{"name": "Ann", "age": "3"}', Person(name="Ann", age=3)),
        ("Person", 'Sure:\n```json\n{"name": "Ann", "age": 3} \n```', Person(name="Ann", age=3)),
        ("Person", '{"age": 3, "name": "Ann"', Person(name="Ann", age=3)),
        ("list[Person]", "[{name: 'Ann', age: 3}]", [Person(name="Ann", age=3)]),
    ],
)
def test_typed_values(annotation: str, written: str, wanted: Any) -> None:
    sig = Signature(f"a -> x: {annotation}", types={"Person": Person})
    assert CHAT.parse(sig, f"[[ ## x ## ]]\n{written}\n\n[[ ## completed ## ]]") == {"x": wanted}


@pytest.mark.parametrize(
    ("sig", "reply", "reason"),
    [
        (COT, "It is Paris.", "the field `reasoning` is missing; the field `answer` is missing"),
        (COT, "[[ ## reasoning ## ]]\nIt is", "the field `answer` is missing"),
        (COT, "", "the field `reasoning` is missing"),
        (NUMBER, "[[ ## answer ## ]]\nforty-two", "`answer` does not fit: Input should be a valid number"),
        (NUMBER, "[[ ## answer ## ]]\nbetween 3 and 4", "`answer` does not fit"),
        (NUMBER, "[[ ## answer ## ]]\n50%", "`answer` does not fit"),
        (NUMBER, "[[ ## answer ## ]]\n", "`answer` does not fit"),
        (Signature("a -> x: int"), "[[ ## x ## ]]\n4.5", "`x` does not fit"),
        (
            Signature("a -> x: Literal['a', 'b']"),
            "[[ ## x ## ]]\nboth a and b",
            "`x` must be one of 'a', 'b', not 'both a and b'",
        ),
        (Signature("a -> x: list[int]"), "[[ ## x ## ]]\n[1, 'two']", "`x` does not fit: at 1"),
        (Signature("a -> x: dict[str, int], y: int"), "[[ ## x ## ]]\nnone\n[[ ## y ## ]]\nz", "`x` does not fit"),
    ],
)
def test_refused_with_a_reason(sig: Signature, reply: str, reason: str) -> None:
    with pytest.raises(ParseError) as caught:
        CHAT.parse(sig, reply)
    assert reason in caught.value.reason
    assert caught.value.reply == reply
    assert "the reply does not hold" in str(caught.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ParseError) as caught:
        CHAT.parse(Signature("a -> x: int, y: int"), "[[ ## x ## ]]\none\n[[ ## y ## ]]\ntwo")
    assert "`x`" in caught.value.reason
    assert "`y`" in caught.value.reason


def test_constraints_are_enforced() -> None:
    class Rate(Signature):
        text: str = Input()
        score: int = Output(ge=1, le=5)
        why: str = Output(max_length=5)

    good = "[[ ## score ## ]]\n5\n\n[[ ## why ## ]]\nshort"
    assert CHAT.parse(Rate(), good) == {"score": 5, "why": "short"}
    with pytest.raises(ParseError, match=r"less than or equal to 5.*at most 5 characters"):
        CHAT.parse(Rate(), "[[ ## score ## ]]\n6\n\n[[ ## why ## ]]\nlonger")


@pytest.mark.parametrize(
    "reply",
    [
        '{"reasoning": "It is the capital.", "answer": "Paris"}',
        '```json\n{"reasoning": "It is the capital.", "answer": "Paris"}\n```',
        'Sure!\n{"reasoning": "It is the capital.", "answer": "Paris"}\nBye {x}.',
        'Given {"question": "Capital?"}, I say {"Reasoning": "It is the capital.", "ANSWER": "Paris"}',
        "{'reasoning': 'It is the capital.', 'answer': 'Paris'}",
        '{"reasoning": "It is the capital.", "answer": "Paris",}',
        '{"reasoning": "It is the capital.", "answer": "Paris"',
        '{"reasoning": "It is the capital.", "answer": "Paris", "extra": {"a": 1}}',
    ],
)
def test_json_objects(reply: str) -> None:
    assert JSON.parse(COT, reply) == THOUGHT


@pytest.mark.parametrize(
    ("sig", "reply", "wanted"),
    [
        ("a -> x: int", '{"x": "3"}', 3),
        ("a -> x: int", "3", 3),
        ("a -> x", "Paris", "Paris"),
        ("a -> x", '"Paris"', "Paris"),
        ("a -> x", '{"x": 3}', "3"),
        ("a -> x: list[str]", '["a"]', ["a"]),
        ("a -> x: list[str]", '{"x": "[\'a\']"}', ["a"]),
        ("a -> x: dict[str, int]", '{"a": 1}', {"a": 1}),
        ("a -> x: Literal['yes', 'no']", '{"x": "Yes"}', "yes"),
        ("a -> x: str | None", '{"x": null}', None),
    ],
)
def test_json_values(sig: str, reply: str, wanted: Any) -> None:
    assert JSON.parse(Signature(sig), reply) == {"x": wanted}


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("It is Paris.", "it is not a JSON object"),
        ("[1, 2]", "it is not a JSON object"),
        ('{"reasoning": "x"}', "the key `answer` is missing"),
        ("", "it is not a JSON object"),
    ],
)
def test_json_refused(reply: str, reason: str) -> None:
    with pytest.raises(ParseError) as caught:
        JSON.parse(COT, reply)
    assert reason in caught.value.reason


@pytest.mark.parametrize("adapter", [CHAT, JSON])
def test_the_re_ask_tells_the_reason(adapter: Adapter) -> None:
    error = ParseError("long message", reply="r", reason="the field `answer` is missing")
    assistant, user = adapter.repair_messages(Completion("r"), error)
    assert (assistant.role, assistant.content, user.role) == ("assistant", "r", "user")
    assert "the field `answer` is missing" in user.content


def test_literal_types_in_the_test_are_used() -> None:
    assert CHAT.parse(Signature("a -> x: L", types={"L": Literal["one word"]}), "One Word") == {"x": "one word"}


class Twins(pydantic.BaseModel):
    unit_price: int
    Unit_Price: int


@dataclasses.dataclass
class Finding:
    runs: list[int] = dataclasses.field(default_factory=list)
    names: list[str] = dataclasses.field(default_factory=list)
    cause: str = ""
    to_blame: bool = True


@pytest.mark.parametrize(
    ("reply", "meant"),
    [
        ({"run": [1, 2], "cause": "a"}, Finding([1, 2], [], "a")),
        ({"run": 1, "cause": "a"}, Finding([1], [], "a")),
        ({"Run": 1, "causes": "a"}, Finding([1], [], "a")),
        ({"runs": [1], "toBlame": False}, Finding([1], to_blame=False)),
        ({"runs": [1], "ToBlame": "no"}, Finding([1], to_blame=False)),
        ({"runs": [1], "to-blame": False}, Finding([1], to_blame=False)),
        ({"run": [1], "Run": [2]}, None),
        ({"runs": 1}, None),
        ({"run": "1 and 2"}, None),
        ({"name": "Ann, Bob"}, None),
        ({"causes": ["a", "b"]}, None),
        ({"toBlame": False, "to_blame": True}, None),
    ],
)
@pytest.mark.parametrize("adapter", [CHAT, JSON])
def test_keys_in_another_case_or_number_are_those_of_the_only_field_they_may_be(
    adapter: Adapter, reply: dict[str, Any], meant: Finding | None
) -> None:
    signature = Signature("question -> finding: Finding", types={"Finding": Finding})
    if adapter is JSON:
        text = json.dumps({"finding": reply})
    else:
        text = f"[[ ## finding ## ]]\n{json.dumps(reply)}\n\n[[ ## completed ## ]]"
    if meant is None:
        with pytest.raises(ParseError):
            adapter.parse(signature, text)
    else:
        assert adapter.parse(signature, text) == {"finding": meant}


def test_a_key_that_may_stand_for_two_fields_stands_for_none() -> None:
    signature = Signature("question -> item: Twins", types={"Twins": Twins})
    found = JSON.parse(signature, '{"item": {"unit_price": 1, "Unit_Price": 2}}')
    assert found == {"item": Twins(unit_price=1, Unit_Price=2)}
    with pytest.raises(ParseError, match="has no 'unit_price'"):
        JSON.parse(signature, '{"item": {"unit-price": 1, "Unit_Price": 2}}')
