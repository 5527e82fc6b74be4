"""Values of fields as text and back: one way of writing them, and a tolerant way of reading them."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args, get_origin

from promptgrad.adapters._kinds import bare, members
from promptgrad.adapters._pieces import may_hold_media
from promptgrad.content import (
    Audio,
    Citation,
    Document,
    File,
    History,
    Image,
    References,
    is_reasoning,
    language_of,
    media_in,
)
from promptgrad.errors import InputError
from promptgrad.signature import Field, Signature, is_union


def missing_input(name: str, signature: Signature) -> InputError:
    """The error of a call that lacks an input."""
    return InputError(f"the input {name!r} is missing; the signature is {signature!r}")


def choices(field: Field) -> dict[str, Any] | None:
    """The values by text of a field that accepts one of several texts (a Literal or Enum); None for other fields."""
    annotation = bare(field.annotation)
    if get_origin(annotation) is Literal:
        values = get_args(annotation)
        if all(type(value) is str for value in values):
            return {value: value for value in values}
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        members = list(annotation)
        if members and all(type(member.value) is str for member in members):
            return {member.value: member for member in members}
    return None


def is_verbatim(field: Field) -> bool:
    """Whether the value of a field is its text as a reply has it, so that its beginning is that of the value.

    That of code is not: there may be a fence around it.
    """
    return field.is_text and language_of(field.annotation) is None


def writer(field: Field) -> Callable[[Any], str] | None:
    """The function that writes a value; None for a text, which is written as it is."""
    if field.is_text:
        return None
    options = choices(field)
    if options is not None:
        return lambda value: str(value.value if isinstance(value, enum.Enum) else value)
    odd = may_hold_media(field.annotation) or History in members(field.annotation)
    return partial(_write_text_alone, field) if odd else field.dump_json


def _write_text_alone(field: Field, value: Any) -> str:
    if isinstance(value, History):
        raise InputError(
            f"field {field.name!r} holds {value!r}, and the adapter in use writes no earlier turns: use adapter='chat'"
        )
    references = References()
    text = field.dump_json(value, references)
    media = references[0][1] if references else media_in(value)
    if media is not None:
        raise InputError(
            f"field {field.name!r} holds {media!r}, and the adapter in use writes text alone: use adapter='chat' or "
            "'json', or write an adapter whose Format.user returns parts"
        )
    return text


_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "minProperties": "at least {} keys",
    "maxProperties": "at most {} keys",
    "pattern": "matching the regular expression {}",
}
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    bytes: "base64",
    Image: "an image",
    Audio: "a sound",
    File: "a file",
    History: "earlier turns",
    Document: "a document",
}
_MANY = {
    Image: "images",
    Audio: "sounds",
    File: "files",
    Document: "documents with their numbers",
    Citation: 'a JSON list of {"document": its number, "quote": "its very words"}',
}


def describe(field: Field, *, as_json: bool = False) -> str:
    """The form of a value, in words for a language model: kind, limits, description.

    Args:
        field: The field.
        as_json: Whether the value is part of a JSON object, so that texts are quoted.
    """
    words = _kind(field, as_json=as_json)
    return f"{words}; {field.description}" if field.description else words


def _kind(field: Field, *, as_json: bool) -> str:
    text = "a string" if as_json else "text"
    if field.is_plain:
        return text
    lists = [kind for kind in members(field.annotation) if kind is not type(None)]
    if len(lists) == 1 and get_origin(lists[0]) is list and get_args(lists[0])[0] in _MANY:
        words = _MANY[get_args(lists[0])[0]]
        return words if lists == list(members(field.annotation)) else f"{words}, or null"
    schema = tidy_schema({key: value for key, value in field.json_schema().items() if key != "description"})
    options = choices(field)
    annotation = bare(field.annotation)
    is_root = hasattr(field.annotation, "__pydantic_root_model__") and annotation is not field.annotation
    inner = [bare(arg) for arg in get_args(annotation) if arg is not type(None)] if is_union(annotation) else []
    quoted = as_json or options is None
    if options is not None or _is_enum(annotation):
        words = _one_of(annotation, quoted=quoted)
    elif field.is_text:
        words = _text_kind(field, text)
    elif annotation in _KINDS:
        words = _KINDS[annotation]
    elif inner == [str]:
        words = "a string in quotes, or null"
    elif len(inner) == 1 and inner[0] in _KINDS:
        words = f"{_KINDS[inner[0]]}, or null"
    elif len(inner) == 1 and (get_origin(inner[0]) is Literal or _is_enum(inner[0])):
        words = f"{_one_of(inner[0], quoted=True)}, or null"
    elif is_root or (_has_keys(schema) and (field.role == "output" or '"description"' in json.dumps(schema))):
        return f"JSON that fits the schema {json.dumps(schema, ensure_ascii=False)}{_names_within(annotation)}"
    else:
        words = f"JSON of the type {field.type_name}{_names_within(annotation)}"
    return ", ".join([words, *(limit.format(schema[key]) for key, limit in _LIMITS.items() if key in schema)])


def _text_kind(field: Field, text: str) -> str:
    """What is said of a text that has constraints or a meaning of its own."""
    if is_reasoning(field.annotation):
        return "your reasoning" if field.role == "output" else "reasoning"
    language = language_of(field.annotation)
    if language is None:
        return text
    words = f"{language.name} code".strip()
    return f"{words}, without a code fence" if field.role == "output" else words


def _is_enum(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, enum.Enum) and len(annotation) > 0


def _one_of(annotation: Any, *, quoted: bool) -> str:
    """The values of a `Literal` or an `Enum`, the latter with the names that say more than the value."""
    values = list(annotation) if _is_enum(annotation) else get_args(annotation)
    shown = []
    for member in values:
        value = member.value if isinstance(member, enum.Enum) else member
        written = json.dumps(value, ensure_ascii=False, default=str) if quoted else f"`{value}`"
        told = isinstance(member, enum.Enum) and _letters(member.name) != _letters(str(value))
        shown.append(f"{written} ({member.name})" if told else written)
    return f"one of {', '.join(shown)}"


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def _names_within(annotation: Any) -> str:
    """What the values of enums inside a type mean, where their names say more than they do."""
    told: dict[str, str] = {}
    waiting, seen = [annotation], set()
    while waiting:
        kind = bare(waiting.pop())
        if _is_enum(kind):
            pairs = [(member.value, member.name) for member in kind]
            if any(_letters(str(value)) != _letters(name) for value, name in pairs):
                told[kind.__name__] = ", ".join(f"{json.dumps(v, default=str)} is {name}" for v, name in pairs)
        elif isinstance(kind, type) and kind not in seen and get_origin(kind) is None:
            seen.add(kind)
            fields = getattr(kind, "model_fields", None)
            waiting += (
                [entry.annotation for entry in fields.values()]
                if fields
                else getattr(kind, "__annotations__", {}).values()
            )
        else:
            waiting += get_args(kind)
    return "".join(f"; {name}: {words}" for name, words in sorted(told.items()))


def _has_keys(schema: Mapping[str, Any]) -> bool:
    return "$defs" in schema or "properties" in schema


def tidy_schema(schema: Any) -> Any:
    """A JSON schema without the titles that pydantic makes of the names."""
    if isinstance(schema, list):
        return [tidy_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    tidy = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            tidy[key] = {name: tidy_schema(item) for name, item in value.items()}
        elif key in ("enum", "const", "default", "examples"):
            tidy[key] = value
        elif key != "title":
            tidy[key] = tidy_schema(value)
    return tidy


def listed(names: Sequence[str]) -> str:
    """Names for a sentence: `a`, `b` and `c`."""
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
