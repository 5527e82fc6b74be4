"""Types whose description is more than their name."""

import enum
from typing import Annotated, Literal

import pydantic
import pytest

from promptgrad.adapters import ChatAdapter, JSONAdapter
from promptgrad.adapters._read import in_fence
from promptgrad.adapters._values import choices, writer
from promptgrad.adapters._words import spellings
from promptgrad.signature import Field, Signature


class Tone(enum.Enum):
    GLAD = "glad"
    SAD = "sad"


@pytest.mark.parametrize("adapter", [ChatAdapter(), JSONAdapter()], ids=["chat", "json"])
def test_an_annotated_choice_is_told_as_the_choice(adapter):
    bare, told = (
        Signature([Field("text"), Field("tone", kind, "", "output")], "Tell the tone.")
        for kind in (Literal["glad", "sad"], Annotated[Literal["glad", "sad"], "mood"])
    )
    first, second = (adapter.compile(one, None, ()) for one in (bare, told))
    assert [message.text for message in first.prefix.messages] == [message.text for message in second.prefix.messages]


@pytest.mark.parametrize(
    ("annotation", "value"), [(Annotated[Literal["glad", "sad"], "mood"], "sad"), (Tone, Tone.SAD)]
)
def test_a_choice_is_written_by_its_text(annotation, value):
    field = Field("tone", annotation, "", "output")
    assert list(choices(field)) == ["glad", "sad"]
    assert writer(field)(value) == "sad"


@pytest.mark.parametrize("made", ["JSONAdapter()", "JSONAdapter('object')"])
def test_an_adapter_is_shown_as_it_was_made(made):
    assert repr(JSONAdapter(*(["object"] if "object" in made else []))) == made


def test_what_json_writes_otherwise_than_python_is_spelled_as_in_json():
    assert spellings(Literal[True, None, 3, "maybe"]) == {"true": True, "null": None, "3": 3, "maybe": "maybe"}


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("```\na\n```", "a"),
        ("```json\na\n```", "a"),
        ("```\na\n```\nand\n```\nb\n```", None),
        ("```\na\n```\nand more", None),
        ("So:\n```\na\n```", None),
        ("``````", None),
        ("```", None),
        ("", None),
    ],
)
def test_a_fence_is_taken_off_where_it_is_around_the_whole(text, inside):
    assert in_fence(text) == (text if inside is None else inside)


def test_a_schema_is_told_in_the_letters_of_its_descriptions():
    class Board(pydantic.BaseModel):
        length: float = pydantic.Field(description="Länge in 米")

    told = ChatAdapter().compile(Signature([Field("text"), Field("board", Board, "", "output")], "Measure."), None, ())
    assert "Länge in 米" in told.prefix.messages[0].text
