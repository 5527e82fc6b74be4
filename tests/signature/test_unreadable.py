"""Types of outputs of which no reply could ever be read."""

import enum
from dataclasses import dataclass
from typing import Annotated, Literal

import pydantic
import pytest

from promptgrad import nn
from promptgrad.errors import SignatureError
from promptgrad.lm import FunctionLM
from promptgrad.signature import Signature


class Size(enum.Enum):
    SMALL = (1, 2)
    LARGE = (3, 4)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Rank(enum.IntEnum):
    ONE = 1


class Named(enum.Enum):
    SMALL = (1, 2)

    @classmethod
    def _missing_(cls, value):
        return cls.__members__.get(value)


@dataclass
class Box:
    size: Size


def by_name(value):
    return Size[value] if isinstance(value, str) else value


def signature(output, role="output"):
    text = "question -> a: X" if role == "output" else "a: X -> answer"
    return Signature(text, types={"X": output})


@pytest.mark.parametrize("kind", [Size, list[Size], Size | None, dict[str, Size], Box, list[Box]])
def test_an_enum_of_tuples_is_refused_where_it_is_declared(kind):
    with pytest.raises(SignatureError, match=r"'a': .* as a Size, whose member SMALL is a tuple: .*'SMALL', 'LARGE'"):
        signature(kind)


@pytest.mark.parametrize("kind", [Literal[Color.RED], list[Literal[Color.RED, "blue"]]])
def test_a_literal_of_a_member_is_refused_where_it_is_declared(kind):
    with pytest.raises(SignatureError, match=r"'a': .* as a Literal of Color.RED: write Color itself"):
        signature(kind)


@pytest.mark.parametrize(
    ("kind", "reply", "value"),
    [
        (Color, "red", Color.RED),
        (Rank, "1", Rank.ONE),
        (Literal[Rank.ONE], "1", Rank.ONE),
        (Named, '"SMALL"', Named.SMALL),
        (Annotated[Size, pydantic.BeforeValidator(by_name)], '"LARGE"', Size.LARGE),
    ],
)
def test_what_can_be_read_is_not_refused(kind, reply, value):
    lm = FunctionLM(lambda messages: f"[[ ## a ## ]]\n{reply}\n\n[[ ## completed ## ]]")
    assert nn.Predict(signature(kind), lm=lm)(question="?").a is value


def test_inputs_are_written_and_need_no_reader():
    assert signature(Size, "input").inputs["a"].dump_json(Size.SMALL) == "[1,2]"
