"""Conversations: what a turn may be, how a history is kept and shown."""

import dataclasses
import datetime
import enum
import json
import pickle
from decimal import Decimal
from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptgrad import nn
from promptgrad.autograd import Text
from promptgrad.content import Audio, Citation, Document, History, Image, Turn, restored
from promptgrad.data import Example
from promptgrad.errors import SignatureError
from promptgrad.lm import Completion, Message, ReasoningPart, TextPart, ToolCall
from promptgrad.run import value_digest
from promptgrad.signature import Field, Signature
from tests.made_files import png, wav

CAT = Image(png())


class Mood(enum.Enum):
    GOOD = "good"


@dataclasses.dataclass
class Row:
    name: str
    when: datetime.date


class Card(pydantic.BaseModel):
    picture: Image
    price: Decimal


TYPED: list[tuple[Any, Any]] = [
    (list[Document], [Document("It is green.", "Grass")]),
    (list[Citation], [Citation(1, "green")]),
    (datetime.date, datetime.date(2024, 2, 29)),
    (datetime.timedelta, datetime.timedelta(1, 2)),
    (Mood, Mood.GOOD),
    (Decimal, Decimal("1.50")),
    (set[str], {"b", "a"}),
    (tuple[int, str], (1, "a")),
    (dict[int, list[Row]], {1: [Row("a", datetime.date(2024, 1, 1))]}),
    (Card, Card(picture=CAT, price=Decimal("0.10"))),
    (list[ToolCall], [ToolCall("1", "look", "{}")]),
]
WORDS = st.text(max_size=8)
SPOKEN = st.tuples(
    st.sampled_from(["user", "assistant"]),
    WORDS | st.lists(WORDS | st.sampled_from([CAT, Audio(wav())]), min_size=1, max_size=3).map(tuple),
)
NAMES = st.sampled_from(["question", "answer", "picture", "notes"])
VALUES = (
    WORDS
    | st.sampled_from([value for _, value in TYPED])
    | st.integers()
    | st.lists(WORDS, max_size=2)
    | st.just(CAT)
    | st.none()
)
HISTORIES = st.builds(
    History,
    st.lists(SPOKEN | st.dictionaries(NAMES, VALUES, min_size=1), max_size=5),
    st.none() | st.integers(1, 9),
)


@settings(max_examples=40, deadline=None)
@given(HISTORIES)
def test_it_comes_back_from_json_and_pickle(history):
    assert restored(json.loads(json.dumps(history.dump()))) == history
    assert pickle.loads(pickle.dumps(history)) == history
    assert History.of(history) is history


@settings(max_examples=40, deadline=None)
@given(HISTORIES, HISTORIES)
def test_equal_content_is_an_equal_digest(one, other):
    assert (value_digest(one) == value_digest(other)) == (one == other)
    assert one != other or hash(one) == hash(other)


@pytest.mark.parametrize(("kind", "value"), TYPED, ids=[str(kind)[:30] for kind, _ in TYPED])
def test_an_exchange_of_any_types_is_saved_and_asks_the_same(kind, value):
    fields = [Field("history", History), Field("q"), Field("given", kind), Field("answer", str, role="output")]
    program, other = (nn.Predict(Signature(fields, "Go on.")) for _ in "ab")
    history = History().add(q="a", given=value, answer="b")
    program.demos.data = [Example(history=history, q="c", given=value, answer="d")]
    other.load_state_dict(json.loads(json.dumps(program.state_dict())))
    back = History.of(json.loads(json.dumps(history.dump())))
    wanted = program.request(history=history, q="e", given=value)
    assert other.request(history=back, q="e", given=value).digest() == wanted.digest()


def test_what_has_no_form_in_json_is_told_when_it_is_saved():
    with pytest.raises(ValueError, match="a turn of the history holds a object, which has no JSON form"):
        History().add(q=object(), answer="b").dump()


def test_the_thoughts_of_a_message_are_not_said():
    thought = Completion((ReasoningPart("hm"), TextPart("Hello"))).message
    assert History([("user", "Hi"), thought]) == History([("user", "Hi"), ("assistant", "Hello")])
    assert History([("user", ("see", Document("It is green.", "Grass")))])[0].content == ("see", "Grass\nIt is green.")


def test_turns_are_written_in_many_ways():
    wanted = (Turn("user", "Hi"), Turn("assistant", "Hello"))
    for given_turns in (
        [("user", "Hi"), ("assistant", "Hello")],
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
        [Message("user", "Hi"), Message("assistant", "Hello")],
        History([("user", "Hi")]).add(("assistant", "Hello")),
    ):
        assert History(given_turns).turns == wanted
    exchange = {"question": "Hi", "answer": "Hello"}
    assert History([exchange]) == History([Example(exchange)]) == History().add(**exchange)
    assert History([("user", ("Look: ", CAT))])[0].content == ("Look: ", CAT)
    assert History([("user", CAT)])[0].content == (CAT,)


def test_it_is_a_sequence_that_does_not_change():
    history = History([("user", "a"), ("assistant", "b"), ("user", "c")], max_tokens=9)
    assert (len(history), history[-1].content, len(history[:2]), history[:2].max_tokens) == (3, "c", 2, 9)
    assert [turn.role for turn in history] == ["user", "assistant", "user"]
    longer = history.add(question="x")
    assert (len(history), len(longer), longer.max_tokens) == (3, 4, 9)
    with pytest.raises(AttributeError, match=r"history\.add"):
        history.turns = ()
    with pytest.raises(AttributeError, match="does not change"):
        del history.turns


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ("Hi", "a list of turns, not of one str"),
        ({"role": "user", "content": "Hi"}, "a list of turns, not of one dict"),
        ([("system", "Obey.")], "of the role 'user' or 'assistant', not 'system': only the program instructs"),
        ([{"role": "system", "content": "Obey."}], "only the program instructs"),
        ([7], "a turn is"),
        ([{}], "a turn is"),
        ([("user", "a", "b")], "a turn is"),
        ([("x", "y")] * 10_001, "of the role"),
        ([("user", "y")] * 10_001, "10000 turns at most"),
        ([("assistant", None)], "holds texts, images, sounds and files, not 'NoneType'"),
        ([("assistant", ("x", ToolCall("1", "f", "{}")))], "not 'tool_call'"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}],
            "not 'image_url': write",
        ),
    ],
)
def test_what_is_no_turn(turns, said):
    with pytest.raises(ValueError, match=said):
        History(turns)


def test_what_is_no_history():
    with pytest.raises(ValueError, match="not of a str"):
        History.of("Hi")
    with pytest.raises(ValueError, match="at least 1"):
        History(max_tokens=0)


def test_it_is_shown_in_short():
    history = History([("user", "a"), ("assistant", "b " * 99), {"question": "2+2", "picture": CAT}], 50)
    assert repr(history) == (
        "History(3 turns, max_tokens=50: ... assistant: 'b b b b b b b b b b b b b b b b b b b...'; "
        "question: '2+2', picture: Image(png, 64x48, 149 bytes))"
    )
    assert repr(History([("user", "a")])) == "History(1 turn: user: 'a')"


def test_texts_keep_their_graph():
    text = Text("Hello")
    assert History([("assistant", text)])[0].content is text
    assert History([{"answer": text}])[0].content["answer"] is text
    assert type(History([("assistant", text)]).dump()["turns"][0]["content"]) is str


@pytest.mark.parametrize("bound", ["10", 2.5, True])
def test_a_bound_that_is_no_whole_number_is_told(bound):
    with pytest.raises(ValueError, match=f"max_tokens of a History is a whole number, not {bound!r}"):
        History([("user", "Hi")], bound)


def test_an_empty_history_is_shown_as_one():
    assert repr(History()) == "History(0 turns)"
    assert repr(History(max_tokens=60)) == "History(0 turns, max_tokens=60)"


def test_names_of_dspy_get_what_to_write_here():
    with pytest.raises(TypeError, match=r"no argument 'messages': write History\(\["):
        History(messages=[{"question": "a"}])
    with pytest.raises(AttributeError, match=r"it has `turns`, and history = history\.add"):
        History().messages.append({})
    assert not hasattr(History(), "role")


@pytest.mark.parametrize(
    ("signature", "said"),
    [
        ("question -> talk: History", "the output 'talk' is a History, which no model writes"),
        ("question -> talks: list[History]", "the output 'talks' is a History"),
        ("first: History, other: History | None, question -> answer", "inputs 'first' and 'other' are conversations"),
    ],
)
def test_what_no_call_can_have_is_refused_when_it_is_made(signature, said):
    with pytest.raises(SignatureError, match=said):
        nn.Predict(signature)


def test_a_bound_keeps_the_last_turns_within_it():
    """Tokens were counted by the tokenizers of GPT-4o, Claude and DeepSeek: 9 and 12 for a turn, 13 for the note."""
    turns = [
        ("user", "Which of the rivers of Europe is the longest?"),
        ("assistant", "It is the Volga, with 3,530 km."),
    ]
    history = History([*turns * 40], 1_000)
    sent = nn.Predict("history: History, question -> answer").render(history=history, question="And then?")[1:-1]
    left = 80 - len(sent)  # the note is in one message with the first turn
    assert sent[0]["content"].startswith(f"(The first {left} turns of this conversation are left out.)")
    counted = 13 + len(sent) * (9 + 12) / 2 + 4 * len(sent)
    assert 600 < counted <= 1_000
