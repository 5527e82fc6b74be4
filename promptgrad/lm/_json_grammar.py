"""A JSON schema as a grammar of llguidance: what its own JSON schemas cannot say is said in other words first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_SEPARATORS = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
_SPACED = {**_SEPARATORS, "item_separator": ", "}
_LEAP = r"([0-9][0-9](0[48]|[2468][048]|[13579][26])|([02468][48]|[2468]0|[13579][26])00)"
_DATE = (
    r"(([0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)-"
    r"((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
    rf"|{_LEAP}-02-29)"
)
_HOUR = r"([01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_HOUR}(:[0-5][0-9](\.[0-9]{{1,6}})?(Z|[+-]{_HOUR})?|(Z|[+]{_HOUR})?)"
"""A time with or without its zone. "10:30-11:30" may be one with a zone, or from one to another: it is not read."""
_SPAN = r"([0-9]{1,4}H([0-9]{1,4}M)?([0-9]{1,4}S)?|[0-9]{1,4}M([0-9]{1,4}S)?|[0-9]{1,4}S)"
_FORMATS = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
    "duration": f"^P([0-9]{{1,5}}D(T{_SPAN})?|T{_SPAN})$",
    "base64url": r"^([A-Za-z0-9_-]{4})*$",
    "binary": r"^([A-Za-z0-9_-]{4})*$",
    "uuid": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
}
"""Formats by the texts that pydantic reads: no leap second, no year 0, no 30 February."""
_KNOWN_FORMATS = frozenset({"uuid", "ipv4", "ipv6", "email", "hostname", "uri"})
_MAPS = ("properties", "$defs", "definitions", "patternProperties")


def json_grammar(schema: Mapping[str, Any]) -> str:
    """The grammar of one line of JSON that fits a schema, for `Request.grammar`.

    Keys come in the order of the schema, with at most one blank after a comma or colon, and with one after each comma
    where there may be lists of numbers, as "[9, 164,17]" has two readings. Objects are closed unless the schema opens
    them. Formats that are not known, unique items, and the descriptions are left out.

    Args:
        schema: The JSON schema of an object, list or other value.
    """
    return f"start: /[ \\n]{{0,2}}/ value\nvalue: {json_rule(schema)}\n"


def json_rule(schema: Mapping[str, Any], *, spaced: bool | None = None) -> str:
    """The part of a grammar that stands for one line of JSON that fits a schema.

    Args:
        schema: The schema.
        spaced: Whether a blank must follow each comma, as 253,935 may be one number; None for where there may be
            lists of numbers.
    """
    spaced = _may_list_numbers(schema) if spaced is None else spaced
    told = {**_translated(schema), "x-guidance": _SPACED if spaced else _SEPARATORS}
    return f"%json {json.dumps(told, ensure_ascii=True)}"


def _may_list_numbers(schema: Mapping[str, Any]) -> bool:
    """Whether a value that fits a schema may hold a list of numbers; what a schema leaves open may."""
    text = json.dumps(schema)
    if '"array"' in text:
        return any(word in text for word in ('"number"', '"integer"', "{}", '"additionalProperties": true'))
    return '"properties"' not in text or '"additionalProperties": true' in text


def response_grammar(form: str) -> str | None:
    """The grammar of the replies that a `response_format` asks for; None for free text.

    Raises:
        ValueError: It is of a kind that is not known here.
    """
    asked = json.loads(form)
    kind = asked.get("type") if isinstance(asked, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return json_grammar({"type": "object"})
    if kind == "json_schema":
        schema = asked.get("json_schema", {}).get("schema")
        if isinstance(schema, dict):
            return json_grammar(schema)
    raise ValueError(f"a local model knows response_format of type text, json_object and json_schema, not {form:.80}")


def _translated(node: Any) -> Any:
    """A schema in the words that llguidance knows."""
    if isinstance(node, list):
        return [_translated(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    told: dict[str, Any] = {}
    for key, value in node.items():
        if key in _MAPS and isinstance(value, Mapping):
            told[key] = {name: _translated(item) for name, item in value.items()}
        elif key in ("enum", "const"):
            told[key] = value
        elif key in ("items", "prefixItems", "anyOf", "allOf", "oneOf", "additionalProperties", "not"):
            told[key] = _translated(value)
        elif key not in _SILENT:
            told[key] = value
    kinds = told.get("type")
    if "oneOf" in told and "discriminator" in node:
        told["anyOf"] = told.pop("oneOf")  # their tags keep them apart
    for name in ("anyOf", "oneOf"):
        if name in told:
            told[name] = [choice for choice in told[name] if not _looks_around(choice)] or told[name]
    if kinds == "string":
        _tell_format(told)
    if kinds != "integer":
        _tell_open_bounds(told)
    if kinds == "array" and node.get("uniqueItems") and node.get("minItems", 0) > 1:
        told["uniqueItems"] = True  # which is refused: equal ones would be too few
    if kinds == "object" or "properties" in told:
        _tell_names(told, node.get("propertyNames"))
        if "properties" in told or "patternProperties" in told:
            told.setdefault("additionalProperties", False)
    return told


_SILENT = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "discriminator",
     "uniqueItems", "propertyNames", "contentEncoding", "contentMediaType", "$schema", "$id", "$comment"}
)  # fmt: skip


def _looks_around(choice: Any) -> bool:
    pattern = choice.get("pattern") if isinstance(choice, dict) else None
    return isinstance(pattern, str) and any(sign in pattern for sign in ("(?=", "(?!", "(?<"))


def _tell_open_bounds(told: dict[str, Any]) -> None:
    """Whole bounds that a number must not reach, moved by a billionth: llguidance 1.9 lets -3 through below -3."""
    for name, inward in (("exclusiveMinimum", 1), ("exclusiveMaximum", -1)):
        bound = told.get(name)
        if isinstance(bound, (int, float)) and not isinstance(bound, bool) and abs(bound) < 1e6 and bound == int(bound):
            told[name] = float(bound) + inward * 1e-9


def _tell_format(told: dict[str, Any]) -> None:
    form = told.get("format")
    if form is None or form in _KNOWN_FORMATS:
        return
    del told["format"]
    if form in _FORMATS and "pattern" not in told:
        told["pattern"] = _FORMATS[form]


def _tell_names(told: dict[str, Any], names: Any) -> None:
    """The keys that a mapping may have: each at most once, in their order, where they are listed."""
    if not isinstance(names, Mapping):
        return
    item = told.get("additionalProperties", {})
    listed = names.get("enum", [names["const"]] if "const" in names else None)
    pattern = names.get("pattern", _FORMATS.get(names.get("format", ""))) or _length(names)
    if listed is not None and "properties" not in told and "minProperties" not in told:
        told["properties"] = dict.fromkeys(map(str, listed), {} if item is True else item)
        told["additionalProperties"] = False
    elif pattern is not None and "properties" not in told:
        told["patternProperties"] = {pattern: item}
        told["additionalProperties"] = False
    else:
        told["propertyNames"] = dict(names)  # which is refused


def _length(names: Mapping[str, Any]) -> str | None:
    """The pattern of keys that have a length; None for others."""
    if not names.keys() & {"minLength", "maxLength"} or names.keys() - {"minLength", "maxLength", "type"}:
        return None
    return rf"^[\s\S]{{{names.get('minLength', 0)},{names.get('maxLength', '')}}}$"
