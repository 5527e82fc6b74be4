"""Signatures written as text: what is read, what is refused and how, and that nothing is evaluated."""

# ruff: noqa: UP006, UP007, UP035, UP045 - every spelling that users write

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any, Dict, List, Literal, Optional, Tuple, Union

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptgrad.errors import SignatureError
from promptgrad.signature import Signature, make_signature, parse_type, type_name


def types_of(text: str, **types: Any) -> dict[str, Any]:
    return {name: field.annotation for name, field in Signature.parse(text, types=types).fields.items()}


def test_names_types_and_roles() -> None:
    sig = Signature.parse("question, context: list[str] -> answer: float")
    assert list(sig.fields) == ["question", "context", "answer"]
    assert list(sig.inputs) == ["question", "context"]
    assert list(sig.outputs) == ["answer"]
    assert [f.annotation for f in sig.fields.values()] == [str, list[str], float]
    assert repr(sig) == "question, context: list[str] -> answer: float"
    assert sig.instruction == "Given the fields `question`, `context`, produce the fields `answer`."


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("str", str),
        ("list[dict[str, list[int]]]", list[dict[str, list[int]]]),
        ("Literal['a', \"it's\", -3, True, None]", Literal["a", "it's", -3, True, None]),
        ("Literal['a -> b, c: [']", Literal["a -> b, c: ["]),
        ("Literal['a\\n\\u00e9']", Literal["a\né"]),
        ("Optional[int]", Optional[int]),
        ("int | None", Optional[int]),
        ("Union[int, str]", Union[int, str]),
        ("(int | str)", Union[int, str]),
        ("list[int | None] | dict[str, bool]", Union[list[Optional[int]], dict[str, bool]]),
        ("tuple[int, ...]", tuple[int, ...]),
        ("tuple[int, str]", tuple[int, str]),
        ("List[int]", List[int]),
        ("typing.Dict[str, int]", Dict[str, int]),
        ("Tuple[int, ...]", Tuple[int, ...]),
        ("List", list),
        ("Any", Any),
        ("None", type(None)),
        ("  dict [ str ,\n int, ]  ", dict[str, int]),
    ],
)
def test_types(text: str, wanted: Any) -> None:
    assert parse_type(text) == wanted
    assert types_of(f"a: {text} -> b: {text}") == {"a": wanted, "b": wanted}


def test_types_of_the_caller_come_first() -> None:
    class Person:
        pass

    class Box(List[int]):
        pass

    assert types_of("a: list[Box] -> b: dict[str, int]", Box=int, dict=Dict) == {"a": list[int], "b": Dict[str, int]}
    with pytest.raises(SignatureError, match="pydantic cannot check type Person"):
        types_of("a -> b: Person", Person=Person)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["it is empty", "Write it as"]),
        ("a, b", ["no '->'"]),
        ("a ->", ["no output field after '->'"]),
        ("a -> b -> c", ["a second '->'"]),
        ("a b -> c", ["expected ',' or '->' after 'a', got 'b'", "column 3"]),
        ("a,, b -> c", ["expected a field name, got ','"]),
        ("a, a -> b", ["'a' appears twice", "column 4"]),
        ("a -> a", ["'a' appears twice"]),
        (
            "a -> b: flaot",
            ["unknown type 'flaot' (column 9)", "        ^^^^^", "did you mean 'float'?", "types={'flaot': flaot}"],
        ),
        ("a -> b: os.PathLike", ["unknown type 'os.PathLike'", "types={'PathLike': os.PathLike}"]),
        ("a -> b: print", ["unknown type 'print'"]),
        ("a -> b: list[str", ["expected ']' to close '[', got the end"]),
        ("a -> b: (int", ["expected ')' to close '('"]),
        ("a = 'x' -> b", ["a field has no default", "`a: str | None`"]),
        ("a -> b: int = 3", ["a field has no default"]),
        ("a -> b: dict[str]", ["dict takes 2 arguments, got 1"]),
        ("a -> b: Optional[int, str]", ["Optional takes 1 argument, got 2"]),
        ("a -> b: Optional", ["Optional needs arguments"]),
        ("a -> b: Literal", ["Literal needs arguments"]),
        ("a -> b: Literal[yes]", ["a Literal holds values, not names: yes", "Literal['yes']"]),
        ("a -> b: Literal[1.5]", ["only whole numbers"]),
        ("a -> b: int[str]", ["int takes no arguments in brackets"]),
        ("a -> b: list[...]", ["'...' has a meaning only in tuple[X, ...]"]),
        ("a -> b: 'str", ["a string is not closed"]),
        ("a: -> b", ["expected a type, got '->'"]),
        ("a; b -> c", ["';' has no meaning in a signature"]),
        ("class -> b", ["'class' is a Python keyword", "'class_text'"]),
        ("_a -> b", ["starts with an underscore"]),
        ("a.b -> c", ["a field name has no dots"]),
        ("a -> b: __import__('os')", ["unknown type '__import__'"]),
        ("a -> b: " + "list[" * 5000 + "int" + "]" * 5000, ["nested more than 40 deep"]),
        ("a\n-> b:\n flot", ["unknown type 'flot' (column 2)", "\n   flot\n   ^^^^"]),
    ],
)
def test_refusals_say_where_and_what_to_write(text: str, words: list[str]) -> None:
    with pytest.raises(SignatureError) as caught:
        Signature.parse(text)
    for word in words:
        assert word in str(caught.value)


def test_a_local_name_of_the_caller_is_not_found() -> None:
    Person = dict  # noqa: F841
    with pytest.raises(SignatureError, match="unknown type 'Person'"):
        Signature.parse("a -> b: Person")


names = st.sampled_from(["text", "question", "x1", "größe", "inputs", "name", "append"])
atoms = st.sampled_from([str, int, float, bool, bytes, Any, type(None), dict, list]) | st.lists(
    st.text(max_size=5) | st.integers(-9, 9) | st.booleans() | st.none(), min_size=1, max_size=3
).map(lambda values: Literal[tuple(values)])
annotations = st.recursive(
    atoms,
    lambda inner: (
        inner.map(lambda t: list[t])
        | inner.map(lambda t: dict[str, t])
        | inner.map(lambda t: tuple[t, ...])
        | st.tuples(inner, inner).map(lambda t: tuple[t[0], t[1]])
        | st.lists(inner, min_size=1, max_size=3).map(lambda t: Union[tuple(t)])
    ),
    max_leaves=5,
)


@given(annotation=annotations)
@settings(max_examples=200, deadline=None)
def test_a_written_type_reads_back(annotation: Any) -> None:
    assert parse_type(type_name(annotation)) == annotation


@given(fields=st.lists(st.tuples(names, annotations), min_size=2, max_size=4, unique_by=lambda f: f[0]), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_signature_reads_back_from_its_repr(fields: list[tuple[str, Any]], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(fields) - 1))
    side = [", ".join(f"{name}: {type_name(t)}" for name, t in part) for part in (fields[:cut], fields[cut:])]
    sig = Signature.parse(" -> ".join(side), "do it")
    assert Signature.parse(repr(sig), "do it") == sig
    assert copy.deepcopy(sig) == sig
    assert pickle.loads(pickle.dumps(sig)) == sig
    assert hash(pickle.loads(pickle.dumps(sig))) == hash(sig)


@given(text=st.text(alphabet="ab,:->[]|()'\"=. \n1Literal", max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused_with_a_signature_error(text: str) -> None:
    try:
        sig = Signature.parse(text)
    except SignatureError:
        return
    assert Signature.parse(repr(sig), sig.instruction) == sig


def test_text_signatures_do_not_import_pydantic() -> None:
    program = (
        "import sys; from promptgrad.signature import Signature;"
        "s = Signature('a, b: list[str] -> c: float, d');"
        "s.inputs['a'].validate('x'); s.outputs['d'].json_schema(); s.append('e');"
        "print(sorted(m for m in ('pydantic', 'aiohttp', 'asyncio', 'torch') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.strip() == "[]"


def test_make_signature_takes_text_class_and_instance() -> None:
    class QA(Signature):
        """Answer."""

        question: str = __import__("promptgrad").signature.Input()
        answer: str = __import__("promptgrad").signature.Output()

    sig = make_signature("question -> answer", "Answer.", name="QA")
    assert make_signature(QA) == sig
    assert make_signature(sig) is sig
    assert make_signature(QA, "Other.").instruction == "Other."
    with pytest.raises(SignatureError, match="a signature is a text such as 'question -> answer'"):
        make_signature(3)  # type: ignore[arg-type]


def test_any_number_of_fields_may_have_types():
    fields = ", ".join(f"f{number}: list[int]" for number in range(60))
    assert len(Signature(f"{fields} -> answer: float").fields) == 61
