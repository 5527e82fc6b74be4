"""The code and settings of a program and a metric, on which the reuse of results depends, beside the parameters."""

import dataclasses
import dis
import functools
import hashlib
import heapq
import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

from promptgrad.autograd import Parameter
from promptgrad.lm import current
from promptgrad.nn import Module
from promptgrad.retrieve import Retriever

_PLAIN = (str, int, float, bool, type(None))
_MACHINERY = frozenset(
    ("training", "_parameters", "_modules", "_buffers", "_transient", "_lm", "_pinned", "_hooks", "_plan")
)
_ENOUGH = 100
"""How many items of a container are read: an index of a million texts is known by its beginning and its length."""


def source_digest(target: Any) -> str:
    """Digest of the code and the settings of a program or metric; the same in every process for the same source.

    The classes and functions of promptgrad itself count by their name and the release series (the "0.2" of "0.2.1"), so
    that a run can be resumed, and its results reused, with a later release of the same series. What the code itself
    counts or remembers while it runs is no source: a variable of an enclosing function that it assigns (`nonlocal`),
    an attribute that `forward` or `__call__` assigns, a buffer.
    """
    state = hashlib.blake2b(digest_size=12)
    for _, line in _parts(target):
        state.update(line.encode("utf-8", "surrogatepass") + b"\0")
    return state.hexdigest()


def source_parts(target: Any) -> dict[str, str]:
    """Digests of the parts of a program's or metric's source by what they are, such as "`limit` of `metric`".

    Two sources with different digests differ in at least one of them.
    """
    found: dict[str, Any] = {}
    for label, line in _parts(target):
        state = found.setdefault(label, hashlib.blake2b(digest_size=6))
        state.update(line.encode("utf-8", "surrogatepass") + b"\0")
    return {label: state.hexdigest() for label, state in found.items()}


def lm_digest(program: Any) -> str:
    """Digest of the language models that a program would use here."""
    settings = current()
    named = [("lm", settings.lm), ("override", settings.override)]
    if isinstance(program, Module):
        named += [(path, module._lm) for path, module in program.named_modules()]
    state = hashlib.blake2b(digest_size=12)
    for path, lm in named:
        if lm is not None:
            state.update(f"{path}={lm.identity()}\0".encode("utf-8", "surrogatepass"))
    return state.hexdigest()


def _parts(target: Any) -> Iterator[tuple[str, str]]:
    """Lines of the source, each with what it is a part of."""
    if not isinstance(target, Module):
        yield from _described(target)
        return
    for path, module in target.named_modules():
        yield "the modules of the program", path
        yield from _described(module, f"{path}." if path else "")


def _described(target: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(target, MethodType):
        yield from _described(target.__func__, prefix)
        yield from _described(target.__self__, prefix)
        return
    if isinstance(target, FunctionType):
        yield from _function(target)
        return
    if isinstance(target, functools.partial):
        yield from _described(target.func, prefix)
        yield "the arguments of functools.partial", _value([list(target.args), target.keywords])
        return
    kind = type(target)
    yield f"the class of `{prefix.rstrip('.') or kind.__name__}`", f"{kind.__module__}.{kind.__qualname__}"
    for base in kind.__mro__:
        if base in Module.__mro__:
            continue
        if _is_ours(base):
            about = f"{base.__module__}.{base.__qualname__}"
            yield f"the release of `{about}`", about
            yield f"the release of `{about}`", _series()
            continue
        for name, member in sorted(vars(base).items()):
            if isinstance(member, FunctionType) and (not name.startswith("__") or name in ("__init__", "__call__")):
                for line in (name, *_body(member)):
                    yield f"the code of `{base.__qualname__}.{name}`", line
    counted = _assigned(kind)
    for name, value in sorted(getattr(target, "__dict__", {}).items()):
        if name not in _MACHINERY and name not in counted and not isinstance(value, (Module, Parameter)):
            yield f"the attribute `{prefix}{name}`", f"{name}={_value(value)}"


def _function(function: FunctionType) -> Iterator[tuple[str, str]]:
    name = function.__qualname__
    for line in (name, *_body(function)):
        yield f"the code of `{name}`", line
    yield f"the defaults of `{name}`", _value(function.__defaults__)
    yield f"the defaults of `{name}`", _value(function.__kwdefaults__)
    own = set() if _is_ours(function) else _stores(function.__code__, _NONLOCAL)
    for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if variable not in own:
            try:
                value = cell.cell_contents
            except ValueError:  # it is not bound yet
                continue
            yield f"the variable `{variable}` that `{name}` reads from the function around it", _value(value)


def _assigned(kind: type) -> frozenset[str]:
    """The attributes that the code of a class assigns while it runs: what it counts and remembers, not its settings."""
    found: set[str] = set()
    known, ahead = set[str](), ["forward", "aforward", "__call__"]
    while ahead:
        name = ahead.pop()
        method = next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)
        if name in known or not isinstance(method, FunctionType) or _is_ours(method):
            continue
        known.add(name)
        found |= _stores(method.__code__, _ATTRIBUTE)
        ahead += _names(method.__code__)
    return frozenset(found)


_NONLOCAL = frozenset({"STORE_DEREF", "DELETE_DEREF"})
_ATTRIBUTE = frozenset({"STORE_ATTR", "DELETE_ATTR"})


@functools.cache
def _stores(code: CodeType, operations: frozenset[str]) -> frozenset[str]:
    """The names that code assigns, with the functions in it."""
    found = {each.argval for each in dis.get_instructions(code) if each.opname in operations}
    return frozenset(found).union(*(_stores(part, operations) for part in code.co_consts if isinstance(part, CodeType)))


@functools.cache
def _names(code: CodeType) -> frozenset[str]:
    """The names that code uses, with the functions in it."""
    return frozenset(code.co_names).union(*(_names(part) for part in code.co_consts if isinstance(part, CodeType)))


def _is_ours(source: type | FunctionType) -> bool:
    return str(source.__module__).partition(".")[0] == "promptgrad"


def _series() -> str:
    """The release series of promptgrad."""
    from promptgrad import __version__

    return "promptgrad " + ".".join(__version__.split(".")[:2])


def _body(function: FunctionType) -> list[str]:
    if _is_ours(function):
        return [f"{function.__module__}.{function.__qualname__}", _series()]
    return _code(function.__code__)


def _code(code: CodeType) -> list[str]:
    """The instructions and constants of a function, without its place in the file."""
    lines = [code.co_code.hex(), " ".join(code.co_names)]
    for constant in code.co_consts:
        lines += _code(constant) if isinstance(constant, CodeType) else [_value(constant)]
    return lines


def _value(value: Any) -> str:
    """A value as text, sets in the order of their text; only the type where it would differ between processes."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if inspect.isfunction(value):
        return "".join(_body(value))
    if isinstance(value, (list, tuple)):
        return f"{len(value)}[" + ",".join(map(_value, value[:_ENOUGH])) + "]"
    if isinstance(value, dict):
        return f"{len(value)}{{" + ",".join(f"{key!r}:{_value(value[key])}" for key in [*value][:_ENOUGH]) + "}"
    if isinstance(value, (set, frozenset)):
        return f"{len(value)}{{" + ",".join(heapq.nsmallest(_ENOUGH, map(_value, value))) + "}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f"{field.name}={_value(getattr(value, field.name, None))}" for field in dataclasses.fields(value)]
        return f"{type(value).__qualname__}({','.join(fields)})"
    if isinstance(value, Retriever):
        return value.digest()
    text = type(value).__qualname__ if isinstance(value, Module) else repr(value)
    return type(value).__qualname__ if " at 0x" in text else text
