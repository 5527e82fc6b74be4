"""No file of the package, of its examples or of its benchmarks compiles text as code."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
REFUSED = {"eval", "exec", "compile"}
RUNS_CODE = "promptgrad/sandbox/_child.py"
"""The program of the process in which code runs, when all that it might do is taken from it: nothing imports it."""


def compiled(source: str) -> list[int]:
    """The lines where one of the built-in functions that compile text is named, also under its module."""
    found = []
    for node in ast.walk(ast.parse(source)):
        name = node.id if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) else None
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and "builtins" in node.value.id:
            name = node.attr
        if name in REFUSED:
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("folder", ["promptgrad", "examples", "benchmarks"])
def test_no_file_compiles_text(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    lines = {str(path.relative_to(ROOT)): compiled(path.read_text(encoding="utf-8")) for path in files}
    assert {path: found for path, found in lines.items() if found and path != RUNS_CODE} == {}


def test_nothing_imports_the_one_that_does():
    assert compiled((ROOT / RUNS_CODE).read_text(encoding="utf-8"))
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "promptgrad").rglob("*.py")}
    for path, source in sources.items():
        for node in ast.walk(ast.parse(source)) if "_child" in source else ():
            names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            assert not any("_child" in f"{module}.{name}" for name in names), path


@pytest.mark.parametrize("source", ["eval('1')", "exec(text)", "f = eval", "builtins.exec(x)", "__builtins__.eval(x)"])
def test_the_search_finds_it(source):
    assert compiled(source) == [1]


@pytest.mark.parametrize(
    "source", ["model.eval()", "re.compile('a')", "adapter.compile(x)", "ast.literal_eval('1')", "compile = twin(fn)"]
)
def test_methods_of_that_name_are_something_else(source):
    assert compiled(source) == []
