"""Records in JSON types and back: the one place through which digests, journals, cassettes and caches see a record.

A record is a frozen dataclass. Its fields are the codec: what a type looks like in JSON is decided by the annotation,
a field that has its default is left out, and so a new field with a default changes no file and no digest that does
not use it. A field with `compare=False` is no part of the value and is never written. An annotation that has no form
in JSON is refused when the record is first used.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from hashlib import blake2b
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

R = TypeVar("R")
Blob = Callable[[bytes], str]
Writer = Callable[[Any, Blob], Any]
Reader = Callable[[Any], Any]
Coder = tuple[Writer, Reader]

_PLAIN = (str, int, float, bool, NoneType)


def inline(data: bytes) -> str:
    """Bytes as base64, from which they can be read back."""
    return b64encode(data).decode("ascii")


def digested(data: bytes) -> str:
    """Bytes as their digest, for the keys of requests: it cannot be read back."""
    return blake2b(data, digest_size=16).hexdigest()


def to_plain(record: Any, blob: Blob = inline) -> dict[str, Any]:
    """Return a record in JSON types.

    Args:
        record: A frozen dataclass.
        blob: How bytes are written.

    Raises:
        TypeError: A field's annotation has no form in JSON.
    """
    plain: dict[str, Any] = {}
    kind = getattr(record, "kind", None)
    if kind is not None:
        plain["type"] = kind
    for name, default, write, _ in plan(record.__class__):
        value = getattr(record, name)
        if default is MISSING or value != default:
            plain[name] = value if write is None else write(value, blob)
    return plain


def from_plain(cls: type[R], data: Mapping[str, Any]) -> R:
    """Make a record from what `to_plain` returned.

    Raises:
        ValueError: The data does not have the record's fields, or has others.
    """
    kind: Any = cls
    entries = plan(kind)
    try:
        values = {
            name: data[name] if read is None else read(data[name]) for name, _, _, read in entries if name in data
        }
        unknown = data.keys() - values.keys() - {"type"}
        if unknown:
            raise ValueError(f"{', '.join(map(repr, sorted(unknown)))} is not among its fields")
        return cls(**values)
    except (TypeError, KeyError, ValueError) as error:
        known = ", ".join(name for name, *_ in entries)
        raise ValueError(f"this is no {cls.__name__}, whose fields are {known}: {error}") from error


@lru_cache(maxsize=256)
def plan(cls: Any) -> tuple[tuple[str, Any, Writer | None, Reader | None], ...]:
    """How each field of a record is written and read: name, default, writer, reader; None writes it as it is.

    Raises:
        TypeError: A field's annotation has no form in JSON.
    """
    name = cls.__name__
    if not is_dataclass(cls):
        raise TypeError(f"{name} is not a dataclass, so it has no codec")
    hints = get_type_hints(cls)
    entries = []
    for entry in fields(cls):
        if entry.compare:
            coder = _coder(hints[entry.name], f"{name}.{entry.name}")
            entries.append((entry.name, entry.default, *(coder or (None, None))))
    return tuple(entries)


def _coder(hint: Any, where: str) -> Coder | None:
    """How a value of a type is written and read; None for what is JSON already."""
    if hint in _PLAIN:
        return None
    if hint is bytes:
        return (lambda value, blob: blob(value), b64decode)
    if isinstance(hint, type) and is_dataclass(hint):
        return (to_plain, lambda data: from_plain(hint, data))
    arguments = get_args(hint)
    if get_origin(hint) is tuple:
        return _tuple_coder(arguments, where)
    if get_origin(hint) in (Union, UnionType):
        return _union_coder(arguments, where)
    raise TypeError(
        f"{where} is a {hint}, which has no form in JSON: use str, numbers, bytes, tuples, records and unions of them, "
        "or field(compare=False) for what is not to be written"
    )


def _tuple_coder(arguments: tuple[Any, ...], where: str) -> Coder:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        coder = _coder(arguments[0], where)
        if coder is None:
            return (lambda value, blob: list(value), tuple)
        write, read = coder
        return (
            lambda value, blob: [write(item, blob) for item in value],
            lambda data: tuple(read(item) for item in data),
        )
    coders = [_coder(argument, where) for argument in arguments]
    return (
        lambda value, blob: [
            item if coder is None else coder[0](item, blob) for item, coder in zip(value, coders, strict=True)
        ],
        lambda data: tuple(item if coder is None else coder[1](item) for item, coder in zip(data, coders, strict=True)),
    )


def _union_coder(arguments: tuple[Any, ...], where: str) -> Coder | None:
    """The alternatives are told apart by what they are in JSON: a text or number, an array, an object with a type."""
    records = {kind.kind: kind for kind in arguments if hasattr(kind, "kind")}
    others = [kind for kind in arguments if not hasattr(kind, "kind") and kind not in _PLAIN]
    if not records and not others:
        return None
    if len(others) > 1 or (bytes in others and str in arguments):
        raise TypeError(f"{where} is one of {arguments}, which cannot be told apart in JSON")
    other = _coder(others[0], where) if others else None

    def write(value: Any, blob: Blob) -> Any:
        if isinstance(value, _PLAIN):
            return value
        return to_plain(value, blob) if other is None or hasattr(value, "kind") else other[0](value, blob)

    def read(data: Any) -> Any:
        if isinstance(data, Mapping) and "type" in data:
            if data["type"] not in records:
                raise ValueError(f"the type {data['type']!r} is not known; the types are {', '.join(records)}")
            return from_plain(records[data["type"]], data)
        if other is None or (isinstance(data, _PLAIN) and others[0] is not bytes) or data is None:
            return data
        return other[1](data)

    return write, read
