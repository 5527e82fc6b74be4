"""Records in JSON types and back: the one place through which digests, journals, cassettes and caches see a record.

A record is a frozen dataclass. Its fields are the codec: the annotation decides the JSON form of a field, and a field
that has its default is left out, so that a new field with a default changes no file and no digest that does not use it.
A class with `written_in_full` leaves nothing out but what it names in `written_if_set`. A field with `compare=False` is
not part of the value and is never written. A field in `text_names` has another name in JSON where its value is a text.
An annotation without a JSON form is refused when the record is first used.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from hashlib import blake2b
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

R = TypeVar("R")
Blob = Callable[[bytes], str]
Writer = Callable[[Any, Blob], Any]
Reader = Callable[[Any], Any]
Coder = tuple[Writer, Reader]

_PLAIN = (str, int, float, bool, NoneType)


def canonical_json(value: object) -> str:
    """Return the JSON text of `value` with sorted keys and no blanks.

    Raises:
        TypeError: `value` holds something without a JSON form.
        ValueError: `value` holds NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


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
        blob: Function that converts bytes to text.

    Raises:
        TypeError: A field's annotation has no form in JSON.
    """
    return codec_of(record.__class__).write(record, blob)


def from_plain(cls: type[R], data: Mapping[str, Any]) -> R:
    """Make a record from what `to_plain` returned.

    Raises:
        ValueError: The data does not have the record's fields, or has others.
    """
    record: R = codec_of(cls).read(data)
    return record


_codecs: dict[Any, RecordCodec] = {}


def codec_of(cls: Any) -> RecordCodec:
    """The codec of a class of records; made once.

    Raises:
        TypeError: A field's annotation has no form in JSON.
    """
    try:
        return _codecs[cls]
    except KeyError:
        made = _codecs[cls] = RecordCodec(cls)
        return made


class RecordCodec:
    """The codec of a class of records: two functions made for it from its fields.

    Attributes:
        names: The fields that are written.
        write: Function that converts a record to JSON types; its second argument converts bytes to text.
        read: Function that makes a record from JSON types.
    """

    __slots__ = ("names", "read", "write")

    def __init__(self, cls: Any) -> None:
        title = cls.__name__
        if not is_dataclass(cls):
            raise TypeError(f"{title} is not a dataclass, so it has no codec")
        hints = get_type_hints(cls)
        texts: Mapping[str, str] = getattr(cls, "text_names", {})
        entries = [entry for entry in fields(cls) if entry.compare]
        coders = {entry.name: _field_coder(hints[entry.name], f"{title}.{entry.name}") for entry in entries}
        self.names = tuple(entry.name for entry in entries)
        self.write: Callable[[Any, Blob], dict[str, Any]] = _writer(cls, entries, coders, texts)
        self.read: Callable[[Any], Any] = _reader(cls, entries, coders, texts)


def _writer(
    cls: Any, entries: Sequence[Field[Any]], coders: Mapping[str, Coder | None], texts: Mapping[str, str]
) -> Callable[[Any, Blob], dict[str, Any]]:
    """The function that writes a record: first what is always there and needs no conversion, then the rest."""
    kind = getattr(cls, "kind", None)
    fixed = {} if kind is None else {"type": kind}
    in_full: bool = getattr(cls, "written_in_full", False)
    if_set: frozenset[str] = getattr(cls, "written_if_set", frozenset())
    plain_names: list[str] = []
    steps: list[tuple[str, Any, bool, str, Writer | None]] = []
    for entry in entries:
        name, coder = entry.name, coders[entry.name]
        always = entry.default is MISSING or (in_full and name not in if_set)
        if always and coder is None:
            plain_names.append(name)
        else:
            default = MISSING if always else entry.default  # no value is MISSING
            by_identity = is_dataclass(entry.default)  # records compare slowly
            steps.append((name, default, by_identity, texts.get(name, ""), None if coder is None else coder[0]))

    def write(record: Any, blob: Blob) -> dict[str, Any]:
        plain = fixed.copy()
        for name in plain_names:
            plain[name] = getattr(record, name)
        for name, default, by_identity, text, writer in steps:
            value = getattr(record, name)
            if value is default or (not by_identity and value == default):
                continue
            if text and isinstance(value, str):
                plain[text] = value
            else:
                plain[name] = value if writer is None else writer(value, blob)
        return plain

    return write


def _reader(
    cls: Any, entries: Sequence[Field[Any]], coders: Mapping[str, Coder | None], texts: Mapping[str, str]
) -> Callable[[Any], Any]:
    """The function that reads a record, and refuses data that lacks a field or has one that the record has not."""
    steps: dict[str, tuple[str, Reader | None]] = {} if getattr(cls, "kind", None) is None else {"type": ("", None)}
    for entry in entries:
        name, coder = entry.name, coders[entry.name]
        steps[name] = (name, None if coder is None else coder[1])
        if name in texts:
            steps[texts[name]] = (name, None)
    needed = {entry.name for entry in entries if entry.default is MISSING and entry.default_factory is MISSING}
    names = tuple(entry.name for entry in entries)

    def read(data: Any) -> Any:
        found: dict[str, Any] = {}
        try:
            for key, value in data.items():
                name, reader = steps[key]
                if name in found:
                    raise ValueError("a field is there under both of its names")
                if name:
                    found[name] = value if reader is None else reader(value)
            if needed <= found.keys():
                return cls(**found)
            missing = next(name for name in names if name not in found and name in needed)
            raise ValueError(f"{missing!r} is missing")
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise _misfit(cls.__name__, names, steps, data, error) from error

    if any(reader is not None for _, reader in steps.values()) or len(steps) != len(names):
        return read
    every = frozenset(names)

    def read_plain(data: Any) -> Any:
        """The same where there is nothing to convert, in a third of the time."""
        return cls(**data) if data.__class__ is dict and needed <= data.keys() <= every else read(data)

    return read_plain


def _misfit(title: str, names: tuple[str, ...], known: Collection[str], data: Any, error: Exception) -> ValueError:
    """The reason why data is not a record."""
    unknown = sorted(name for name in data if name not in known) if isinstance(data, Mapping) else []
    reason = f"{', '.join(map(repr, unknown))} is not among its fields" if unknown else str(error)
    return ValueError(f"this is no {title}, whose fields are {', '.join(names)}: {reason}")


def _field_coder(hint: Any, where: str) -> Coder | None:
    """How the value of a field is written and read; None for what is JSON already."""
    if isinstance(hint, type) and is_dataclass(hint):
        made = codec_of(hint)
        return made.write, made.read
    return _coder(hint, where)


def _coder(hint: Any, where: str) -> Coder | None:
    """The functions that write and read values of a type; None for a type that is JSON already."""
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
    """The alternatives differ by their JSON form: a text or number, an array, an object with a type."""
    records = {kind.kind: kind for kind in arguments if hasattr(kind, "kind")}
    others = [kind for kind in arguments if not hasattr(kind, "kind") and kind not in _PLAIN]
    if not records and not others:
        return None
    if len(others) > 1 or (bytes in others and str in arguments):
        raise TypeError(f"{where} is one of {arguments}, whose JSON forms cannot be distinguished")
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
