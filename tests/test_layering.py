"""Imports point one way. RANK is the drawing of docs/architecture.md, as code."""

import ast
import functools
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "promptgrad"

# A room imports only from groups before its own; rooms of one group are strangers.
RANK = [
    [
        *("_accepts", "errors", "_files", "_frozen", "_habits", "_json_pairs", "_late", "_numbers", "_patterns"),
        *("_pipes", "_seed"),
    ],
    ["_error_text", "aio", "content"],
    ["run", "data", "autograd", "signature", "sandbox"],
    ["retrieve"],
    ["lm"],
    ["adapters"],
    ["metrics", "tools"],
    ["nn"],
    ["func"],
    ["evaluation"],
    ["finetune", "search"],
    ["optim"],
    ["train"],
    ["serve", "viz", "integrations", "testing", "extend"],
]
GROUP = {room: number for number, group in enumerate(RANK) for room in group}


def name_of(path, package=PACKAGE):
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(tree, modules):
    """Every promptgrad module that the source names in an import, at any depth, or by import_module("...")."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "promptgrad")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "promptgrad":
            for alias in node.names:
                if (node.module, alias.name) == ("promptgrad", "__version__"):
                    continue  # the one fact that the front door keeps itself
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in modules else node.module
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("import_module", "__import__")
            and node.args
            and isinstance(node.args[0], ast.Constant)
            and str(node.args[0].value).split(".")[0] == "promptgrad"
        ):
            yield node.args[0].value


@functools.cache
def imported(name):
    """What a module of the package imports."""
    return list(imports(ast.parse(MODULES[name].read_text()), MODULES))


def room(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def problem(importer, target):
    """Say why one room may not import another; None where it may."""
    source, goal = room(importer), room(target)
    if source == goal:
        return None
    if goal == "":
        return f"{importer} imports the front door; name the room instead"
    if goal not in GROUP:
        return f"{importer} imports {target}: no such room in RANK"
    if GROUP[goal] >= GROUP[source]:
        return f"{importer} must not know {goal}"
    return None


def inner_modules():
    return [name for name in MODULES if name != "promptgrad"]


def test_every_room_is_in_the_drawing_and_has_content():
    rooms = {room(name) for name in inner_modules()}
    assert rooms - GROUP.keys() == set()


@pytest.mark.parametrize("name", inner_modules())
def test_imports_point_one_way(name):
    problems = [problem(name, target) for target in imported(name)]
    assert [found for found in problems if found] == []


def without_type_checking(source):
    """The source less what only a type checker reads: types may name each other, modules not run in a ring."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    return tree


def test_no_ring_of_modules():
    graph = {
        name: set(imports(without_type_checking(path.read_text()), MODULES)) - {name} for name, path in MODULES.items()
    }
    del graph["promptgrad"]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("modules import one another in a ring: " + " <- ".join(error.args[1]))


@pytest.mark.parametrize(
    ("importer", "source", "said"),
    [
        ("promptgrad.autograd._tape", "from promptgrad.lm import LM", "must not know lm"),
        ("promptgrad.autograd._tape", "def f():\n    import promptgrad.nn", "must not know nn"),
        ("promptgrad.data._loader", "from promptgrad.run import rng", "must not know run"),
        ("promptgrad.nn._module", "from promptgrad import optim", "must not know optim"),
        ("promptgrad.nn._module", "import promptgrad as pg", "front door"),
        ("promptgrad.nn._module", "from promptgrad import Example", "front door"),
        ("promptgrad.nn._module", "x = import_module('promptgrad.train')", "must not know train"),
        ("promptgrad.nn._module", "from promptgrad.testing import LoopbackLM", "must not know testing"),
        ("promptgrad.lm._base", "from promptgrad.attic import x", "no such room"),
    ],
)
def test_the_check_sees_each_kind_of_wrong_import(importer, source, said):
    found = [problem(importer, target) for target in imports(ast.parse(source), {*MODULES, "promptgrad.optim"})]
    assert len(found) == 1
    assert said in found[0]


def optimizers(modules):
    """The files of `optim` that define an optimizer, by its base class or one that derives from it."""
    classes, homes = {"Search"}, {}
    trees = {name: ast.parse(path.read_text()) for name, path in modules.items() if room(name) == "optim"}
    while True:
        found = {
            node.name: name
            for name, tree in trees.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") in classes for base in node.bases)
        }
        if homes == found:
            return sorted(set(homes.values()))
        homes = found
        classes |= homes.keys()


BASES = {"promptgrad.optim._optimizer", "promptgrad.optim._weight_search"}
"""Files that hold no optimizer but a base of several."""


OPTIMIZERS = set(optimizers(MODULES)) - BASES


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_no_optimizer_imports_another(name):
    assert "promptgrad.optim._tgd" in OPTIMIZERS
    assert [target for target in imported(name) if target in OPTIMIZERS - {name}] == []


def private(importer, targets):
    """What a module imports from private files of other rooms."""
    for target in targets:
        parts = target.split(".")
        if room(target) != room(importer) and any(part.startswith("_") and part != "__init__" for part in parts[2:]):
            yield target


@pytest.mark.parametrize("name", inner_modules())
def test_no_room_imports_a_private_file_of_another(name):
    assert list(private(name, imported(name))) == []


def test_the_check_sees_a_private_import():
    source = "def f():\n    from promptgrad.lm._http import HTTP\n    from promptgrad.lm import Cache"
    targets = list(imports(ast.parse(source), MODULES))
    assert list(private("promptgrad.nn._module", targets)) == ["promptgrad.lm._http"]
    assert list(private("promptgrad.lm._cache", targets)) == []
