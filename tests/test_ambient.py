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
    if line.startswith("| `promptgrad.")
]


def context_variables(source):
    """Names of the context variables that the source makes."""
    for node in ast.walk(ast.parse(source)) if "ContextVar" in source else ():
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


MUTATES = {"append", "add", "update", "setdefault", "pop", "clear", "extend", "insert", "popitem", "appendleft"}
SHARED = {
    (name, file)
    for line in SECTION[1].splitlines()
    if line.startswith("| `") and line.count("|") == 5
    for names, files in [[re.findall(r"`([\w./]+)`", cell) for cell in line.split("|")[1:3]]]
    for name, file in zip(names, files if len(files) > 1 else files * len(names), strict=True)
}
"""The variables of modules that the page lists as shared by the process, with their files."""


def changed_variables(tree):
    """Names of the variables of a module that its functions assign or change in place."""
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    for node in (inner for function in functions for inner in ast.walk(function)):
        if isinstance(node, ast.Global):
            yield from node.names
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, (ast.Store, ast.Del)):
            yield getattr(node.value, "id", "")
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in MUTATES:
            yield getattr(node.func.value, "id", "")
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.value) in ("threading.local()", "local()"):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def variables(tree):
    """Names that a module assigns itself."""
    for node in tree.body:
        for target in node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]:
            if isinstance(target, ast.Name):
                yield target.id


BUILT = "data/pocket/"
"""Tables that functions fill while the module is imported, and nothing later."""


def test_what_the_process_shares_is_listed():
    trees = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
    changed = {
        (name, file)
        for file, tree in trees.items()
        if not file.startswith(BUILT)
        for name in {*changed_variables(tree)} & {*variables(tree)}
    }
    assert changed - SHARED == set(), "list it in docs/architecture.md, under ambient state"
    gone = [(name, file) for name, file in SHARED if name not in variables(trees[file])]
    assert gone == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("a = {}\ndef f():\n    a[1] = 2", {"a"}),
        ("a = []\ndef f():\n    a.append(2)", {"a"}),
        ("a = 0\ndef f():\n    global a\n    a = 1", {"a"}),
        ("a = threading.local()", {"a"}),
        ("a = {}\na[1] = 2", set()),
        ("def f():\n    a = []\n    a.append(2)", set()),
    ],
)
def test_the_check_sees_each_way_to_change_one(source, found):
    tree = ast.parse(source)
    assert {*changed_variables(tree)} & {*variables(tree)} == found
