"""The code and settings of a program and a metric, on which the reuse of results depends, beside the parameters."""

import dataclasses
import hashlib
import heapq
import inspect
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
    that a run can be resumed, and its results reused, with a later release of the same series.
    """
    state = hashlib.blake2b(digest_size=12)
    for line in _lines(target):
        state.update(line.encode("utf-8", "surrogatepass") + b"\0")
    return state.hexdigest()


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


def _lines(target: Any) -> list[str]:
    if not isinstance(target, Module):
        return _described(target)
    lines = []
    for path, module in target.named_modules():
        lines.append(path)
        lines += _described(module)
    return lines


def _described(target: Any) -> list[str]:
    if isinstance(target, MethodType):
        return [*_described(target.__func__), *_described(target.__self__)]
    if isinstance(target, FunctionType):
        captured = [cell.cell_contents for cell in target.__closure__ or ()]
        constants = [target.__defaults__, target.__kwdefaults__, *captured]
        return [target.__qualname__, *_body(target), *map(_value, constants)]
    kind = type(target)
    lines = [f"{kind.__module__}.{kind.__qualname__}"]
    for base in kind.__mro__:
        if base in Module.__mro__:
            continue
        if _is_ours(base):
            lines += [f"{base.__module__}.{base.__qualname__}", _series()]
            continue
        for name, member in sorted(vars(base).items()):
            if isinstance(member, FunctionType) and (not name.startswith("__") or name in ("__init__", "__call__")):
                lines += [name, *_body(member)]
    for name, value in sorted(getattr(target, "__dict__", {}).items()):
        if name not in _MACHINERY and not isinstance(value, (Module, Parameter)):
            lines.append(f"{name}={_value(value)}")
    return lines


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
