"""One reader with one rule: a value that was meant, or a `ParseError` with its reason."""

from __future__ import annotations

import collections
import datetime
import enum
import json
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, NewType

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptgrad.adapters import Adapter, ChatAdapter, JSONAdapter
from promptgrad.adapters._chat import ChatFormat
from promptgrad.adapters._nearly_json import Odd, loads_nearly, values_in
from promptgrad.errors import ParseError
from promptgrad.signature import Field, Signature
from tests.counting import steps

CHAT, JSON = ChatAdapter(), JSONAdapter()
AGAIN: Any = object()
"""The reply has no single reading."""


class Rating(enum.Enum):
    POOR = 1
    GOOD = 2
    VERY_GOOD = 3


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Item(pydantic.BaseModel):
    name: str
    price: float
    count: int | None = None
    in_stock: bool = True
    rating: Rating = Rating.POOR


Identity = NewType("Identity", int)


class Numbers(pydantic.RootModel[list[int]]):
    pass


class Pair(NamedTuple):
    a: int
    b: float


class Percent(pydantic.BaseModel):
    share: Annotated[str, pydantic.BeforeValidator(lambda value: f"{value}!")]
    size: int

    @pydantic.field_validator("size", mode="before")
    @classmethod
    def of_own(cls, value: Any) -> Any:
        return len(value) if isinstance(value, str) else value


def signature(annotation: Any, name: str = "x") -> Signature:
    return Signature([Field("q"), Field(name, annotation, role="output")])


def read(annotation: Any, text: str, adapter: Adapter = CHAT) -> Any:
    try:
        return adapter.parse(signature(annotation), text)["x"]
    except ParseError:
        return AGAIN


@pytest.mark.parametrize(
    ("annotation", "text", "wanted"),
    [
        # booleans
        (bool, "No, there is only 1 of them", False),
        (bool, "Yes.", True),
        (bool, "**No**", False),
        (bool, "The answer is yes.", True),
        (bool, "It is true.", True),
        (bool, "yes - all of them", True),
        (bool, "No. 5 of them", AGAIN),
        (bool, "It is not true", AGAIN),
        (bool, "Yes and no", AGAIN),
        (bool, "No, wait, yes", AGAIN),
        (bool, "True (mostly)", AGAIN),
        (bool, "Yes, hardly", AGAIN),
        (bool, "No - not enough information", AGAIN),
        (bool, "No, there is no such thing", False),
        (Literal["positive", "negative"], "positive: 20%", AGAIN),
        (Literal["positive", "negative"], "Positive (confidence: 0.3)", "positive"),
        (bool, "there is 1", AGAIN),
        (bool, "Unknown", AGAIN),
        (bool | None, "N/A", None),
        (bool | None, "Yes", True),
        (list[bool], '["yes", "No", true]', [True, False, True]),
        # nothing
        (int | None, "N/A (see page 3)", None),
        (int | None, "none", None),
        (int | None, "None, but page 3 says 4", AGAIN),
        (int | None, "about 5", 5),
        (float | None, "not available", None),
        (list[int] | None, "null", None),
        (list[int | None], '["N/A", "2k", 3]', [None, 2000, 3]),
        # optional texts keep their body
        (str | None, "Do this:\n```python\nx = 1\n```\nand go.", "Do this:\n```python\nx = 1\n```\nand go."),
        (str | None, "42", "42"),
        (str | None, "true", "true"),
        (str | None, "[1, 2]", "[1, 2]"),
        (str | None, "N/A in this case", "N/A in this case"),
        (str | None, "null", None),
        (int | str, "about 5", "about 5"),
        (int | str, "5", 5),
        # literals and enums, as deep as they stand
        (Literal["yes", "no"] | None, "Yes", "yes"),
        (list[Literal["yes", "no"]], '["Yes", "NO."]', ["yes", "no"]),
        (list[Literal["yes", "no"]], "- Yes\n- **No**", ["yes", "no"]),
        (dict[str, Literal["low", "high"]], '{"a": "Low"}', {"a": "low"}),
        (dict[Literal["p", "q"], bool], '{"P": "yes", "Q": "no"}', {"p": True, "q": False}),
        (Literal["positive", "negative"], "The mood is positive.", "positive"),
        (Literal["positive", "negative"], "Positive: the words are warm.", "positive"),
        (Literal["positive", "negative"], "not positive", AGAIN),
        (Literal["positive", "negative"], "positive or negative", AGAIN),
        (Literal["positive", "negative"], "Positive, though at the end negative", AGAIN),
        (Literal["good", "very good"], "very good", "very good"),
        (Literal[1, 2], "2.5", AGAIN),
        (Literal[1, 2], "-1", AGAIN),
        (Literal[-1, 1], "-1", -1),
        (Literal[1, 2], "2", 2),
        (Rating, "GOOD", Rating.GOOD),
        (Rating, "2", Rating.GOOD),
        (Rating, "Rating.GOOD", Rating.GOOD),
        (Rating, "very good", Rating.VERY_GOOD),
        (Rating, "GOOD (2)", Rating.GOOD),
        (Rating, "POOR (2)", AGAIN),
        (Rating, "4", AGAIN),
        (Rating | None, "good", Rating.GOOD),
        (list[Rating], '["GOOD", 1]', [Rating.GOOD, Rating.POOR]),
        (Color, "RED", Color.RED),
        (Color, "Blue.", Color.BLUE),
        # numbers inside
        (list[float], '["3.5 billion", "\N{MINUS SIGN}5"]', [3.5e9, -5.0]),
        (list[float], "- \N{MINUS SIGN}5\n- 2k", [-5.0, 2000.0]),
        (list[int], "[true, 2]", AGAIN),
        (dict[str, float], '{"a": "50%"}', AGAIN),
        (tuple[int, str], '["5 million", "x"]', (5_000_000, "x")),
        (
            Item,
            '{"Name": "a", "price": "$1,234.50", "count": "N/A", "In Stock": "no", "rating": "GOOD"}',
            Item(name="a", price=1234.5, count=None, in_stock=False, rating=Rating.GOOD),
        ),
        (list[Item], "[{'name': 'a', 'price': 3, 'rating': 'good',}]", [Item(name="a", price=3, rating=Rating.GOOD)]),
        (Percent, '{"share": "50%", "size": "abc"}', Percent.model_construct(share="50%!", size=3)),
        # the first bracket, drafts, examples
        (list[int], "As stated in [1], the values are:\n[4, 5]", AGAIN),
        (list[int], "As stated in [Ann], the values are:\n[4, 5]", [4, 5]),
        (list[int], "Draft: [1]\nFinal: [2, 3]", AGAIN),
        (list[int], "```json\n[1]\n```\nor\n```json\n[2]\n```", AGAIN),
        (list[int], "```json\n[1]\n```\nthat is\n```json\n[1]\n```", [1]),
        (dict[str, int], 'For example {"a": "int"}, so here:\n{"a": 3}', {"a": 3}),
        (Item, 'It is like {"name": "...", "price": "..."}:\n{"name": "a", "price": 3}', Item(name="a", price=3)),
        (list[str], "As noted [citation needed]:\n- a\n- b", ["a", "b"]),
        (list[str], "Here they are:\n- a\n- b", ["a", "b"]),
        (list[str], "- a\n  - b", AGAIN),
        (list[str], "- none", AGAIN),
        (list[str], "1) a 2) b", AGAIN),
        (list[str], "- a 2 b", ["a 2 b"]),
        (list[str], '["a", "b"] (incomplete)', AGAIN),
        (list[str], "3. a\n9. b", AGAIN),
        (list[str], '- "a"\n- "b"', ["a", "b"]),
        # a value in a sentence that cites, denies or doubts it
        (list[int], "As stated in [1], there are none", AGAIN),
        (list[int], "Never return [1]", AGAIN),
        (list[int], "[1, 2] is wrong", AGAIN),
        (list[int], "The values are not [1, 2]", AGAIN),
        (dict[str, int], 'It would be like {"a": 1}', AGAIN),
        (list[int], "The values are [1, 2].", [1, 2]),
        # a number that ends where the text ends may have lost digits
        (dict[str, int], '{"a": 12', AGAIN),
        (list[int], "[1, 2", AGAIN),
        (Item, '{"price": 3, "name": "x"', Item(name="x", price=3)),
        # true is not 1, wherever it stands
        (Literal[1, 2], "true", AGAIN),
        (Rating, "true", AGAIN),
        (int | str, "true", "true"),
        (list[int | str], "[true]", AGAIN),
        (list[Rating | None], "[true]", AGAIN),
        (Identity, "true", AGAIN),
        (Identity, "5k", Identity(5000)),
        (Numbers, "[true]", AGAIN),
        (Numbers, '["5k"]', Numbers([5000])),
        (Pair, "[true, 1]", AGAIN),
        (Pair, '{"a": "5k", "b": 1}', Pair(5000, 1.0)),
        (Pair, '["5k", "\N{MINUS SIGN}1"]', Pair(5000, -1.0)),
        (collections.deque[int], "[true]", AGAIN),
        (collections.deque[int], '["5k"]', collections.deque([5000])),
        (collections.OrderedDict[str, int], '{"a": true}', AGAIN),
        (Item | Pair, '{"a": true, "b": 1}', AGAIN),
        (list[int] | list[str], '["a", "5"]', ["a", "5"]),
        (list[int] | dict[str, int] | Any, '["a"]', ["a"]),
        # choices as other JSON than texts, and as keys
        (Literal["1", "2"] | None, "1", "1"),
        (list[Literal["1", "2"]], "[1, 2]", ["1", "2"]),
        (Literal["low", None], "None", None),
        (dict[Rating, float], '{"GOOD": "5k"}', {Rating.GOOD: 5000.0}),
        (dict[Literal[1, 2], float], '{"1": 1}', {1: 1.0}),
        (list[dict[Literal[1, 2], int]], '[{"1": 1}, {}]', [{1: 1}, {}]),
        (tuple[dict[Literal[1, 2], Literal[3]], str], '[{"2": 3}, "a"]', ({2: 3}, "a")),
        (Literal["yes", "no"], "Yes\n\nThe words are clear.", "yes"),
        (Literal["positive", "negative"], "I doubt it is positive", AGAIN),
        (Literal["positive", "negative"], "It fails to be positive", AGAIN),
        (bool, "Yes \N{EN DASH} although unclear", AGAIN),
        (bool, "Yes, unless it rains", AGAIN),
        # numbers keep what was written
        (list[Decimal], "[0.1000000000000000000000000001]", [Decimal("0.1000000000000000000000000001")]),
        (Decimal, '"1e999999999"', AGAIN),
        (Decimal, "1e999999999", AGAIN),
        (float, "1e400", AGAIN),
        (list[float], "[1e400]", AGAIN),
        (list[int] | int, '"[5]"', [5]),
        # what is left of decoration is no value
        (bytes, "***", AGAIN),
        (bytes, "_aGVs", AGAIN),
        (bytes, "`aGVsbG8=`", b"hello"),
        # what was cut is not closed
        (list[str], '["aspirin", "ibuprofen", "parac', AGAIN),
        (list[str], '["aspirin", "ibuprofen"', AGAIN),
        (list[str], '["a", ["b"], "par', AGAIN),
        (list[str], '["a"] was the draft; now ["b", "c', AGAIN),
        (Item, '{"name": "x", "price": 3, "cou', AGAIN),
        (dict[str, str], '{"a": "b", "c": "d', AGAIN),
        (list[int], "[1, 2, ...]", AGAIN),
        # two values for one key
        (dict[str, int], '{"a": 1, "a": 2}', AGAIN),
        (dict[str, int], '{"a": 1, "a": 1}', {"a": 1}),
        (Item, '{"name": "a", "price": 1, "Price": 2}', AGAIN),
        # dates are not seconds
        (datetime.date, "2024-05-06", datetime.date(2024, 5, 6)),
        (datetime.date, "**2024-05-06**.", datetime.date(2024, 5, 6)),
        (datetime.datetime, "2024", AGAIN),
        (datetime.datetime, "1.7e9", AGAIN),
        (list[datetime.datetime], '["1.7e9"]', AGAIN),
        (datetime.date | None, "N/A", None),
        (list[datetime.date | None], '["n/a", "2024-05-06"]', [None, datetime.date(2024, 5, 6)]),
        (Literal["none", "some"] | None, "None", "none"),
        (list[datetime.date], "[5]", AGAIN),
        (list[datetime.date | None], "[5, null]", AGAIN),
        (list[datetime.datetime | str], "[1.5]", AGAIN),
        (dict[str, datetime.date | list[int] | None], '{"a": 315532800}', AGAIN),
        (list[datetime.date | int], "[5]", [5]),
        (list[datetime.date | Rating], "[1]", [Rating.POOR]),
        (datetime.datetime | None, "1715000000", AGAIN),
        (datetime.datetime | None, "2024-05-06 10:00-11:00", AGAIN),
        # durations of several lengths
        (datetime.timedelta, "01:30", AGAIN),
        (datetime.timedelta | None, "01:30", AGAIN),
        (datetime.timedelta, "P1M", AGAIN),
        (datetime.timedelta, "P1Y2M", AGAIN),
        (datetime.timedelta, "PT1M", datetime.timedelta(minutes=1)),
        (datetime.timedelta, "1:30:00", datetime.timedelta(hours=1, minutes=30)),
        # bullets that stand for others, for none, or are struck out
        (list[str], "- a\n- and 3 more", AGAIN),
        (list[str], "- a\n- \N{HORIZONTAL ELLIPSIS} and others", AGAIN),
        (list[str], "- a\n- plus many more items", AGAIN),
        (list[str], "- nothing", AGAIN),
        (list[str], "- (empty)", AGAIN),
        (list[str], "- No items found.", AGAIN),
        (list[str], "- None identified", AGAIN),
        (list[str], "- No smoking", ["No smoking"]),
        (list[str], "- a\n- ~~b~~", AGAIN),
        (list[str], "- a,\n- b", AGAIN),
        (list[str], "- a;\n- b.", AGAIN),
        (list[str], "- **a**\n- **b c**", ["a", "b c"]),
        (list[str], "- **a**: x\n- **b**", ["**a**: x", "**b**"]),
        # code that goes on to change it, a link's address, a comment that doubts it
        (list[int], "```python\nx = [1, 2]\nx.append(3)\n```", AGAIN),
        (list[int], "```js\nlet x = [1, 2];\nx += [3];\n```", AGAIN),
        (list[int], "[1]: https://example.org", AGAIN),
        (dict[str, int], '{"a": 5 // or 6\n}', AGAIN),
        (dict[str, int], '{"a": 5, /* should be 6 */ "b": 1}', AGAIN),
        (dict[str, int], '{"a": 5, // five, of the order\n "b": 1}', {"a": 5, "b": 1}),
        # numbers whose units differ
        (list[float], '["1.5 kg", "300 g"]', AGAIN),
        (list[float], "- 5 min\n- 2 hours", AGAIN),
        (list[float], '["$5", "\N{EURO SIGN}6"]', AGAIN),
        (tuple[float, ...], '["20 \N{DEGREE SIGN}C", "68 \N{DEGREE SIGN}F"]', AGAIN),
        (dict[str, float | None], '{"a": "5 km", "b": null, "c": "300 m"}', AGAIN),
        (dict[str, list[int]], '{"a": ["5 MB"], "b": ["2 GB", "3 GB"]}', {"a": [5], "b": [2, 3]}),
        (list[float], '["1.5 kg", "3 kilograms", 4]', [1.5, 3.0, 4.0]),
        (list[int], '["5 apples", "3 pears"]', [5, 3]),
        (list[int | str], '["5 min", "2 h"]', ["5 min", "2 h"]),
        (list[Literal["5 min", "2 h"]], '["5 min", "2 h"]', ["5 min", "2 h"]),
        # a share behind yes or no, and a denial of the contrary
        (bool, "Yes: 10%", AGAIN),
        (bool, "True = 0.2", AGAIN),
        (bool, "Yes (90%)", True),
        (bool, "No, it is not untrue", AGAIN),
        (bool, "No, it isn't false", AGAIN),
    ],
)
def test_read_or_asked_again(annotation: Any, text: str, wanted: Any) -> None:
    found = read(annotation, text)
    assert found is wanted or (type(found) is type(wanted) and found == wanted)
    marked = f"[[ ## x ## ]]\n{text}\n\n[[ ## completed ## ]]"
    again = read(annotation, marked)
    assert again is found or again == found


@pytest.mark.parametrize(
    ("annotation", "text", "wanted"),
    [
        (float, '{"x": "\N{MINUS SIGN}5"}', -5.0),
        (float, '{"x": true}', AGAIN),
        (str, '{"x": null}', AGAIN),
        (str, '{"x": "Par', AGAIN),
        (str, '```json\n{"x": "Par', AGAIN),
        (str, "Paris", "Paris"),
        (int, '{"x": 1, "x": 2}', AGAIN),
        (int, '{"x": 1, "X": 2}', AGAIN),
        (int, '{"X": 1, "extra": 2}', 1),
        (str, '{"x": "<think>Lyon?</think>Paris"}', "Paris"),
        (str, '{"x": "<think>Lyon?"}', AGAIN),
        (str, "", AGAIN),
        (str, "[[ ## x ## ]]\nParis", AGAIN),
        (list[int] | int, '{"x": "[5]"}', [5]),
        (list[int], 'first {"x": [1]}, then {"x": [2]}', AGAIN),
        (list[int], 'first {"x": ["?"]}, then {"x": [2]}', [2]),
        (str, '```json\n{"x": "a"}\n```\n```json\n{"x": "b"}\n```', AGAIN),
        (bool, '{"x": "No, only 1"}', False),
        (Rating, '{"x": "GOOD"}', Rating.GOOD),
        (str | None, '{"x": null}', None),
        (int | None, '{"x": "N/A"}', None),
        (dict[str, Any], '{"x": {"a": "[1, 2]", "b": [1,2]}}', {"a": "[1, 2]", "b": [1, 2]}),
        (list[list[int]], '{"x": [[1,2], [3, 4]]}', [[1, 2], [3, 4]]),
        (list[list[int]], '{"x": [[1,200, 3], [4]]}', AGAIN),
        (list[float], 'a 5" one: {"x": [0,5, 1,5]}', AGAIN),
        # backslashes that are those of LaTeX, a pattern or a path
        (str, r'{"x": "\frac{1}{2}"}', AGAIN),
        (str, r'{"x": "5 \times 3"}', AGAIN),
        (str, r'{"x": "\\\theta"}', AGAIN),
        (str, r'{"x": "\\frac{1}{2}"}', r"\frac{1}{2}"),
        (str, r'{"x": "\alpha"}', r"\alpha"),
        (str, r'{"x": "\alpha + \beta"}', AGAIN),
        (str, r'{"x": "\bword\d+"}', AGAIN),
        (str, r'{"x": "C:\new\dir"}', AGAIN),
        (str, r'{"x": "A:\nHello\tB"}', "A:\nHello\tB"),
        (str, r'{"x": "import re\nre.sub(\d)"}', "import re\nre.sub(\\d)"),
        (list[str], r'{"x": ["\nabla f"]}', AGAIN),
        (str, r'{"x": "a\textMpro"}', "a\textMpro"),  # no command: its name goes on to the next sign that is no letter
        (dict[str, str], r'So: {"x": {"a": "\rho"}}', AGAIN),
    ],
)
def test_json_replies(annotation: Any, text: str, wanted: Any) -> None:
    found = read(annotation, text, JSON)
    assert found is wanted or (type(found) is type(wanted) and found == wanted)


@pytest.mark.parametrize(
    "reply",
    [
        "[[ ## x ## ]]\nLyon\n\n[[ ## x ## ]]\nParis\n\n[[ ## completed ## ]]",
        "x: Lyon\nx: Paris",
        "<x>Lyon</x> or <x>Paris</x>",
        '{"x": "Lyon"}\n{"x": "Paris"}',
        '{"x": "Par',
        '{"x": "Lyon", "X": "Paris"}',
        "[[ ## x ## ]]",
        "[[ ## y ## ]]\nParis",
    ],
)
def test_a_text_that_comes_twice_or_not_at_all_is_asked_again(reply: str) -> None:
    if reply.startswith('{"x": "L'):
        reply = f"```json\n{reply}\n```"
        assert read(str, reply, JSON) is AGAIN
        return
    with pytest.raises(ParseError, match=r"comes twice, with different values|is missing"):
        CHAT.parse(signature(str), reply)


def test_the_same_twice_is_one_value() -> None:
    assert read(str, "[[ ## x ## ]]\nParis\n\n[[ ## x ## ]]\nParis\n\n[[ ## completed ## ]]") == "Paris"
    assert read(str, "<x>Paris</x>, so <x>Paris</x>") == "Paris"


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        ("[[ ## x ## ]] Paris [[ ## completed ## ]]", "Paris"),
        ("[[ ## x ## ]]\nParis\n\n[[ ## comple", "Paris"),
        ("[[ ## x ## ]]\nParis [[ ## completed ## ]]\n\n[[ ## completed ## ]]", "Paris [[ ## completed ## ]]"),
        ("[[ ## x ## ]]\n\n[[ ## completed ## ]]", ""),
        ("[[ ## x ## ]]\n<think>Lyon?</think>Paris\n\n[[ ## completed ## ]]", "Paris"),
        ("[[ ## x ## ]]\n<think>Lyon?\n\n[[ ## completed ## ]]", AGAIN),
    ],
)
def test_the_end_of_the_last_section_and_a_thought_at_its_beginning_are_no_answer(reply: str, wanted: Any) -> None:
    assert read(str, reply) == wanted


def test_a_thought_in_a_field_that_asks_for_one_is_its_text() -> None:
    reply = "[[ ## reasoning ## ]]\n<think>It is.</think>\n\n[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"
    found = CHAT.parse(Signature("question -> reasoning, answer"), reply)
    assert found == {"reasoning": "It is.", "answer": "Paris"}


def test_a_key_that_comes_twice_is_said() -> None:
    with pytest.raises(ParseError, match="the key 'a' comes twice"):
        CHAT.parse(signature(dict[str, int]), '{"a": 1, "a": 2}')


@pytest.mark.parametrize(
    "text", ['{"a": 1}', '```json\n{"x": 1}\n``` is what to write', "Use {x} and [y].", "# C#", "a\n***"]
)
def test_a_text_that_looks_like_something_else_stays_whole(text: str) -> None:
    assert read(str, text) == text


def test_the_prompt_shows_names_and_values_of_enums() -> None:
    system = CHAT.format(Signature([Field("q"), Field("x", Rating, role="output")])).system("")
    assert "{one of 1 (POOR), 2 (GOOD), 3 (VERY_GOOD)}" in system
    assert "one of 1 (POOR), 2 (GOOD), 3 (VERY_GOOD), or null" in CHAT.format(signature(Rating | None)).system("")
    assert "Rating: 1 is POOR, 2 is GOOD, 3 is VERY_GOOD" in CHAT.format(signature(list[Rating])).system("")
    assert "Rating: 1 is POOR, 2 is GOOD, 3 is VERY_GOOD" in JSON.format(signature(Item)).system("")
    assert "one of `red`, `blue`" in CHAT.format(signature(Color)).system("")
    rating = NewType("rating", Rating)
    assert "{one of 1 (POOR), 2 (GOOD), 3 (VERY_GOOD)}" in CHAT.format(signature(rating)).system("")
    assert "Rating: 1 is POOR, 2 is GOOD" in CHAT.format(signature(list[rating])).system("")
    assert '{"items": {"type": "integer"}, "type": "array"}' in CHAT.format(signature(Numbers)).system("")
    documented = Annotated[Literal["yes", "no"], "doc"] | None
    assert 'one of "yes", "no", or null' in CHAT.format(signature(documented)).system("")
    assert 'one of "yes", "no", or null' in CHAT.format(signature(Literal["yes", "no"] | None)).system("")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{'a': 1, b: 2,}", {"a": 1, "b": 2}),
        ('{"a": True, "b": None, "c": undefined}', {"a": True, "b": None, "c": None}),
        ('{"a": 1, // one\n "b": 2 /* two */}', {"a": 1, "b": 2}),
        ('{"a": "x\ny"}', {"a": "x\ny"}),
        ("{'a': 'it\\'s \"so\"', 1: \"\\ud83d\\ude00 \\d\"}", {"a": 'it\'s "so"', "1": "\U0001f600 \\d"}),
        ("[a, b c]", ["a", "b c"]),
        ("[+1, .5, 1_000]", [1, 0.5, 1000]),
        ('{"a": {"b": [1]}', {"a": {"b": [1]}}),
        ("{\N{LEFT DOUBLE QUOTATION MARK}a\N{RIGHT DOUBLE QUOTATION MARK}: 1}", {"a": 1}),
    ],
)
def test_nearly_json(text: str, value: Any) -> None:
    assert loads_nearly(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2",
        '{"a": "b" "c": 1}',
        '["he said "hi" there"]',
        "[1,, 2]",
        "[1, ...]",
        '{"a": [1}',
        "{1, 2}",
        "[",
        "{a}",
        "x",
        "",
    ],
)
def test_what_has_no_single_reading_as_json(text: str) -> None:
    with pytest.raises(Odd):
        loads_nearly(text)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
objects = st.lists(json_values, max_size=3) | st.dictionaries(st.text(max_size=4), json_values, max_size=3)


@settings(max_examples=200, deadline=None)
@given(objects)
def test_what_python_writes_is_read_as_it_was(value: Any) -> None:
    assert loads_nearly(json.dumps(value)) == value
    assert loads_nearly(json.dumps(value, indent=2, ensure_ascii=False)) == value
    if "\\" not in repr(value):
        assert loads_nearly(repr(value)) == value


WAYS = [
    "{}",
    "```json\n{}\n```",
    "Here it is:\n\n```\n{}\n```\nI hope that helps.",
    "Sure! {}",
    "The values are {}, as asked.",
    "Like [1, 2] of the example, but: {}",
    "Draft: [7]\n\nFinal: {}",
    "As in [Smith] and (a) {{b}}: {}",
    '{{"x": {}}}',
    "**{}**",
    "x: {}",
    "[[ ## x ## ]]\n{}\n\n[[ ## completed ## ]]",
    "<think>[0]?</think>{}",
    "{}\n\nThe list is complete.",
    "```\n{}\n```\nnot [7]",
]
UNSAID = ["As stated in {}, there are none", "Never {}", "It cannot be {}", "An example is {}", "{} is wrong", "{}?"]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(-99, 99), max_size=4), st.sampled_from(WAYS), st.booleans(), st.booleans(), st.integers(0, 9)
)
def test_a_list_is_the_meant_one_or_asked_again(
    value: list[int],
    way: str,
    quoted: bool,
    trailing: bool,
    cut: int,
) -> None:
    text = json.dumps([str(item) if quoted else item for item in value])
    if trailing and value:
        text = f"{text[:-1]},]"
    reply = way.format(text)
    assert read(list[int], reply) in (value, AGAIN)
    assert all(read(list[int], unsaid.format(text)) is AGAIN for unsaid in UNSAID)
    if 0 < cut < len(text):
        assert read(list[int], f"Here it is: {text[:-cut]}") is AGAIN


CHOICE = Literal["low", "high", "very high"]
SAYINGS = [
    *(
        "{}",
        "**{}**",
        "The level is {}.",
        "{}: since it is so",
        "- {}",
        '"{}"',
        "Level: {}",
        "It is not {}",
        "{} (3 of 4)",
    ),
    *("not low but {}", "between low and {}", "{}, I am sure", "low? No: {}", "I would not say {}"),
]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["low", "high", "very high"]),
    st.sampled_from(SAYINGS),
    st.sampled_from([str, str.upper, str.title]),
)
def test_a_choice_is_the_meant_one_or_asked_again(option: str, saying: str, case: Any) -> None:
    found = read(CHOICE, saying.format(case(option)))
    assert found in ((AGAIN,) if "not {}" in saying or "not say" in saying else (option, AGAIN))


ANSWERS = [
    *("{}", "**{}**", "{}.", "The answer is {}.", "Answer: {}", "x: {}", '"{}"', "- {}", "{}!", "{}, since it is so"),
    *("{} - there are 3 of them", "{}, I am sure", "I think it is {}", "{} (see above)", "{}\n\nThe words are clear."),
]
NO_ANSWERS = [
    "not {}",
    "It is not {}",
    "{}? Perhaps",
    "{} and no and yes",
    "{}. Wait, no, yes",
    "{}. Scratch that.",
    "If {}",
]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([("yes", True), ("no", False), ("true", True), ("false", False)]),
    st.sampled_from(ANSWERS),
    st.sampled_from(NO_ANSWERS),
    st.sampled_from([str, str.upper, str.title]),
)
def test_a_boolean_is_the_meant_one_or_asked_again(case: tuple[str, bool], answer: str, none: str, write: Any) -> None:
    word, meant = write(case[0]), case[1]
    assert read(bool, answer.format(word)) in (meant, AGAIN)
    assert read(list[bool], json.dumps([answer.format(word)])) in ([meant], AGAIN)
    assert read(bool, none.format(word)) is AGAIN
    assert read(bool, f"**{word}**.") is meant


HOSTILE = [
    *(
        "{",
        "[",
        "}",
        "]",
        "[[",
        "[[ ",
        "[[ ##",
        "[[ ## x",
        "[[ ## x ## ]]\n",
        '{"x":',
        '["',
        "[1,",
        "{1:",
        "[a] ",
        "- ",
        "1. ",
    ),
    *(
        "```",
        "``` ",
        "*",
        "**",
        "**x",
        "**x **",
        "#",
        "_",
        "> ",
        "x:",
        "x ",
        "<x>",
        "</x>",
        " ",
        "\t",
        "\n",
        "␣",
        " ␣",
        "é",
    ),
    *("9", "9,", "9.", "9 ", "1 000 ", "-", "$", "%", "(", "not ", "yes, ", "N/A ", "null ", "\ud83d"),
    *('"', "'", "\\", '\\"', "//", "/*", "a/*"),
]
TYPES: list[Any] = [str, str | None, float | None, Rating, list[int], Item, Any]


@pytest.mark.parametrize("annotation", TYPES, ids=str)
@pytest.mark.parametrize("adapter", [CHAT, JSON], ids=["chat", "json"])
def test_hostile_replies_are_read_or_refused(annotation: Any, adapter: Adapter) -> None:
    """Whatever a reply of 100,000 characters holds, it is a value or a `ParseError`."""
    for piece in HOSTILE:
        for head in ("", "{"):
            reply = head + piece * (100_000 // len(piece))
            found = read(annotation, reply, adapter)
            assert found is AGAIN or found is not None


@pytest.mark.parametrize("annotation", TYPES, ids=str)
@pytest.mark.parametrize("adapter", [CHAT, JSON], ids=["chat", "json"])
def test_the_work_grows_no_faster_than_the_reply(annotation: Any, adapter: Adapter) -> None:
    """In steps of Python, for loops; the patterns have no two repetitions side by side that match the same."""
    adapter.parse(signature(str), "warm")
    for piece in HOSTILE:
        replies = [piece * (size // len(piece)) for size in (2_000, 8_000)]
        short, long = (steps(partial(read, annotation, reply, adapter)) for reply in replies)
        assert long <= 5 * short + 2_000, piece


def test_brackets_that_open_nothing_end_the_search() -> None:
    with pytest.raises(Odd):
        values_in("[a] " * 5_000)
    assert values_in("[a] [1]") == [(4, 7, [1])]


@pytest.mark.parametrize("form", ["[1, // {}\n2]", "[1, # {}\n2]", "[1, /* {} */ 2]", "[1, 2] // {}"])
def test_a_line_of_very_many_characters_is_no_comment(form: str) -> None:
    """Each place where a value may begin would search it for words that doubt the value."""
    assert loads_nearly(form.format("a" * 499)) == [1, 2]
    with pytest.raises(Odd):
        loads_nearly(form.format("a" * 2_001))


@pytest.mark.parametrize("adapter", [CHAT, JSON], ids=["chat", "json"])
@pytest.mark.parametrize("piece", ["{}", "[] ", '{"y": 1}\n', "[[1]] "])
def test_very_many_values_are_not_tried_one_by_one(piece: str, adapter: Adapter, monkeypatch: Any) -> None:
    tried: list[str] = []
    check = Field.validate_json

    def counted(field: Field, text: str) -> Any:
        tried.append(text)
        return check(field, text)

    monkeypatch.setattr(Field, "validate_json", counted)
    for kind in (Item, list[int], dict[str, int]):
        assert read(kind, piece * 20_000, adapter) is AGAIN
    assert len(tried) < 10


@pytest.mark.parametrize("adapter", [CHAT, JSON], ids=["chat", "json"])
def test_a_long_list_is_refused_for_its_first_items(adapter: Adapter, monkeypatch: Any) -> None:
    sizes: list[int] = []
    check = Field.validate_json

    def counted(field: Field, text: str) -> Any:
        sizes.append(len(json.loads(text)))
        return check(field, text)

    monkeypatch.setattr(Field, "validate_json", counted)
    assert read(list[Item], f"[{'{},' * 30_000}{{}}]", adapter) is AGAIN
    assert max(sizes) == 100
    assert len(sizes) == 1
    assert read(list[str], json.dumps(["a"] * 300), adapter) == ["a"] * 300
    assert read(list[int] | list[str], json.dumps(["a"] * 300), adapter) == ["a"] * 300
    assert read(Annotated[list[int], pydantic.Field(min_length=200)], json.dumps([1] * 300), adapter) == [1] * 300
    assert read(list[int], json.dumps([1] * 300 + ["a"]), adapter) is AGAIN


def test_patterns_of_markers_match_what_they_matched() -> None:
    form = ChatFormat(signature(str))
    assert form._sections("[[  ##  x  ##  ]]\nParis") == {"x": "Paris"}
    assert form._loose_markers("**[[x ]]** Paris") == {"x": "Paris"}
    assert form._loose_markers("## x ##\nParis") == {}
    assert form._loose_markers("**x** \nParis") == {"x": "Paris"}


@pytest.mark.parametrize("adapter", [CHAT, JSON])
@pytest.mark.parametrize(
    "frame",
    [
        "For example {} would be wrong.",
        "Do not answer {}",
        "Example: {}",
        "The format is\n```json\n{}\n```",
        "Not this:\n```json\n{}\n```",
        "{} is wrong",
        "{}\nThis is wrong.",
        "{}\n\nWait, that is not right.",
        "The wrong one: {}",
        "I cannot answer. The form would be {}",
    ],
)
def test_an_object_or_list_that_is_an_example_or_is_denied_is_no_answer(frame: str, adapter: Adapter) -> None:
    assert read(int, frame.format('{"x": 5}'), adapter) is AGAIN
    assert read(list[int], frame.format("[1, 2]"), adapter) is AGAIN
    two = Signature([Field("q"), Field("x", int, role="output"), Field("y", bool, role="output")])
    with pytest.raises(ParseError):
        adapter.parse(two, frame.format('{"x": 5, "y": true}'))


@pytest.mark.parametrize("adapter", [CHAT, JSON])
@pytest.mark.parametrize(
    "frame",
    [
        "Here you go: {}",
        "Sure! Here is the answer in the requested format:\n```json\n{}\n```\nLet me know if you need more.",
        "It is not 4.\n{}",
        'Given {{"q": "Capital?"}}, the answer is {}',
    ],
)
def test_words_that_only_frame_an_object_change_nothing(frame: str, adapter: Adapter) -> None:
    assert read(int, frame.format('{"x": 5}'), adapter) == 5


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (list[str], "I would not list:\n- a\n- b"),
        (list[str], "For example:\n1. a\n2. b"),
        (int, "10.000"),
        (int, "12.000 Einwohner"),
        (list[int], "[100.000]"),
        (int | None, "N/A. The value is 3."),
        (int | None, "n/a, 3"),
        (bool | None, "null, but yes"),
        (Literal["yes", "no"], "No. 5"),
        (Literal["A", "B"], "A.B"),
        (Literal["positive", "negative"], "Positive: false"),
    ],
)
def test_more_that_has_no_single_reading(annotation: Any, text: str) -> None:
    assert read(annotation, text) is AGAIN


def test_a_bound_decides_between_twelve_and_twelve_thousand() -> None:
    assert read(Annotated[int, pydantic.Field(le=100)], "12.000") == 12
    assert read(Annotated[int, pydantic.Field(ge=100)], "12.000") == 12_000


SECTIONS = "[[ ## x ## ]]\n{}\n\n[[ ## y ## ]]\nyes\n\n[[ ## completed ## ]]"


def read_two(reply: str) -> Any:
    two = Signature([Field("q"), Field("x", int, role="output"), Field("y", bool, role="output")])
    try:
        return CHAT.parse(two, reply)["x"]
    except ParseError:
        return AGAIN


def test_of_a_draft_and_a_final_version_in_sections_none_is_guessed() -> None:
    assert read_two(f"Draft:\n{SECTIONS.format(4)}\n\nFinal:\n{SECTIONS.format(5)}") is AGAIN
    assert read_two(f"{SECTIONS.format(4)}\n\n{SECTIONS.format(5)}") is AGAIN
    assert read_two(f"{SECTIONS.format(4)}\n\n{SECTIONS.format(4)}") == 4
    assert read_two(f"{SECTIONS.format(4)}\n\n[[ ## q ## ]]\nnext\n\n{SECTIONS.format(5)}") == 4  # it plays both sides


def test_sections_that_are_announced_as_an_example_are_none() -> None:
    assert read_two(f"For example:\n{SECTIONS.format(4)}") is AGAIN
    assert read_two("Not this:\nx: 4\ny: yes") is AGAIN
    assert read_two("A wrong draft:\n<x>4</x>\n<y>yes</y>") is AGAIN
    assert read_two(f"Here is the answer in the requested format:\n{SECTIONS.format(4)}") == 4
    assert read_two("Sure:\n**x**: 4\n**y**: yes") == 4


def test_a_reply_of_a_thousand_loose_markers_is_not_read() -> None:
    assert read_two("**x**: 4\n" * 10 + "**y**: yes") == 4
    assert read_two("**x**: 4\n" * 1_200 + "**y**: yes") is AGAIN
