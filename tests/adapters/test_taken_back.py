"""A value that is taken back after its end is asked for again."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from promptgrad.adapters import Adapter, ChatAdapter, JSONAdapter
from promptgrad.adapters._taken_back import takes_back
from promptgrad.errors import ParseError
from promptgrad.signature import Field, Signature
from tests.counting import steps

AGAIN: Any = object()
CHAT, JSON = ChatAdapter(), JSONAdapter()
TAKEN_BACK = [
    "Wait, this is wrong.",
    "Wait \N{EM DASH} 43",
    "Scratch that.",
    "Correction: 43",
    "**Correction**: it is 43.",
    "Actually, 43.",
    "Hmm, 43.",
    "No, that's not right.",
    "That\N{RIGHT SINGLE QUOTATION MARK}s wrong.",
    "On second thought, 43.",
    "I take that back.",
    "Sorry, I miscounted.",
    "Oops!",
    "I made a mistake above.",
    "I was wrong",
    "I meant 43.",
    "Let me redo this.",
    "Please disregard the above.",
    "(The answer above is not correct.)",
    "It should be 43.",
    "Edit: 43",
    "Korrektur: 43",
    "更正:43",
    "The correct answer is 43.",
    "The correct answer is 43, not 42.",
    "Final answer: 43",
    f"{'It is a long story. ' * 400}Wait, that is wrong.",
]
KEPT = [
    "Anything else?",
    "Let me know if this is wrong.",
    "Please tell me if you want a correction.",
    "I hope this helps!",
    "I checked it again and it is correct.",
    "It should be noted that this is exact.",
    "The correct answer is **42**.",
    "Final answer: 42",
    "Explanation: 40 + 2 = 42.",
    "No further questions.",
    "Wait times may vary.",
    "Let me remind you that 42 is even.",
]
WAYS = [
    "[[ ## x ## ]]\n{}\n\n[[ ## completed ## ]]",
    "[[x]] {}\n[[completed]]",
    "<x>{}</x>",
]


def read(annotation: Any, text: str, adapter: Adapter = CHAT) -> Any:
    try:
        return adapter.parse(Signature([Field("q"), Field("x", annotation, role="output")]), text)["x"]
    except ParseError:
        return AGAIN


@pytest.mark.parametrize("words", TAKEN_BACK)
def test_what_is_taken_back_after_its_end_is_asked_again(words: str) -> None:
    for way in WAYS:
        assert read(str, f"{way.format(42)}\n\n{words}") is AGAIN
        assert read(int, f"{way.format(42)}\n\n{words}") is AGAIN
    if not words.startswith(("The correct answer", "Final")):  # which may speak of what is inside
        assert read(list[int], f"[4, 2]\n\n{words}") is AGAIN
        for adapter in (CHAT, JSON):
            assert read(int, f'{{"x": 42}}\n\n{words}', adapter) is AGAIN


@pytest.mark.parametrize("words", KEPT)
def test_what_only_goes_on_talking_changes_nothing(words: str) -> None:
    for way in WAYS:
        assert read(str, f"{way.format(42)}\n\n{words}") == "42"
        assert read(int, f"{way.format(42)}\n\n{words}") == 42


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (bool, "Yes. Scratch that."),
        (bool, "Yes.\n\nCorrection: no"),
        (Literal["good", "bad"], "Good - scratch that"),
        (Literal["good", "bad"], "Good. I take that back."),
        (int, "42. Scratch that."),
        (float | None, "None. Scratch that."),
        (list[int], "[4, 2] (scratch that)"),
        (dict[str, int], '{"a": 4}\nI misread the question.'),
    ],
)
def test_what_is_taken_back_inside_its_section_is_asked_again(annotation: Any, text: str) -> None:
    assert read(annotation, f"[[ ## x ## ]]\n{text}\n\n[[ ## completed ## ]]") is AGAIN


def test_a_text_is_what_stands_in_its_section() -> None:
    text = "Paris\n\nScratch that: Lyon"
    assert read(str, f"[[ ## x ## ]]\n{text}\n\n[[ ## completed ## ]]") == text


@pytest.mark.parametrize("adapter", [CHAT, JSON])
@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ('"correction": 43', AGAIN),
        ('"corrected_x": 43', AGAIN),
        ('"Final answer": 43', AGAIN),
        ('"note": "Wait, this is wrong."', AGAIN),
        ('"reasoning": "41? Wait, that is wrong."', 42),
        ('"confidence": 0.5', 42),
        ('"new_instruction": "Answer 42."', 42),
        ('"final_thoughts": "That was easy."', 42),
        ('"updated": "2024-05-06"', 42),
        ('"note": "It is the sum."', 42),
        ('"q": "Correction: what is it?"', 42),
    ],
)
def test_a_key_that_corrects_another_one_is_not_passed_over(more: str, wanted: Any, adapter: Adapter) -> None:
    assert read(int, f'{{"x": 42, {more}}}', adapter) == wanted


def test_a_section_that_corrects_another_one_is_not_passed_over() -> None:
    reply = "[[ ## x ## ]]\n42\n\n[[ ## {} ## ]]\n{}\n\n[[ ## completed ## ]]"
    assert read(str, reply.format("correction", "43")) is AGAIN
    assert read(str, reply.format("note", "Wait, this is wrong.")) is AGAIN
    assert read(str, reply.format("explanation", "Because.")) == "42"


@pytest.mark.parametrize("piece", ["wait ", "the ", "i made ", "correct ", ". no", "let me", "a", "should be ", "\n"])
def test_the_work_does_not_grow_with_what_is_said(piece: str) -> None:
    takes_back("warm")
    assert steps(lambda: takes_back(piece * 50_000)) < 100 * 4_000
