"""The kind of JSON that values of a type are: a list, an object, a date; and what stands beside a type.

`fitter` asks here, and so does the reader of a text.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import enum
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

MOMENTS = (datetime.datetime, datetime.date, datetime.time, datetime.timedelta)


def bare(annotation: Any) -> Any:
    """A type without what `Annotated`, a new name or a root model adds."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif hasattr(annotation, "__supertype__") or hasattr(annotation, "__value__"):
            annotation = getattr(annotation, "__supertype__", None) or annotation.__value__
        elif (
            getattr(annotation, "__pydantic_root_model__", False)
            and annotation.model_fields
            and not _is_own(annotation)
        ):
            annotation = annotation.model_fields["root"].annotation
        else:
            return annotation


def members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a type: several for a union."""
    annotation = bare(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(inner for arg in get_args(annotation) for inner in members(arg))
    return (annotation,)


def holds(annotation: Any, kind: type) -> bool:
    """Whether a type is another one, an alternative to others, or what a list or the like is made of."""
    return any(kind is one or kind in map(bare, get_args(one)) for one in members(annotation))


def is_structure(kind: Any) -> bool:
    """Whether values of a type are lists or objects in JSON."""
    origin = get_origin(kind) or kind
    return is_list(origin) or is_mapping(origin) or (isinstance(origin, type) and has_fields(origin))


def is_moment(kind: Any) -> bool:
    """Whether values of a type are dates or times, which pydantic reads."""
    return kind in MOMENTS


def is_list(origin: Any) -> bool:
    """Whether values of a type are lists in JSON: lists, tuples, sets and what has their methods."""
    return (
        isinstance(origin, type)
        and issubclass(origin, collections.abc.Iterable)
        and not issubclass(origin, (str, bytes, bytearray, Mapping, enum.Enum))
        and not has_fields(origin)
        and origin.__module__ in ("builtins", "collections", "collections.abc")
    )


def is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping) and not has_fields(origin)


def is_named_tuple(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")


def has_fields(kind: type) -> bool:
    return (
        hasattr(kind, "model_fields")
        or dataclasses.is_dataclass(kind)
        or hasattr(kind, "__required_keys__")
        or is_named_tuple(kind)
    )


def has_validator(metadata: Sequence[Any]) -> bool:
    """Whether a validator of the user's own sees the value as it was written."""
    return any(type(item).__name__ in ("BeforeValidator", "PlainValidator", "WrapValidator") for item in metadata)


def own_validators(kind: Any) -> tuple[bool, set[str]]:
    """Whether a model has such a validator of the whole, and the fields that have one."""
    found = getattr(kind, "__pydantic_decorators__", None)
    if found is None:
        return False, set()
    fields = {
        name for entry in found.field_validators.values() if entry.info.mode != "after" for name in entry.info.fields
    }
    return any(entry.info.mode != "after" for entry in found.model_validators.values()), fields


def _is_own(kind: Any) -> bool:
    whole, fields = own_validators(kind)
    return whole or bool(fields)
