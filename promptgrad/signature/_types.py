"""The names of types: those that a signature may use without `types=`, and the way a type is written."""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

BUILTIN_TYPES: Mapping[str, Any] = {
    t.__name__: t for t in (str, int, float, bool, bytes, list, dict, tuple, set, frozenset, object)
}
TYPING_NAMES: Mapping[str, Any] = {
    name: getattr(typing, name)
    for name in (
        "Any",
        "Dict",
        "FrozenSet",
        "List",
        "Literal",
        "Mapping",
        "Optional",
        "Sequence",
        "Set",
        "Tuple",
        "Union",
    )
}
CONTENT_TYPES = ("Audio", "Citation", "Code", "Document", "File", "History", "Image", "Reasoning")
"""Names of the types of `promptgrad.content`, which a signature may use as well; the room is loaded where one is."""
# How many arguments a generic takes; None stands for "one or more".
ARITY: Mapping[Any, int | None] = {
    list: 1,
    set: 1,
    frozenset: 1,
    dict: 2,
    tuple: None,
    typing.List: 1,  # noqa: UP006
    typing.Set: 1,  # noqa: UP006
    typing.FrozenSet: 1,  # noqa: UP006
    typing.Dict: 2,  # noqa: UP006
    typing.Tuple: None,  # noqa: UP006
    typing.Sequence: 1,
    typing.Mapping: 2,
    typing.Optional: 1,
    typing.Union: None,
}
_GENERIC_NAMES = {Sequence: "Sequence", Mapping: "Mapping"}
_KNOWN_GOOD = frozenset(
    {str, int, float, bool, bytes, list, dict, tuple, set, frozenset, object, Any, None, type(None)}
)


def is_union(annotation: Any) -> bool:
    """Whether a type is `A | B`, in either spelling."""
    return get_origin(annotation) in (Union, types.UnionType)


def type_name(annotation: Any) -> str:
    """A type as it is written in code: `list[str]`, `int | None`, `Literal['a', 'b']`."""
    if annotation is None or annotation is type(None):
        return "None"
    if annotation is Any:
        return "Any"
    if annotation is ...:
        return "..."
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _annotated_name(annotation, args[0])
    if origin is Literal:
        return f"Literal[{', '.join(repr(arg) for arg in args)}]"
    if is_union(annotation):
        return " | ".join(type_name(arg) for arg in args)
    if origin is not None:
        name = _GENERIC_NAMES.get(origin, getattr(origin, "__name__", str(origin)))
        return f"{name}[{', '.join(type_name(arg) for arg in args) or '()'}]"
    return str(getattr(annotation, "__name__", annotation))


def _annotated_name(annotation: Any, base: Any) -> str:
    if base is str:
        from promptgrad.content import is_reasoning, language_of

        if is_reasoning(annotation):
            return "Reasoning"
        language = language_of(annotation)
        if language is not None:
            return f"Code[{language.name!r}]" if language.name else "Code"
    return type_name(base)


def is_known_good(annotation: Any) -> bool:
    """Whether a type is made of builtins only, so that a validator for it can surely be built."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is None:
        return annotation is ... or (isinstance(annotation, typing.Hashable) and annotation in _KNOWN_GOOD)
    if origin is Literal:
        return not any(isinstance(arg, enum.Enum) for arg in args)
    if origin in (list, dict, tuple, set, frozenset, Sequence, Mapping) or is_union(annotation):
        return all(is_known_good(arg) for arg in args)
    return False
