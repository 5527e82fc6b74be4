"""Ordinary replies that hold words of caution about something else, and are read all the same."""

from __future__ import annotations

import datetime
import json
from typing import Any, Literal

import pydantic
import pytest

from promptgrad.adapters import ChatAdapter, JSONAdapter, XMLAdapter
from promptgrad.errors import ParseError
from promptgrad.signature import Field, Signature

Mood = Literal["positive", "negative", "neutral"]
YesNo = Literal["yes", "no"]
Level = Literal["low", "medium", "high"]
CALL = '{"name": "search", "arguments": {"query": "capital"}}'


class Event(pydantic.BaseModel):
    title: str
    duration_minutes: int | None = None
    location: str | None = None


def read(kind: Any, reply: str, adapter: Any = None, name: str = "answer") -> Any:
    """What a reply says to a question for one value of a type; the text "again" where it is asked again."""
    signature = Signature([Field("question", str, "", "input"), Field(name, kind, "", "output")], "Answer.")
    try:
        return (adapter or ChatAdapter()).parse(signature, reply)[name]
    except ParseError:
        return "again"


@pytest.mark.parametrize(
    ("kind", "reply", "value"),
    [
        (Mood, "Some customers complain, so the sentiment is negative.", "negative"),
        (Mood, "The customer had a bad time: negative", "negative"),
        (Mood, "Given the wording, I can say that the sentiment is positive.", "positive"),
        (Mood, "As can be seen from 'great', the sentiment is positive.", "positive"),
        (Mood, "The text expresses hope. Sentiment: positive", "positive"),
        (Mood, "Nothing in the text shows emotion, so it is neutral.", "neutral"),
        (Mood, "Based on the text, it can be concluded that the sentiment is negative.", "negative"),
        (Level, "Users can lose data: high", "high"),
        (Level, "Users may lose data, so severity is high.", "high"),
        (Level, "Half of the users are hit. Severity: high", "high"),
        (bool, "I can confirm that this is true.", True),
        (bool, "It can be said that the statement is false.", False),
        (bool, "The claim that X had Y is false.", False),
        (bool, "He had two sons, so it is true.", True),
        (Mood, "It may be: positive", "again"),
        (Mood, "It may be that it is positive", "again"),
        (Mood, "I hope that it is positive", "again"),
        (Mood, "In some cases, it is positive", "again"),
        (float, "With the discount the total is $45.", 45.0),
        (float, "Total after discount: $45", 45.0),
        (float, "The refund is $5.", 5.0),
        (int, "The withdrawal was 200", 200),
        (float, "$5 refund", "again"),
        (int, "5 discount", "again"),
        (int, "#### 12", 12),
        (int, "## Answer: 12", 12),
        (int, "The score is 4.", 4),
        (int, "4 score", "again"),
        (int, "a score is 4", "again"),
        (int, "# 12", "again"),
    ],
)
def test_a_word_about_something_else_turns_nothing(kind: Any, reply: str, value: Any) -> None:
    assert read(kind, reply) == value


@pytest.mark.parametrize(
    ("name", "head", "found"),
    [
        ("citations", "Sources", True),
        ("links", "References", True),
        ("source_urls", "Sources", True),
        ("plan", "Steps", True),
        ("instructions", "The steps", True),
        ("caveats", "Notes", True),
        ("plan", "Sources", False),
        ("citations", "Steps", False),
        ("answer", "Steps", False),
    ],
)
def test_a_list_below_another_name_of_its_field_is_read(name: str, head: str, found: bool) -> None:
    assert read(list[str], f"{head}:\n- a\n- b", name=name) == (["a", "b"] if found else "again")


@pytest.mark.parametrize("other", ['"date": "2020-01-02"', '"dates": "any"', '"lion": "a"'])
def test_a_key_whose_letters_happen_to_stand_in_a_name_is_no_abbreviation(other: str) -> None:
    assert read(Event, f'{{"title": "A", {other}}}') == Event(title="A")


@pytest.mark.parametrize("other", ['"loc": "Rome"', '"lctn": "Rome"'])
def test_an_abbreviation_of_a_missing_field_is_asked_again(other: str) -> None:
    assert read(Event, f'{{"title": "A", {other}}}') == "again"


@pytest.mark.parametrize("name", ["function_call", "tool_call", "calls", "json", "toolUse"])
def test_a_text_that_is_called_after_calls_may_be_one(name: str) -> None:
    for adapter in (ChatAdapter(), XMLAdapter()):
        assert read(str, CALL, adapter, name) == CALL
        assert read(str, CALL, adapter) == "again"
    tagged = f"<function=search>{json.dumps({'query': 'capital'})}</function>"
    assert read(str, tagged, JSONAdapter(), name) == tagged


@pytest.mark.parametrize(
    "text", ["<tools>\n  <tool>hammer</tool>\n</tools>", "functools[1]", "<tools>", "<invoke> is a tag"]
)
def test_a_tag_or_a_name_that_calls_also_have_is_no_call(text: str) -> None:
    for adapter in (ChatAdapter(), JSONAdapter(), XMLAdapter()):
        assert read(str, text, adapter) == text


@pytest.mark.parametrize(
    ("kind", "reply", "value"),
    [
        (int | None, "Not mentioned in the text.", None),
        (int | None, "Not specified", None),
        (float | None, "Not stated (only the year is)", None),
        (datetime.date | None, "Not given.", None),
        (list[str] | None, "Not provided", None),
        (Mood | None, "Not mentioned", None),
        (str | None, "Not mentioned", "Not mentioned"),
        (int, "Not mentioned", "again"),
        (int | None, "not given, but 3", "again"),
        (int | None, "Not mentioned in the 3 pages", "again"),
        (bool | None, "Not mentioned", "again"),
        (YesNo | None, "Not mentioned", "again"),
        (Literal["yes", "no", None], "Not mentioned", "again"),
        (Literal["listed", "unlisted"] | None, "not listed", "again"),
    ],
)
def test_what_is_not_mentioned_is_none_unless_it_may_be_false(kind: Any, reply: str, value: Any) -> None:
    assert read(kind, reply) == value
    assert read(kind, json.dumps({"answer": reply}), JSONAdapter()) == value


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("No, they are not.", "no"),
        ("No, it isn't.", "no"),
        ("Yes. Users cannot log in.", "yes"),
        ("No, it is.", "again"),
        ("Yes, it isn't.", "again"),
        ("No. The opposite is true.", "again"),
        ("Yes, unless it rains.", "again"),
        ("Yes, with one exception: not on Sundays", "again"),
    ],
)
def test_choices_called_yes_and_no_are_read_as_true_and_false_are(reply: str, value: str) -> None:
    assert read(YesNo, reply) == value
    truth = {"yes": True, "no": False}.get(value, value)
    assert read(bool, reply) == truth
