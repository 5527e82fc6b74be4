"""Code and reasoning: texts with a meaning."""

from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import promptgrad as pg
from promptgrad.content import Code, Language, Reasoning, Thinking, is_reasoning, language_of
from promptgrad.signature import Signature, parse_type

PYTHON = Language("python")
F = "def f():\n    return 1"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (F, F),
        (f"```python\n{F}\n```", F),
        (f"```\n{F}\n```", F),
        (f"```py\n{F}\n```", F),
        (f"Here it is:\n\n```python\n{F}\n```\n\nIt returns 1.", F),
        (f"~~~python\n{F}\n~~~", F),
        (f"````python\n'''```'''\n{F}\n````", f"'''```'''\n{F}"),
        (f"First:\n```bash\npip install x\n```\nthen\n```python\n{F}\n```", F),
        ("x = '```'", "x = '```'"),
        (f"```python\n{F}\n\n\n```", f"{F}\n\n"),
        ("```python\n```", ""),
    ],
)
def test_a_fence_is_taken_off(text, code):
    assert PYTHON.unwrap(text) == code


def test_several_blocks_are_no_code():
    with pytest.raises(ValueError, match="2 blocks of code: give one, without a fence"):
        PYTHON.unwrap("```python\na\n```\nor\n```python\nb\n```")


def test_fences_are_a_part_of_markdown():
    text = "# Title\n```python\nx\n```\nand\n```python\ny\n```"
    assert Language("markdown").unwrap(text) == text
    assert Language("markdown").unwrap("````markdown\n# A\n```\nx\n```\n````") == "# A\n```\nx\n```"


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab `\n#", max_size=30).filter(lambda code: "```" not in code and "~~~" not in code))
def test_code_comes_back_from_its_fence(code):
    assert PYTHON.unwrap(code) == code
    assert PYTHON.unwrap(f"```python\n{code}\n```") == code


def test_types_by_their_names():
    assert Code["python"] == Annotated[str, Language("python")] == Code[Literal["python"]]
    assert Reasoning == Annotated[str, Thinking()]
    for name in ("Code['python']", "Code", "Reasoning", "Image", "list[Image]", "History | None"):
        signature = Signature(f"x -> y: {name}") if "History" not in name else Signature(f"y: {name} -> x")
        assert signature.fields["y"].type_name == name
        assert parse_type(signature.fields["y"].type_name, {}) in (signature.fields["y"].annotation, Code)
    assert Signature('x -> y: Code["c++"]').fields["y"].type_name == "Code['c++']"
    assert Signature("x: pg.Image -> y").fields["x"].annotation is pg.Image
    assert Signature("x: Image -> y", types={"Image": int}).fields["x"].annotation is int
    assert language_of(Code["sql"]) == Language("sql")
    assert language_of(str) is language_of(Annotated[int, Language("x")]) is None
    assert is_reasoning(Reasoning)
    assert not is_reasoning(str)


def test_a_class_may_use_them():
    class Write(pg.Signature):
        task: str = pg.Input()
        program: pg.Code["python"] = pg.Output()  # noqa: F821
        any_code: pg.Code = pg.Output()
        why: pg.Reasoning = pg.Output()

    assert repr(Write()) == "task -> program: Code['python'], any_code: Code, why: Reasoning"
    assert all(field.is_text for field in Write().fields.values())


@pytest.mark.parametrize("language", ["", 7, "a\nb", "x" * 50])
def test_what_is_no_language(language):
    with pytest.raises(TypeError, match="the name of a language"):
        Code[language]


def test_code_is_no_value():
    with pytest.raises(TypeError, match=r"its values are texts: write Code\['python'\]"):
        Code()
