"""Replies with a value that nobody meant, which are asked again; and near them some that have a single reading.

Each line is one reply in its section; a ⏎ stands for a new line.
"""

from __future__ import annotations

import datetime
import enum
from typing import Any, Literal

import pydantic
import pytest

from promptgrad.adapters import ChatAdapter, JSONAdapter
from promptgrad.errors import ParseError
from promptgrad.lm import Completion, without_thinking
from promptgrad.signature import Field, Signature

Mood = Literal["positive", "negative", "neutral"]


class Level(enum.Enum):
    LOW = "low"
    MID = "medium"
    HIGH = "high"


class Person(pydantic.BaseModel):
    name: str
    age: int
    ok: bool = True


class Marked(pydantic.BaseModel):
    name: str
    okay: bool = True
    tags: list[str] = []
    kind: Literal["plain", "fancy"] = "fancy"
    tone: Mood | None = None


class Series(pydantic.BaseModel):
    runs: list[int]


class Open(pydantic.BaseModel, extra="allow"):
    name: str
    age: int = 0


def read(kind: Any, reply: str, adapter: Any = None) -> Any:
    """What a reply says to a question for one value of a type; the text "again" where it is asked again."""
    signature = Signature([Field("question", str, "", "input"), Field("answer", kind, "", "output")], "Answer.")
    try:
        return (adapter or ChatAdapter()).parse(signature, without_thinking(Completion(reply)))["answer"]
    except ParseError:
        return "again"


def section(text: str) -> str:
    return f"[[ ## answer ## ]]\n{text}\n\n[[ ## completed ## ]]"


NOT_MEANT: list[tuple[Any, str]] = [
    (
        int,
        r"""
The answer is option 3, i.e. 7.
7/10
Score: 7/10
12 (eleven)
I counted 12, but it might be 13.
12!
12²
V
IV
2024-12
12:00
12°C (54°F)
54°F (12°C)
5 km (3.1 miles)
12 → rounded to 10
rounded: 10, exact: 12
5 (placeholder)
TODO: 5
TBD (5?)
e.g. 5
for example, 5
e.g., 5
such as 5
something like 5
probably 5
5?
5 (guess)
5 minus 1
5 plus 1
5 times
twice 5
half of 5
5 squared
5 and a half
5 score
5 grand
5万5千
五
5 mil euros
5 millares
$5 refund
""",
    ),
    (
        float,
        r"""
5 km (3.1 miles)
3.1 miles (5 km)
3.14159...
3.1(4)
1.(3)
0.1̅
1.5 ± 0.2
p < 0.05
1.5 MM
1.5 bps
15 bp
150%
1;5
1·5
1⸱5
１.５
۱٫۵
- 1.5
loss of 1.5
down 1.5
1.5 DR
1.5 CR
(1.5)
1.5 (loss)
1.5 deficit
net outflow: 1.5
""",
    ),
    (
        bool,
        r"""
Correct.
Affirmative
yes → no
False positive
True negative
false (true only if x > 0)
True if x>0
True unless x
Partially true
mostly false
half true
True, false, true
!true
¬true
true && false
NOT TRUE
isn't true
No... well, yes.
Yes (sarcasm)
Sí
はい
没错
No (I mean yes)
#t
No, it is.
No, they do
No, yeah
Unlikely to be true
The opposite is true.
It may be true
It claims to be true
Nothing is true
Only half is true
Some of it is true
At first sight it is true
It is said to be true
true (0.3)
yes (20%)
""",
    ),
    (
        Mood,
        r"""
positive/neutral
not negative
neutral-to-positive
slightly positive
positive (0.6), negative (0.3)
positive: 0.2⏎negative: 0.7⏎neutral: 0.1
It's neither positive nor negative.
neither positive nor negative, so neutral
non-negative
anything but positive
far from positive
the opposite of positive
positive?
pos
0
un-positive
positively
false positive
- positive⏎- neutral
~~positive~~ negative
positive ≠ negative
negative → positive
negative, later positive
I'd rule out positive.
positive is wrong
positive, not
positive is not the label
Definitely not: positive
label != positive
else: positive
positive (0.2)
positive, tentatively
positive, I guess
It can be positive
Had it been shorter: positive
default: positive
""",
    ),
    (
        Level,
        r"""
Level.HIGHEST
medium-high
low to medium
HIGH/LOW
Not high
Higher
high.low
""",
    ),
    (
        list[int],
        r"""
[1, 2, 3, etc.]
[1..3]
[1-3]
[1, 2] ∪ [3]
[1, 2] and [3]
[1, 2, 3].sort()
sorted([3,1])
range(1,4)
[x for x in (1,2)]
[1, 2, null]
[1, 2, NaN]
[1, 2.5]
[1 2 3]
[1; 2; 3]
[1,2,3]⏎⏎Removed: [4]
before: [1]⏎after: [2]
Input: [1]⏎Output: [2]
not [1, 2]
[1, 2] reversed
[1, 2] (reverse order)
[1, 2] without 2
[1, 2] minus [2]
[1, 2, 3] except 3
all but [1]
[1, 2] plus 3
10 | 20
- 10 (skip)⏎- 20
- ~~10~~⏎- 20
- not 10⏎- 20
- 10⏎- 20⏎⏎Total: 30
- 10⏎- 20⏎- Total: 30
- 10⏎- 20⏎= 30
[10, 20, total=30]
[0x10]
[1] [2]
[1]⏎⏎[2]
Sources:⏎- 1⏎- 2
Steps:⏎1. 5⏎2. 6
""",
    ),
    (
        list[str],
        r"""
None found
- None
- n/a
[] or ["a"]
["a", "b", "..."]
["a", "b", "etc."]
["a", "and 3 more"]
- a:⏎  - b
["a"; "b"]
("a", "b")
{"a", "b"}
"a", "b"
['a', 'b' or 'c']
["a" + "b"]
[f"a{x}"]
[r"a\n"]
[b"a"]
["a", ["b"]]
["a", {"b":1}]
["a", null]
["a", true]
items = ["a"]⏎items.append("b")
x = ["a"]⏎x += ["b"]
["a"].concat(["b"])
del ["a"]
- a⏎+ b
-a⏎+b
a⏎b
a; b
a and b
Candidates:⏎- a⏎- b⏎Chosen:⏎- a
Pros:⏎- a⏎Cons:⏎- b
My thoughts:⏎- a⏎- b
""",
    ),
    (
        dict[str, int],
        r"""
{"a": 1}⏎{"a": 2}
{"a": 1, ...}
{"a": "1 (was 2)"}
{"a": 1.5}
{a=1}
a=1
{"a": 1 /* or 2 */}
{"a": 1} | {"b": 2}
dict(a=1)
{"a": true}
""",
    ),
    (
        Person,
        r"""
{"name": "A", "age": "30 or 31"}
{"name": "A", "age": 30, "ok": "no doubt"}
{"name": "A", "age": 30, "is_ok": false}
{"name": "A", "age": 30, "ok": null}
{"name": "A", "Name": "B", "age": 30}
{"name": "A", "age": 30, "age_corrected": 31}
{"name": "A", "age": 30, "new_age": 31}
{"name": "A", "age": 30, "note": "age should be 31"}
{"old": {"name": "A", "age": 30}, "new": {"name": "B", "age": 31}}
{"name": "A", "age": 30}, {"name": "B", "age": 31}
```json⏎{"name": "A", "age": 30}⏎```⏎```json⏎{"name": "B", "age": 31}⏎```
Example: {"name": "A", "age": 30}
e.g. {"name": "A", "age": 30}
Not {"name": "A", "age": 30}
The wrong output would be {"name": "A", "age": 30}
{"name": "A", "age": 30} is invalid
Schema: {"name": "string", "age": 0}
{"properties": {"name": {"type": "string"}}}
""",
    ),
    (
        datetime.date,
        r"""
2024-13-01
24-03-05
5 March
2024-03-05 or 06
2024-03-05/2024-03-07
before 2024-03-05
after 2024-03-05
by 2024-03-05
since 2024-03-05
until 2024-03-05
2024-03-05 (postponed from 2024-03-01)
not 2024-03-05
the day after 2024-03-05
2024-03-05 + 1 day
05.03.2024
circa 2024-03-05
2024-03-05 BC
2024-03-05 (Julian)
1445-08-24 AH
""",
    ),
    (
        datetime.time,
        r"""
5 pm
17:00 UTC
17h
24:00
before 17:00
around 17:00
""",
    ),
]

MEANT: list[tuple[Any, str, Any]] = [
    (int, "= 14", 14),
    (int, "x = 14", 14),
    (int, "12 (twelve)", 12),
    (int, "5 hundred", 500),
    (int, "5 lakh", 500000),
    (int, "5 crore", 50000000),
    (int, "5 Mio.", 5000000),
    (int, "5 Mrd", 5000000000),
    (int, "5千", 5000),
    (int, "5억", 500000000),
    (int, "5 тыс", 5000),
    (int, "5 Tausend", 5000),
    (float, "2.5e-3", 0.0025),
    (float, "2.5 x 10^-3", 0.0025),
    (float, "2.5×10⁻³", 0.0025),
    (float, "2.5E+03", 2500.0),
    (float, "p = 0.05", 0.05),
    (float, "$1.5M USD", 1500000.0),
    (float, "USD 1.5m", 1500000.0),
    (float, "1.5 mm", 1.5),
    (float, "1.5 mn", 1500000.0),
    (float, "1,5", 1.5),
    (float, "−1.5", -1.5),
    (float, "﹣1.5", -1.5),
    (float, "－1.5", -1.5),
    (float, "‑1.5", -1.5),
    (str, "<!-- Lyon -->Paris", "<!-- Lyon -->Paris"),
    (list[int], "[1, '2', 3]", [1, 2, 3]),
    (list[int], "[-1, +2]", [-1, 2]),
    (list[int], "1) 10\n2) 20", [10, 20]),
    (list[int], "• 10\n• 20", [10, 20]),
    (list[int], "[10%, 20%]", [10, 20]),
    (list[int], "[1e2, 2]", [100, 2]),
    (list[int], "[010]", [10]),
    (list[str], "[]  # none", []),
    (list[str], "- a, b\n- c", ["a, b", "c"]),
    (list[str], "- a\n\n- b", ["a", "b"]),
    (list[str], '- "a"\n- "b"', ["a", "b"]),
    (list[str], "[a, b]", ["a", "b"]),
    (list[str], "[«a», «b»]", ["a", "b"]),
    (list[str], "[「a」, 「b」]", ["a", "b"]),
    (list[str], '["a", "b"] // c excluded', ["a", "b"]),
    (list[str], "- [ ] a\n- [x] b", ["[ ] a", "[x] b"]),
    (dict[str, int], '{"a": 1, b: 2}', {"a": 1, "b": 2}),
    (dict[str, int], '{"a": 1e2}', {"a": 100}),
    (dict[str, int], '{"a": 01}', {"a": 1}),
    (dict[str, int], '{"a": 1, "A": 2}', {"a": 1, "A": 2}),
    (dict[str, int], '{"a": 1, "a ": 2}', {"a": 1, "a ": 2}),
    (dict[str, int], '{"a": +1}', {"a": 1}),
    (dict[str, int], '{"a": -1}', {"a": -1}),
    (dict[str, int], '{"a": "−1"}', {"a": -1}),
    (dict[str, int], '{"a": "1k"}', {"a": 1000}),
    (Person, '{"name": "A", "age": 30, "ok": "n"}', Person(name="A", age=30, ok=False)),
    (Person, '{"name": "A", "age": 30, "OK": false}', Person(name="A", age=30, ok=False)),
    (Person, '{"name": "A", "age": 30, "ok ": false}', Person(name="A", age=30, ok=False)),
    (Person, '{"name": "string", "age": 0}', Person(name="string", age=0, ok=True)),
    (Person, '{"name": "...", "age": 30}', Person(name="...", age=30, ok=True)),
    (Person, '{"name": "<name>", "age": 30}', Person(name="<name>", age=30, ok=True)),
]

BELOW = r"""
P.S. should be 6
EDIT: 6
Erratum: 6
(6 upon reflection)
scratch that
On second thought, no.
I made an arithmetic slip above.
Ignore the above.
Disregard this; recomputing.
That's off by one.
The previous value is a placeholder.
"""


@pytest.mark.parametrize(("kind", "replies"), NOT_MEANT, ids=lambda value: getattr(value, "__name__", None))
def test_what_nobody_meant_is_asked_again(kind: Any, replies: str) -> None:
    lines = [line.replace("⏎", "\n") for line in replies.strip("\n").split("\n")]
    found = {line: read(kind, section(line)) for line in lines}
    assert {line: value for line, value in found.items() if value != "again"} == {}


@pytest.mark.parametrize(("kind", "reply", "value"), MEANT)
def test_what_has_a_single_reading_is_read(kind: Any, reply: str, value: Any) -> None:
    found = read(kind, section(reply))
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("said", BELOW.strip().split("\n"))
def test_words_below_the_end_take_a_value_back(said: str) -> None:
    reply = "[[ ## answer ## ]]\n5\n\n[[ ## completed ## ]]\n" + said.replace("⏎", "\n")
    assert read(int, reply) == "again"


@pytest.mark.parametrize(
    "name", ["answer_checked", "answer (recomputed)", "fixed answer", "verified_answer", "new answer"]
)
def test_another_version_under_another_name_is_asked_again(name: str) -> None:
    assert read(int, f"[[ ## answer ## ]]\n5\n\n[[ ## {name} ## ]]\n6\n\n[[ ## completed ## ]]") == "again"
    assert read(int, f'{{"answer": 5, "{name}": 6}}', JSONAdapter()) == "again"
    assert read(int, f'{{"answer": 5, "{name}": true}}', JSONAdapter()) == 5  # whether it was


@pytest.mark.parametrize(
    "key", ["age_corrected", "new_age", "age_checked", "corrected_age", "age_v2", "is_ok", "ok_flag", "person_ok"]
)
def test_a_key_that_may_stand_for_a_field_is_asked_again(key: str) -> None:
    """Also within lists and objects: the default of a field is not what the model said."""
    reply = f'{{"name": "A", "age": 30, "{key}": 31}}'
    assert read(Person, section(reply)) == "again"
    assert read(list[Person], section(f"[{reply}]")) == "again"
    assert read(dict[str, Person], section(f'{{"a": {reply}}}')) == "again"


@pytest.mark.parametrize(
    "other",
    [
        '"valid": false',
        '"rejected": true',
        '"is_valid": "yes"',
        '"status": "not okay"',
        '"labels": ["a"]',
        '"sort": "plain"',
        '"mood": "Negative"',
        '"tgs": 0',
    ],
)
def test_a_key_whose_value_may_be_that_of_a_missing_field_is_asked_again(other: str) -> None:
    """The default of a field is no answer where the model said something of its kind under another name."""
    reply = f'{{"name": "A", {other}}}'
    assert read(Marked, section(reply)) == "again"
    assert read(list[Marked], section(f"[{reply}]")) == "again"
    whole = '"okay": true, "tags": [], "kind": "fancy", "tone": "neutral"'
    assert read(Marked, section(f'{{"name": "A", {whole}, {other}}}')).okay is True


def test_what_stands_beside_answers_and_texts_are_no_missing_field() -> None:
    beside = '"note": "plain", "sources": ["a"], "count": 3, "name_checked": true, "remark": "it is so"'
    assert read(Marked, section(f'{{"name": "A", {beside}}}')) == Marked(name="A")


@pytest.mark.parametrize(("other", "found"), [("2", "again"), ("[1]", [1]), ("1", [1])])
def test_another_item_of_a_list_under_its_singular_is_asked_again(other: str, found: Any) -> None:
    value = read(Series, section(f'{{"runs": [1], "run": {other}}}'))
    assert (value if value == "again" else value.runs) == found


def test_the_own_name_of_a_list_may_stand_above_it() -> None:
    for name in ("steps", "sources", "next_steps"):
        signature = Signature([Field("question", str, "", "input"), Field(name, list[str], "", "output")], "Answer.")
        reply = f"[[ ## {name} ## ]]\nThe {name.rpartition('_')[2]}:\n- a\n- b\n\n[[ ## completed ## ]]"
        assert ChatAdapter().parse(signature, reply) == {name: ["a", "b"]}


def test_twelve_thousand_in_places_of_three_is_no_twelve_for_an_optional_number() -> None:
    for kind in (int, int | None, int | bool):
        assert read(kind, section("12.000")) == "again"
    assert read(int | None, section("12.0")) == 12
    assert read(float | None, section("12.000")) == 12.0


def test_other_keys_beside_those_of_a_model_are_left_out() -> None:
    reply = '{"name": "A", "age": 30, "nickname": "B", "note": "checked twice", "age_checked": true}'
    assert read(Person, section(reply)) == Person(name="A", age=30)
    assert read(Person, section('{"name": "A", "age": 30, "ok": false, "is_ok_with_it": true}')).ok is False
    kept = read(Open, section('{"name": "A", "new_age": 31}'))
    assert (kept.age, kept.model_extra) == (0, {"new_age": 31})


class Aliased(pydantic.BaseModel, populate_by_name=True):
    person_name: str = pydantic.Field("nobody", alias="name")


class Chosen(pydantic.BaseModel):
    name: str = pydantic.Field("nobody", validation_alias=pydantic.AliasChoices("name", "user_name"))


@pytest.mark.parametrize(
    "no",
    [
        "değil",
        "degil",
        "yok",
        "nem",
        "tidak",
        "bukan",
        "nicht",
        "nie",
        "nej",
        "inte",
        "não",
        "deyil",
        "emas",
        "nahi",
        "janai",
    ],
)
def test_no_in_another_language_behind_a_number_is_asked_again(no: str) -> None:
    assert read(int, section(f"5 {no}")) == "again"


def test_an_object_and_sections_that_differ_are_asked_again() -> None:
    signature = Signature("question -> reasoning, answer: int")
    differ = '{"reasoning": "a", "answer": 4}\n[[ ## answer ## ]]\n5\n\n[[ ## completed ## ]]'
    with pytest.raises(ParseError, match="different values of a field"):
        ChatAdapter().parse(signature, differ)
    for agree in (differ.replace("4", "5"), '[[ ## answer ## ]]\n{"reasoning": "a", "answer": 5}'):
        assert ChatAdapter().parse(signature, agree) == {"reasoning": "a", "answer": 5}


@pytest.mark.parametrize("said", ["// or 31", "/* or 31 */", "\n// or 31", "// not sure", "# maybe 31\n"])
def test_a_comment_behind_an_object_that_may_change_it_is_asked_again(said: str) -> None:
    assert read(Person, section(f'{{"name": "Ann", "age": 30}} {said}')) == "again"
    assert read(Person, section('{"name": "Ann", "age": 30} // in years')) == Person(name="Ann", age=30)


@pytest.mark.parametrize("key", ["isOk", "okNow", "IsOK", "is_ok"])
def test_a_key_in_camel_case_that_may_stand_for_a_field_is_asked_again(key: str) -> None:
    assert read(Person, section(f'{{"name": "Ann", "age": 30, "{key}": false}}')) == "again"


def test_a_key_that_is_another_name_of_a_field_is_it() -> None:
    assert read(Aliased, section('{"person_name": "A"}')).person_name == "A"
    assert read(Aliased, section('{"name": "A"}')).person_name == "A"
    assert read(Chosen, section('{"user_name": "A"}')).name == "A"


def test_an_answer_is_no_version_of_the_fields_of_a_model() -> None:
    assert read(Person, section('{"name": "A", "age": 30, "final_answer": "B", "new version": 2}')).name == "A"
    assert read(Person, section('{"name": "A", "age": 30, "correction": "the age is 31"}')) == "again"
