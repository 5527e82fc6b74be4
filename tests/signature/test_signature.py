"""Signatures as classes and as values: fields, instruction, editing, equality."""

from __future__ import annotations

import copy
import pickle
from typing import Annotated, ClassVar, Literal, Optional

import pydantic
import pytest

from promptgrad.errors import SignatureError
from promptgrad.signature import Field, Input, Output, Signature


class Person(pydantic.BaseModel):
    name: str


class Extract(Signature):
    """Extract the people.

    Every one of them.
    """

    text: str = Input(desc="a letter")
    hint = Input()
    limit: Optional[int] = Input()  # noqa: UP045 - users write this
    people: list[Person] = Output(desc="in order", max_length=3)
    confidence: Annotated[float, pydantic.Field(le=1)] = Output(ge=0)
    tone: Literal["warm", "cold"] = Output()
    version: ClassVar[int] = 3


def test_a_class_with_string_annotations() -> None:
    sig = Extract()
    assert isinstance(sig, Signature)
    assert type(sig) is Signature
    assert sig.name == "Extract"
    assert sig.instruction == "Extract the people.\n\nEvery one of them."
    assert list(sig.inputs) == ["text", "hint", "limit"]
    assert list(sig.outputs) == ["people", "confidence", "tone"]
    assert sig.inputs["text"] == Field("text", str, "a letter")
    assert sig.inputs["hint"].annotation is str
    assert sig.inputs["limit"].annotation == Optional[int]  # noqa: UP045
    assert sig.outputs["people"].constraints == {"max_length": 3}
    assert sig.outputs["confidence"].json_schema() == {"type": "number", "maximum": 1, "minimum": 0}
    assert Extract.version == 3
    assert repr(sig) == (
        "text, hint, limit: int | None -> people: list[Person], confidence: float, tone: Literal['warm', 'cold']"
    )
    assert repr(Extract) == f"<signature Extract: {sig!r}>"


def test_the_class_answers_as_its_signature_does() -> None:
    assert Extract.inputs == Extract().inputs
    assert Extract.instruction == Extract().instruction
    assert Extract.with_instruction("x") == Extract().with_instruction("x")
    assert Extract(instruction="x") == Extract().with_instruction("x")
    assert Extract().equals(Extract)


def test_names_that_are_also_attributes_of_a_signature() -> None:
    class Critique(Signature):
        """Explain."""

        instruction: str = Input()
        inputs: dict[str, str] = Input()
        name: str = Input()
        append: str = Output()

    sig = Critique()
    assert sig.instruction == "Explain."
    assert list(sig.inputs) == ["instruction", "inputs", "name"]
    assert list(Critique.append("more").outputs) == ["append", "more"]


def test_a_local_type_is_passed() -> None:
    class Local(pydantic.BaseModel):
        x: int

    with pytest.raises(
        SignatureError, match=r"the type 'Local' is not a name of the module .*types=\{'Local': Local\}"
    ):

        class Bad(Signature):
            a: str = Input()
            b: list[Local] = Output()

    class Good(Signature, types={"Local": Local}):
        a: str = Input()
        b: list[Local] = Output()

    assert Good.outputs["b"].annotation == list[Local]


def test_inheritance() -> None:
    class Base(Signature):
        """Do it."""

        a: str = Input()
        b: str = Output()

    class More(Base):
        b: int = Output()
        c: str = Input()

    class Told(More):
        """Do it well."""

    assert repr(More()) == "a, c -> b: int"
    assert More.instruction == "Do it."
    assert Told.instruction == "Do it well."

    class Silent(Signature):
        a: str = Input()
        b: str = Output()

    class Longer(Silent):
        c: str = Output()

    assert Longer.instruction == "Given the fields `a`, produce the fields `b`, `c`."


def test_class_bodies_that_cannot_be_read() -> None:
    with pytest.raises(SignatureError, match="no output field"):

        class NoOutput(Signature):
            a: str = Input()

    with pytest.raises(SignatureError, match=r"b: is it an input or an output\?"):

        class NoRole(Signature):
            a: str = Input()
            b: str

    with pytest.raises(SignatureError, match="a field has no default"):

        class Default(Signature):
            a: str = "x"
            b: str = Output()

    with pytest.raises(SignatureError, match=r"is not a field; write Input\(\.\.\.\)"):

        class Plain(Signature):
            a = "x"
            b: str = Output()

    with pytest.raises(SignatureError, match="has its fields in its class body"):
        Extract("a -> b")


def test_editing_gives_new_signatures() -> None:
    sig = Signature("question -> answer", "Answer.")
    more = (
        sig.prepend("reasoning", Output(desc="step by step"))
        .append("hint", Input())
        .append(Field("n", int, role="output"))
    )
    assert repr(more) == "question, hint -> reasoning, answer, n: int"
    assert more.instruction == "Answer."
    assert repr(sig) == "question -> answer"
    assert repr(more.insert(1, "mid")) == "question, hint -> reasoning, mid, answer, n: int"
    assert repr(more.delete("hint").delete("n")) == "question -> reasoning, answer"
    assert sig.replace_field("answer", annotation=int).outputs["answer"].annotation is int
    with pytest.raises(SignatureError, match="'answer' appears twice"):
        sig.append("answer")
    with pytest.raises(SignatureError, match=r"no field 'anser' to delete; did you mean 'answer'"):
        sig.delete("anser")
    with pytest.raises(SignatureError, match="no output field"):
        sig.delete("answer")
    with pytest.raises(SignatureError, match=r"needs Input\(\.\.\.\) or Output\(\.\.\.\)"):
        sig.append("x", "an output")


def test_equality() -> None:
    sig = Signature("a -> b: int", "x")
    assert sig == Signature("a -> b: int", "x")
    assert sig != Signature("a -> b: float", "x")
    assert sig != sig.with_instruction("y")
    assert sig != sig.replace_field("b", description="d")
    assert sig != sig.with_name("Other")
    assert sig.equals(sig.with_name("Other"))
    assert sig != "a -> b: int"
    assert len({sig, Signature("a -> b: int", "x")}) == 1


def test_a_signature_is_a_frozen_value() -> None:
    sig = Extract()
    assert pickle.loads(pickle.dumps(sig)) == sig
    assert copy.deepcopy(sig) is sig
    with pytest.raises(AttributeError, match="frozen"):
        sig.instruction = "x"
    with pytest.raises(TypeError):
        sig.inputs["text"] = Field("text")  # type: ignore[index]


def test_slips_point_to_the_right_name() -> None:
    sig = Signature("a -> b")
    with pytest.raises(AttributeError, match="promptgrad spells it 'with_instruction'"):
        _ = sig.with_instructions
    with pytest.raises(AttributeError, match="promptgrad spells it 'inputs'"):
        _ = Extract.input_fields
    with pytest.raises(AttributeError, match="did you mean 'outputs'"):
        _ = sig.output
