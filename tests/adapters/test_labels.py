"""A value with a label is the value of what the label says."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from promptgrad.adapters import Adapter, ChatAdapter, JSONAdapter
from promptgrad.adapters._labels import own_label
from promptgrad.errors import ParseError
from promptgrad.signature import Field, Signature

AGAIN: Any = object()
CHAT, JSON = ChatAdapter(), JSONAdapter()
LEVEL = Literal["low", "high"]


def read(annotation: Any, text: str, name: str = "answer", adapter: Adapter = CHAT) -> Any:
    signature = Signature([Field("q"), Field(name, annotation, role="output")])
    try:
        return adapter.parse(signature, text)[name]
    except ParseError:
        return AGAIN


@pytest.mark.parametrize("wrap", ["{}", "[[ ## answer ## ]]\n{}\n\n[[ ## completed ## ]]"])
@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "Confidence: 3"),
        (int, "**Confidence:** 3"),
        (int, "Confidence (1 to 5) = 3"),
        (float, "Probability: 0.9"),
        (int, "Step: 3"),
        (int, "Tokens used: 3"),
        (int, "Price: 3"),
        (int, "My confidence is 3"),
        (float, "The likelihood of this is 0.9"),
        (int, "90% sure"),
        (int, "3 (confidence)"),
        (int, '{"confidence": 3}'),
        (int | None, "Certainty: 3"),
        (list[int], "Sources: [1, 2]"),
        (list[int], "See [1]"),
        (list[int], "Confidence: [3]"),
        (list[float], '["Confidence: 3"]'),
        (dict[str, float], '{"a": "Confidence: 3"}'),
        (LEVEL, "Confidence: high"),
        (LEVEL, "My confidence is high"),
        (bool, "Certain: yes"),
        (LEVEL | None, "Probability: high"),
    ],
)
def test_the_value_of_something_else_is_asked_again(annotation: Any, text: str, wrap: str) -> None:
    assert read(annotation, wrap.format(text)) is AGAIN


@pytest.mark.parametrize(
    ("annotation", "text", "wanted"),
    [
        (int, "Answer: 3", 3),
        (int, "**Final answer:** 3", 3),
        (int, "The result is: 3", 3),
        (int, "Number of apples: 3", 3),
        (int, "x = 3", 3),
        (int, "So: 3", 3),
        (int, "I am confident that the answer is 3.", 3),
        (int, "3 (confidence: high)", 3),
        (list[int], "Values: [1, 2]", [1, 2]),
        (LEVEL, "Urgency: high", "high"),
        (bool, "Urgent: yes", True),
    ],
)
def test_the_value_of_an_answer_is_read(annotation: Any, text: str, wanted: Any) -> None:
    assert read(annotation, f"[[ ## answer ## ]]\n{text}\n\n[[ ## completed ## ]]") == wanted


@pytest.mark.parametrize("adapter", [CHAT, JSON])
@pytest.mark.parametrize(
    ("name", "annotation", "text", "wanted"),
    [
        ("confidence", int, "Confidence: 3", 3),
        ("confidence", LEVEL, "Confidence: high", "high"),
        ("num_tokens", int, "**Num tokens**: 3", 3),
        ("score", float, "- score = -0.5", -0.5),
        ("sources", list[int], "Sources: [1, 2]", [1, 2]),
        ("is_sure", bool, "Is sure: yes", True),
        ("note", str | None, "Note: 3", "Note: 3"),
        ("x", Literal["x: a", "a"], "x: a", "x: a"),
    ],
)
def test_the_name_of_the_field_before_its_value_is_no_label_of_something_else(
    name: str, annotation: Any, text: str, wanted: Any, adapter: Adapter
) -> None:
    reply = {CHAT: "[[ ## {} ## ]]\n{}\n\n[[ ## completed ## ]]", JSON: '{{"{}": "{}"}}'}[adapter].format(name, text)
    found = read(annotation, reply, name, adapter)
    assert found == wanted
    assert type(found) is type(wanted)


def test_a_sign_before_a_name_is_no_bullet() -> None:
    assert own_label("x").sub("", "- x = 3") == "3"
    assert own_label("x").sub("", "-x = 3") == "-x = 3"
