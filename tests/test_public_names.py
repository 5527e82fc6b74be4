"""Every public name resolves, says what it is, and stands where the front door says it stands."""

import ast
import importlib
import inspect
import re
import textwrap
from pathlib import Path

import pytest

import promptgrad as pg

FRONT_DOOR = Path(pg.__file__)
ROOMS = [f"promptgrad.{room}" for room in pg._ROOMS]
SUBROOMS = [
    "promptgrad.data.pocket",
    *(f"promptgrad.testing.{suite}" for suite in ("adapters", "interpreters", "lms", "modules")),
]


def names_of(module):
    return importlib.import_module(module).__all__


@pytest.mark.parametrize("name", pg.__all__)
def test_every_name_of_the_front_door_resolves(name):
    value = getattr(pg, name)
    if name in pg._ROOMS:
        assert value is importlib.import_module(f"promptgrad.{name}")
    elif name in pg._HOME:
        assert value is getattr(importlib.import_module(f"promptgrad.{pg._HOME[name]}"), name)
        assert inspect.getdoc(value)
    else:
        assert name == "__version__"


def test_the_front_door_lists_each_name_once_and_no_name_equals_a_room():
    assert sorted(pg.__all__) == sorted([*pg._HOME, *pg._ROOMS, "__version__"])
    assert set(pg._HOME) & set(pg._ROOMS) == set()
    assert set(pg._ELSEWHERE) & set(pg.__all__) == set()
    assert set(pg.__all__) <= set(dir(pg))


def seen_by_checkers(path):
    """(Module, name) of each import in a front door that only type checkers read, by name."""
    return {
        alias.name: statement.module
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for statement in node.body
        for alias in statement.names
    }


def test_checkers_see_the_same_names_as_programs():
    seen = seen_by_checkers(FRONT_DOOR)
    assert {name: home for name, home in seen.items() if home != "promptgrad"} == {
        name: f"promptgrad.{home}" for name, home in pg._HOME.items()
    }
    assert {name for name, home in seen.items() if home == "promptgrad"} == set(pg._ROOMS)


LATE = [room for room in ROOMS if hasattr(importlib.import_module(room), "_LATE")]


@pytest.mark.parametrize("room", LATE)
def test_checkers_see_the_late_names_of_a_room_where_programs_find_them(room):
    door = importlib.import_module(room)
    homes = {name: home if "." in home else f"{room}.{home}" for name, home in door._LATE.items() if name != home}
    assert {name: home for name, home in seen_by_checkers(Path(door.__file__)).items() if home != room} == homes
    assert set(door._LATE) <= set(door.__all__) <= set(dir(door))


@pytest.mark.parametrize("room", LATE)
def test_a_room_says_which_name_was_meant(room):
    meant = max(importlib.import_module(room)._LATE, key=len)
    with pytest.raises(AttributeError, match=rf"no attribute '{meant}x': did you mean {room[11:]}\.{meant}\?"):
        getattr(importlib.import_module(room), f"{meant}x")


def test_a_late_name_is_imported_once():
    from promptgrad import lm

    assert lm.Hedge is vars(lm)["Hedge"]


@pytest.mark.parametrize("module", ROOMS + SUBROOMS)
def test_a_room_lists_what_is_there_and_documents_it(module):
    room = importlib.import_module(module)
    assert room.__doc__
    assert len(room.__all__) == len(set(room.__all__))
    for name in room.__all__:
        value = getattr(room, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert inspect.getdoc(value), f"{module}.{name} has no docstring"
            assert value.__module__.startswith("promptgrad"), f"{module}.{name} is not ours"
    forgotten = [
        name
        for name, value in vars(room).items()
        if not name.startswith("_")
        and name not in room.__all__
        and (inspect.isclass(value) or inspect.isroutine(value))
        and value.__module__.startswith(module)
    ]
    assert forgotten == []


@pytest.mark.parametrize("module", ROOMS)
def test_no_public_name_of_a_room_is_the_name_of_a_room(module):
    allowed = {"promptgrad.aio": {"run"}}  # as asyncio.run, and not at the front door
    assert set(names_of(module)) & set(pg._ROOMS) <= allowed.get(module, set())


@pytest.mark.parametrize(
    ("slip", "right"),
    [
        ("InputField", "promptgrad.Input"),
        ("OutputField", "promptgrad.Output"),
        ("Predict", "promptgrad.nn.Predict"),
        ("settings", "promptgrad.configure"),
        ("Tensor", "promptgrad.Text"),
        ("evalute", "promptgrad.evaluate"),
        ("example", "promptgrad.Example"),
        ("device", r"program\.to\(lm\)"),
        ("clip_grad_norm_", r"promptgrad\.clip_grad_tokens_"),
    ],
)
def test_a_slip_is_pointed_to_the_right_name(slip, right):
    with pytest.raises(AttributeError, match=f"no attribute '{slip}'.*{right}"):
        getattr(pg, slip)


HINTS = {
    hint
    for owner in (
        pg,
        *map(importlib.import_module, ROOMS),
        *map(
            importlib.import_module, ("promptgrad.lm._base", "promptgrad.lm._completion", "promptgrad.adapters._tool")
        ),
    )
    for hint in getattr(owner, "_ELSEWHERE", {}).values()
}


@pytest.mark.parametrize("hint", sorted(HINTS))
def test_what_the_hints_name_exists(hint):
    for word in re.findall(r"(?<![\w.])(?:promptgrad|nn|optim|metrics|retrieve|lm)(?:\.[a-zA-Z_]\w*)+", hint):
        value = pg
        for part in word.removeprefix("promptgrad.").split("."):
            assert hasattr(value, part) or word in ("lm.name", "lm.acall"), f"{word} does not exist"
            value = getattr(value, part, None)


def test_manual_seed_is_the_default_until_a_seed_is_passed():
    from promptgrad import _seed

    assert _seed.seed_or_default(None) == 0
    try:
        pg.manual_seed(7)
        assert _seed.seed_or_default(None) == 7
        assert _seed.seed_or_default(3) == 3
        with pytest.raises(TypeError, match="takes an int"):
            pg.manual_seed("7")
    finally:
        pg.manual_seed(0)


def raised_by(function):
    """Names of the errors that a function raises by itself, in its own body."""
    try:
        defined = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body[0]
    except (OSError, TypeError):  # no source: a dataclass wrote it
        return set()
    todo, found = list(ast.iter_child_nodes(defined)), set()
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            found.add(node.exc.func.id)
        todo += ast.iter_child_nodes(node)
    return {name for name in found if name[0].isupper()} - {"NotImplementedError"}


def raises_untold(value):
    """The places of a public name that raise errors, and whose docstring does not say so."""
    if not inspect.isclass(value):
        raising = {"": value}
    else:
        raising = {name: vars(value).get(name) for name in ("__init__", "__post_init__", "__new__")}
        raising |= {name: member for name, member in vars(value).items() if not name.startswith("_")}
    for name, member in raising.items():
        member = getattr(member, "fget", None) or getattr(member, "__func__", member)
        if inspect.isroutine(member) and member.__module__.startswith("promptgrad"):
            told = inspect.getdoc(value if name.startswith("__") else getattr(value, name, None) if name else value)
            if isinstance(vars(value).get(name) if name else None, property):
                told = inspect.getdoc(member)
            if "raises" not in (told or "").lower() and "As " not in (told or "") and (found := raised_by(member)):
                yield name, sorted(found)


@pytest.mark.parametrize("module", ROOMS + SUBROOMS)
def test_what_raises_an_error_says_so(module):
    room = importlib.import_module(module)
    untold = {name: list(raises_untold(getattr(room, name))) for name in room.__all__}
    assert {name: found for name, found in untold.items() if found} == {}


def test_the_check_sees_an_error_that_is_not_told():
    class Pair:
        """A pair."""

        def __init__(self, left):
            if left is None:
                raise ValueError("no left")

        def swap(self):
            """Swap. Raises what `of` says."""
            raise TypeError("no right")

        def first(self):
            """The first."""
            raise KeyError("none")

    Pair.__init__.__module__ = Pair.first.__module__ = Pair.swap.__module__ = "promptgrad"
    assert list(raises_untold(Pair)) == [("__init__", ["ValueError"]), ("first", ["KeyError"])]


TWICE = {"Ensemble": "the optimizer has the name of the program that it returns"}
"""Class names that stand for two things, and why they may."""


def test_a_class_name_stands_for_one_thing():
    homes = {}
    for path in sorted(FRONT_DOOR.parent.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(path.relative_to(FRONT_DOOR.parent).as_posix())
    assert {name: where for name, where in homes.items() if len(where) > 1}.keys() == TWICE.keys()


MANY = 6
"""Names in an argument list that may be written twice: a longer one is written once, and shared."""


BY_HAND = ("Completion", "Request", "Usage")
"""Records that are made in each call: their `__init__` is written by hand, for its speed, and `lm/test_codec.py`
compares it with the fields."""


def argument_lists(source):
    """(Name, arguments) of each function, and of each class whose fields are arguments, as far as they are many."""
    by_hand = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.ClassDef) and node.name in BY_HAND:
            by_hand += [entry for entry in node.body if getattr(entry, "name", "") == "__init__"]
        if node in by_hand:
            continue
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            given = node.args
            names = [entry.arg for entry in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            names = [name for name in names if name not in ("self", "cls")]
        elif isinstance(node, ast.ClassDef):
            names = [line.target.id for line in node.body if isinstance(line, ast.AnnAssign)]
        if len(names) > MANY:
            yield node.name, frozenset(names)


def written_twice(lists):
    """Pairs of which one holds the whole of the other."""
    return sorted(
        (one, two)
        for number, (one, first) in enumerate(lists)
        for two, second in lists[number + 1 :]
        if first <= second or second <= first
    )


FILLS = {
    ("abackward", "Manner"): "the arguments of `backward` are the record that the pass is given",
    ("asft", "TuneOptions"): "what all trainings share is one record; a function says its arguments, for editors",
    ("adpo", "TuneOptions"): "as `sft`",
    ("asft", "TuneSettings"): "the part of `TuneOptions` that a model sees",
    ("adpo", "TuneSettings"): "as `sft`",
    ("TuneOptions", "TuneSettings"): "the part of it that a model sees",
    ("agrpo", "PolicyOptions"): "the arguments of the policy gradient are one record",
    ("__init__", "PolicyOptions"): "of `optim.GRPO`, as `grpo`",
    ("asft", "acollect"): "`sft` with a metric collects what it trains on",
    ("ajob", "acollect"): "as `sft`, at a provider",
    ("_collected", "acollect"): "as `sft`, at a provider",
    ("__init__", "__init__"): "`Session` gives its base what it takes",
}
"""Lists across files of which one holds the whole of the other, and why: a function that fills a record."""


def test_no_long_argument_list_is_written_twice():
    lists = {
        path.relative_to(FRONT_DOOR.parent).as_posix(): list(argument_lists(path.read_text()))
        for path in sorted(FRONT_DOOR.parent.rglob("*.py"))
    }
    inside = {path: written_twice(found) for path, found in lists.items()}
    assert {path: pairs for path, pairs in inside.items() if pairs} == {}
    everywhere = {}
    for path, found in lists.items():
        for name, names in found:
            everywhere.setdefault(names, []).append(f"{path}:{name}")
    assert [where for where in everywhere.values() if len(where) > 1] == []
    across = sorted((one for found in lists.values() for one in found), key=lambda one: -len(one[1]))
    assert {*written_twice(across)} == FILLS.keys()


def test_the_check_sees_a_list_that_is_written_twice():
    lists = list(argument_lists("def f(a, b, c, d, e, f, g): ...\nasync def af(a, b, c, d, *, e, f, g, h): ..."))
    assert written_twice(lists) == [("f", "af")]
