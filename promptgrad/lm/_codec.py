"""Records in JSON types and back: the one place through which digests, journals, cassettes and caches see a record.

A record is a frozen dataclass. Its fields are the codec: the annotation decides the JSON form of a field, and a field
that has its default is left out, so that a new field with a default changes no file and no digest that does not use it.
A class with `written_in_full` leaves nothing out. A field with `compare=False` is not part of the value and is never
written. A field in `text_names` has another name in JSON where its value is a text. An annotation without a JSON form
is refused when the record is first used.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import partial
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
    """The codec of a class of records: two functions made for it, as dataclasses make their methods.

    Attributes:
        names: The fields that are written.
        write: Function that converts a record to JSON types; its second argument converts bytes to text.
        read: Function that makes a record from JSON types.
        is_plain: True if all fields are always written, unconverted.
    """

    __slots__ = ("is_plain", "names", "read", "write")

    def __init__(self, cls: Any) -> None:
        title = cls.__name__
        if not is_dataclass(cls):
            raise TypeError(f"{title} is not a dataclass, so it has no codec")
        hints = get_type_hints(cls)
        kind = getattr(cls, "kind", None)
        special = [] if kind is None else ["type"]
        entries = [entry for entry in fields(cls) if entry.compare]
        self.names = tuple(entry.name for entry in entries)
        texts: Mapping[str, str] = getattr(cls, "text_names", {})
        scope: dict[str, Any] = {"cls": cls, "misfit": partial(_misfit, title, self.names, [*texts.values(), *special])}
        fixed = [] if kind is None else [f"'type': {kind!r}"]  # what is always there and needs no writer
        writing: list[str] = []
        reading: list[str] = []
        for entry in entries:
            name, key, text = entry.name, repr(entry.name), texts.get(entry.name)
            coder = _field_coder(hints[name], f"{title}.{name}")
            scope[f"default_{name}"], scope[f"factory_{name}"] = entry.default, entry.default_factory
            scope[f"write_{name}"], scope[f"read_{name}"] = coder or (None, None)
            written = "value" if coder is None else f"write_{name}(value, blob)"
            if is_dataclass(hints[name]) and codec_of(hints[name]).is_plain:  # written in place: a call less
                written = f"{{{', '.join(f'{inner!r}: value.{inner}' for inner in codec_of(hints[name]).names)}}}"
            read = f"data[{key}]" if coder is None else f"read_{name}(data[{key}])"

            always = entry.default is MISSING or getattr(cls, "written_in_full", False)
            if always and coder is None:
                fixed.append(f"{key}: record.{name}")
            else:
                test = f"value is not default_{name}"
                if not is_dataclass(entry.default):  # records compare slowly
                    test += f" and value != default_{name}"
                writing.append(f" value = record.{name}")
                writing.append(" if True:" if always else f" if {test}:")
                if text is not None:
                    writing += [f"  if isinstance(value, str): plain[{text!r}] = value", "  else:"]
                writing.append(f"   plain[{key}] = {written}")

            found = f"found_{name}"  # a field may have any name, also that of a variable here
            if text is not None:
                reading += [f"  if {text!r} in data: {found} = data[{text!r}]; left -= 1", "  else:"]
            else:
                reading.append("  if True:")
            reading.append(f"   if {key} in data: {found} = {read}; left -= 1")
            if entry.default is not MISSING:
                reading.append(f"   else: {found} = default_{name}")
            elif entry.default_factory is not MISSING:
                reading.append(f"   else: {found} = factory_{name}()")
            else:
                reading.append(f"   else: raise ValueError({f'{name!r} is missing'!r})")
        lines = [
            "def write(record, blob):",
            f" plain = {{{', '.join(fixed)}}}",
            *writing,
            " return plain",
            "def read(data):",
            " try:",
            "  left = len(data)" if kind is None else "  left = len(data) - ('type' in data)",
            *reading,
            f"  if not left: return cls({_arguments(cls)})",
            " except (TypeError, KeyError, ValueError) as error: raise misfit(data, error) from error",
            " raise misfit(data)",
        ]
        exec("\n".join(lines), scope)
        self.write: Callable[[Any, Blob], dict[str, Any]] = scope["write"]
        self.read: Callable[[Any], Any] = scope["read"]
        self.is_plain: bool = not writing and kind is None


def _arguments(cls: Any) -> str:
    """The arguments of a record in a call of its class: by place as long as none is left out, which takes less time."""
    written, by_place = [], True
    for entry in fields(cls):
        by_place = by_place and entry.compare and not entry.kw_only
        if entry.compare:
            written.append(f"found_{entry.name}" if by_place else f"{entry.name}=found_{entry.name}")
    return ", ".join(written)


def _misfit(
    title: str, names: tuple[str, ...], others: Collection[str], data: Any, error: Exception | None = None
) -> ValueError:
    """The reason why data is not a record."""
    if error is None:
        unknown = ", ".join(repr(name) for name in sorted(data) if name not in names and name not in others)
        reason = f"{unknown} is not among its fields" if unknown else "a field is there under both of its names"
    else:
        reason = str(error)
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
