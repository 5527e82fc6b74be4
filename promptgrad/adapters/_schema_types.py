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
_MOST = 1_000
_MOST_CHOICES = 1_000


class SchemaTypes:
    """The types of the values that the schemas of one document describe; `Any` for what has no type here.

    They may accept more than the schemas do: patterns, limits and formats are left to whoever declared them. Nothing
    raises, and 1,000 places of a document are looked at, no deeper than eight levels: a schema of a foreign server may
    say anything, and may contain itself.

    Args:
        whole: The document, in which references are found.
    """

    def __init__(self, whole: Mapping[str, Any]) -> None:
        self.whole = whole
        self.left = _MOST

    def of(self, schema: Any, depth: int = 0) -> Any:
        """The type of one schema in the document.

        Args:
            schema: The schema.
            depth: How deep it lies.
        """
        self.left -= 1
        if not isinstance(schema, Mapping) or depth > _DEEPEST or self.left < 0:
            return Any
        if "$ref" in schema:
            return self.of(self._found(schema["$ref"]), depth + 1)
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(values, list) and 0 < len(values) <= _MOST_CHOICES:
            return Literal[tuple(values)] if all(map(_is_literal, values)) else Any
        for key in ("anyOf", "oneOf"):
            options = schema.get(key)
            if isinstance(options, list) and options:
                return self._union(options, depth)
        several = schema.get("allOf")
        if isinstance(several, list) and several:
            return self.of(several[0], depth + 1) if len(several) == 1 else Any
        kind = schema.get("type")
        if isinstance(kind, list):
            return self._union([{**schema, "type": one} for one in kind], depth)
        if kind == "array":
            inner = self.of(schema.get("items"), depth + 1)
            return list if inner is Any else GenericAlias(list, (inner,))
        if kind == "object":
            return self._object(schema, depth)
        return _PLAIN.get(kind, Any) if isinstance(kind, str) else Any

    def _union(self, options: list[Any], depth: int) -> Any:
        kinds = []
        for option in options:
            kinds.append(self.of(option, depth + 1))
            if kinds[-1] is Any:
                return Any
        return Union[tuple(kinds)] if kinds else Any  # noqa: UP007 - Python 3.10 makes none of a tuple otherwise

    def _object(self, schema: Mapping[str, Any], depth: int) -> Any:
        properties = schema.get("properties")
        if not isinstance(properties, Mapping) or not properties:
            return GenericAlias(dict, (str, self.of(schema.get("additionalProperties"), depth + 1)))
        from typing_extensions import NotRequired, TypedDict

        named = schema.get("required")
        required = {key for key in named if isinstance(key, str)} if isinstance(named, list) else set()
        kinds = {str(key): self.of(inside, depth + 1) for key, inside in properties.items()}
        make: Any = TypedDict
        made = make("Object", {key: kind if key in required else NotRequired[kind] for key, kind in kinds.items()})
        made.__pydantic_config__ = {"extra": "forbid" if schema.get("additionalProperties") is False else "allow"}
        return made

    def _found(self, reference: Any) -> Any:
        """What a reference within the document refers to; None for any other."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            return None
        place: Any = self.whole
        for step in filter(None, reference[1:].split("/")):
            if not isinstance(place, Mapping):
                return None
            place = place.get(step.replace("~1", "/").replace("~0", "~"))
        return place


def _is_literal(value: Any) -> bool:
    return value is None or isinstance(value, (str, bool, int))
