"""JSON schemas of types as pydantic makes them, but for decimals and for the keys of dicts, which it says too loosely.

A `Decimal` is a number or any text to pydantic, or one of a pattern that looks ahead, which neither strict mode nor a
grammar takes, and no number as it comes has an end: 1e999 is infinite. Of a `dict[int, ...]` it says nothing
of the keys.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic.json_schema import GenerateJsonSchema

_DECIMAL = r"^-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?$"
_WHOLE = "(0|[1-9][0-9]{0,17})"
_BOUNDS = ("ge", "gt", "le", "lt", "multiple_of")
_DIGITS = 15  # of a float
_MOST_LISTED = 1_000


@cache
def generator() -> type[GenerateJsonSchema]:
    """The class that pydantic makes schemas with, for `TypeAdapter.json_schema(schema_generator=...)`."""
    from pydantic.json_schema import GenerateJsonSchema

    class Generator(GenerateJsonSchema):
        """Decimals as texts of digits, or as numbers where they have bounds; dicts with what their keys may be."""

        def decimal_schema(self, schema: Any) -> dict[str, Any]:
            number = super().decimal_schema(schema)["anyOf"][0] if self.mode == "validation" else {"type": "number"}
            digits, places = schema.get("max_digits"), schema.get("decimal_places")
            if places is not None and places < _DIGITS - 3 and schema.get("multiple_of") is None:
                step = 10.0**-places if places else 1.0
                number["multipleOf"] = step
                most = 10.0 ** min(_DIGITS - places, _DIGITS if digits is None else digits - places) - step
                if schema.get("le") is None and schema.get("lt") is None:
                    number["maximum"] = most
                if schema.get("ge") is None and schema.get("gt") is None:
                    number["minimum"] = -most
            if digits is not None or places is not None or any(schema.get(name) is not None for name in _BOUNDS):
                return number
            return {"type": "string", "pattern": _DECIMAL}

        def dict_schema(self, schema: Any) -> dict[str, Any]:
            made = super().dict_schema(schema)
            keys = schema.get("keys_schema")
            if keys is not None and "propertyNames" not in made and "patternProperties" not in made:
                names = _names(self.generate_inner(keys))
                if names:
                    made["propertyNames"] = names
            return made

    return Generator


def _names(keys: dict[str, Any]) -> dict[str, Any] | None:
    """What the keys of an object are that stand for values of a schema; None where there is nothing to say."""
    values = [keys["const"]] if "const" in keys else keys.get("enum")
    if values is not None:
        plain = all(isinstance(value, (str, int)) and not isinstance(value, bool) for value in values)
        return {"enum": [str(value) for value in values]} if plain else None
    kind = keys.get("type")
    if kind == "boolean":
        return {"enum": ["true", "false"]}
    if kind == "number":
        return {"pattern": _DECIMAL}
    if kind != "integer":
        return None
    low = keys.get("minimum", keys.get("exclusiveMinimum", -1) + 1 if "exclusiveMinimum" in keys else None)
    high = keys.get("maximum", keys["exclusiveMaximum"] - 1 if "exclusiveMaximum" in keys else None)
    if low is not None and high is not None and 0 <= high - low < _MOST_LISTED:
        step = keys.get("multipleOf", 1)
        return {"enum": [str(value) for value in range(int(low), int(high) + 1) if value % step == 0]}
    return {"pattern": f"^{'' if low is not None and low >= 0 else '-?'}{_WHOLE}$"}
