"""Ambient state is listed: every context variable of the package is in a table of docs/architecture.md."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "promptgrad"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
SECTION = re.search(r"^## Ambient state$(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
LISTED = [
    tuple(cell.strip().strip("`") for cell in line.strip("|").split("|"))
    for line in SECTION[1].splitlines()
    if line.startswith("| `")
]


def context_variables(source):
    """Names of the context variables that the source makes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = node.func.value if isinstance(node.func, ast.Subscript) else node.func
            if "ContextVar" in (getattr(called, "id", ""), getattr(called, "attr", "")):
                yield ast.literal_eval(node.args[0])


def test_every_context_variable_is_listed_with_its_file_and_no_other_is():
    made = sorted(
        (name, str(path.relative_to(PACKAGE)))
        for path in PACKAGE.rglob("*.py")
        for name in context_variables(path.read_text())
    )
    assert sorted((name, file) for name, file, *_ in LISTED) == made
    assert len({name for name, _ in made}) == len(made)


def test_every_line_says_what_it_holds_who_sets_it_and_who_reads_it():
    assert [line for line in LISTED if len(line) != 5 or not all(line)] == []


def test_a_room_whose_things_are_set_together_has_one_variable():
    rooms = [file.partition("/")[0] for _, file, *_ in LISTED]
    assert rooms.count("run") == 1


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x = ContextVar('a', default=None)", ["a"]),
        ("def f():\n    x: 'ContextVar[int]' = contextvars.ContextVar('b')", ["b"]),
        ("x = ContextVar[int]('c')", ["c"]),
        ("x: ContextVar[int]", []),
    ],
)
def test_the_check_sees_each_way_to_make_one(source, found):
    assert list(context_variables(source)) == found
