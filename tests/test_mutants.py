"""What `benchmarks/mutants.py` counts as a change, and which lines it asks the tests of."""

from pathlib import Path

import pytest

pytest.importorskip("tomllib", reason="the benchmark needs Python 3.11")
FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"

SOURCE = '''"""Words."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Some = int | str

LIMIT: int | None = 3


class Box:
    size: int | None = 4

    def grow(self, by: int = 1, *, most: "int | None" = None) -> int | None:
        """Grow."""
        if by < 2 and (
            most is None
        ):
            return self.size + by
        return LIMIT
'''


@pytest.fixture
def mutants(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import mutants

    return mutants


@pytest.mark.parametrize(
    ("old", "new", "counted"),
    [
        ("self.size + by", "self.size - by", True),
        ("LIMIT: int | None = 3", "LIMIT: int | None = 4", True),
        ("by: int = 1", "by: int = 2", True),
        ("by < 2 and", "by < 2 or", True),
        ("-> int | None", "-> int + None", False),
        ("LIMIT: int | None", "LIMIT: int - None", False),
        ("size: int | None", "size: int % None", False),
        ("Some = int | str", "Some = int & str", False),
        ("self, by", "self, / by", False),
    ],
)
def test_a_mutant_is_another_program_that_compiles(mutants, old, new, counted):
    assert old in SOURCE
    assert mutants.counts(SOURCE, SOURCE.replace(old, new)) is counted
    assert not mutants.counts(SOURCE, None)


def line_of(text):
    return SOURCE[: SOURCE.index(text)].count("\n") + 1


@pytest.mark.parametrize(
    ("inside", "first", "last"),
    [
        ("most is None", "if by < 2", "):\n"),  # a condition is executed as a whole
        ("return self.size", "return self.size", "return self.size"),
        ("def grow", '"""Grow', "return LIMIT"),  # a default shows when the function is called
    ],
)
def test_the_lines_of_a_statement_are_those_that_show_that_it_ran(mutants, inside, first, last):
    lines, name = mutants.statement(SOURCE, line_of(inside))
    assert lines == set(range(line_of(first), line_of(last) + 1))
    assert name is None


@pytest.mark.parametrize(("inside", "name"), [("LIMIT: int", "LIMIT"), ("size: int", "size")])
def test_what_stands_outside_of_functions_is_asked_for_by_its_name(mutants, inside, name):
    assert mutants.statement(SOURCE, line_of(inside)) == (set(), name)


DIFF = """@@ -1,3 +1,3 @@
 a = 1
-b = a + 1
+b = a - 1
 c = 3
"""


@pytest.mark.parametrize(
    ("source", "made"),
    [
        ("a = 1\nb = a + 1\nc = 3\n", "a = 1\nb = a - 1\nc = 3\n"),
        ("a = 2\nb = a + 1\nc = 4\n", "a = 2\nb = a - 1\nc = 4\n"),
        ("b = a + 1\nx\na = 1\nb = a + 1\nc = 3\n", "b = a + 1\nx\na = 1\nb = a - 1\nc = 3\n"),
        ("b = a + 1\nb = a + 1\n", "b = a + 1\nb = a + 1\n"),
        ("a = 1\nb = 2\nc = 3\n", None),
    ],
    ids=["as it was", "with other lines around", "one of two", "which of two is not clear", "gone"],
)
def test_a_change_is_made_again_in_a_later_source(mutants, source, made):
    assert mutants.transplant(DIFF, source) == made
