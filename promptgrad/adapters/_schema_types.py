"""Types from a JSON schema, so that one reader serves arguments declared by a function and by a schema."""

from __future__ import annotations

from collections.abc import Mapping
from types import GenericAlias
from typing import Any, Literal, Union

_PLAIN: Mapping[str, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
}
_DEEPEST = 8
_MOST_CHOICES = 1_000


def type_of(schema: Any, whole: Mapping[str, Any], depth: int = 0) -> Any:
    """The type of the values that a schema describes; `Any` for what has no type here.

    It may accept more than the schema does (patterns, limits and formats are left to whoever declared them), and it
    never raises: a schema of a foreign server may say anything.

    Args:
        schema: The schema.
        whole: The document in which its references are found.
        depth: How deep it lies; what is deeper than eight levels, as in a schema that contains itself, is `Any`.
    """
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return Any
    reference = schema.get("$ref")
    if reference is not None:
        return type_of(_found(reference, whole), whole, depth + 1)
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list) and 0 < len(values) <= _MOST_CHOICES:
        return Literal[tuple(values)] if all(_is_literal(value) for value in values) else Any
    for key in ("anyOf", "oneOf"):
        options = schema.get(key)
        if isinstance(options, list) and options:
            return _union([type_of(option, whole, depth + 1) for option in options])
    several = schema.get("allOf")
    if isinstance(several, list) and several:
        return type_of(several[0], whole, depth + 1) if len(several) == 1 else Any
    kind = schema.get("type")
    if isinstance(kind, list):
        return _union([type_of({**schema, "type": one}, whole, depth + 1) for one in kind])
    if kind == "array":
        inner = type_of(schema.get("items"), whole, depth + 1)
        return list if inner is Any else GenericAlias(list, (inner,))
    if kind == "object":
        return _object(schema, whole, depth)
    return _PLAIN.get(kind, Any) if isinstance(kind, str) else Any


def _union(kinds: list[Any]) -> Any:
    return Any if not kinds or Any in kinds else Union[tuple(kinds)]  # noqa: UP007 - Python 3.10 makes none of a tuple otherwise


def _is_literal(value: Any) -> bool:
    return value is None or isinstance(value, (str, bool, int))


def _object(schema: Mapping[str, Any], whole: Mapping[str, Any], depth: int) -> Any:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        return GenericAlias(dict, (str, type_of(schema.get("additionalProperties"), whole, depth + 1)))
    from typing_extensions import NotRequired, TypedDict

    named = schema.get("required")
    required = set(filter(lambda key: isinstance(key, str), named)) if isinstance(named, list) else set()
    fields = {
        str(key): kind if key in required else NotRequired[kind]
        for key, kind in ((key, type_of(inside, whole, depth + 1)) for key, inside in properties.items())
    }
    make: Any = TypedDict
    made = make(_title(schema), fields)
    made.__pydantic_config__ = {"extra": "forbid" if schema.get("additionalProperties") is False else "allow"}
    return made


def _title(schema: Mapping[str, Any]) -> str:
    title = schema.get("title")
    return title if isinstance(title, str) and title.isidentifier() else "Object"


def _found(reference: Any, whole: Mapping[str, Any]) -> Any:
    """What a reference within the document refers to; None for any other."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    place: Any = whole
    for step in reference[2:].split("/"):
        if not isinstance(place, Mapping):
            return None
        place = place.get(step.replace("~1", "/").replace("~0", "~"))
    return place
