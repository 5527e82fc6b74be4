"""Records in JSON types and back: the one place through which digests, journals, cassettes and caches see a record.

A record is a frozen dataclass. Its fields are the codec: what a type looks like in JSON is decided by the annotation,
a field that has its default is left out, and so a new field with a default changes no file and no digest that does
not use it; a class with `written_in_full` leaves nothing out. A field with `compare=False` is no part of the value and
is never written. An annotation that has no form in JSON is refused when the record is first used.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
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
    return codec_of(record.__class__).write(record, blob)


def from_plain(cls: type[R], data: Mapping[str, Any]) -> R:
    """Make a record from what `to_plain` returned.

    Raises:
        ValueError: The data does not have the record's fields, or has others.
    """
    made = codec_of(cls)
    try:
        values = {name: data[name] if read is None else read(data[name]) for name, read in made.readers if name in data}
        if len(values) != len(data) - ("type" in data):
            unknown = ", ".join(map(repr, sorted(data.keys() - values.keys() - {"type"})))
            raise ValueError(f"{unknown} is not among its fields")
        return cls(**values)
    except (TypeError, KeyError, ValueError) as error:
        known = ", ".join(name for name, _ in made.readers)
        raise ValueError(f"this is no {cls.__name__}, whose fields are {known}: {error}") from error


_codecs: dict[Any, RecordCodec] = {}


def codec_of(cls: Any) -> RecordCodec:
    """How records of a class are written and read; made once.

    Raises:
        TypeError: A field's annotation has no form in JSON.
    """
    found = _codecs.get(cls)
    if found is None:
        found = _codecs[cls] = RecordCodec(cls)
    return found


class RecordCodec:
    """How records of a class are written and read.

    Attributes:
        readers: Name of each field that is written, and how it is read; None where it is JSON already.
        write: Makes JSON types of a record.
    """

    def __init__(self, cls: Any) -> None:
        title = cls.__name__
        if not is_dataclass(cls):
            raise TypeError(f"{title} is not a dataclass, so it has no codec")
        hints = get_type_hints(cls)
        readers: list[tuple[str, Reader | None]] = []
        names: dict[str, Any] = {}
        kind = getattr(cls, "kind", None)
        lines = ["def write(record, blob):", " plain = {}" if kind is None else f" plain = {{'type': {kind!r}}}"]
        for entry in fields(cls):
            if not entry.compare:
                continue
            name = entry.name
            coder = _coder(hints[name], f"{title}.{name}")
            readers.append((name, None if coder is None else coder[1]))
            lines.append(f" value = record.{name}")
            if entry.default is not MISSING and not getattr(cls, "written_in_full", False):
                names[f"default_{name}"] = entry.default
                same = "" if is_dataclass(entry.default) else f" and value != default_{name}"  # records compare slowly
                lines.append(f" if value is not default_{name}{same}:")
            names[f"write_{name}"] = None if coder is None else coder[0]
            lines.append(f"  plain[{name!r}] = " + ("value" if coder is None else f"write_{name}(value, blob)"))
            if not lines[-2].endswith(":"):
                lines[-1] = lines[-1][1:]
        exec("\n".join([*lines, " return plain"]), names)  # as dataclasses make their methods
        self.readers = tuple(readers)
        self.write: Callable[[Any, Blob], dict[str, Any]] = names["write"]


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
