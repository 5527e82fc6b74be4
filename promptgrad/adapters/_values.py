"""Values of fields as text and back: one way of writing them, and a tolerant way of reading them."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal, get_args, get_origin

from promptgrad.errors import InputError, ParseError
from promptgrad.lm import AudioPart, FilePart, ImagePart
from promptgrad.signature import Field, is_union

_FENCE = re.compile(r"```[ \t]*[\w+-]*[ \t]*\n(.*?)(?:\n?[ \t]*```|\Z)", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\d.,]*\d|\s?%)")
_BULLET = re.compile(r"^[ \t]*(?:[-*•]|\d+[.)])[ \t]+(.*\S)[ \t]*$")
_DECORATION = "*_`\"' \t\n"
_DIGITS_BEFORE = re.compile(r"[\w.]$")


def choices(field: Field) -> dict[str, Any] | None:
    """The values by text of a field that accepts one of several texts (a Literal or Enum); None for other fields."""
    annotation = field.annotation
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Literal:
        values = get_args(annotation)
        if all(type(value) is str for value in values):
            return {value: value for value in values}
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        members = list(annotation)
        if members and all(type(member.value) is str for member in members):
            return {member.value: member for member in members}
    return None


def writer(field: Field) -> Callable[[Any], str] | None:
    """The function that writes a value; None for a text, which is written as it is."""
    if field.is_text:
        return None
    options = choices(field)
    if options is not None:
        return lambda value: str(value.value if isinstance(value, enum.Enum) else value)
    return partial(_write_json, field)


def _write_json(field: Field, value: Any) -> str:
    media = _media_in(value)
    if media is not None:
        raise InputError(
            f"field {field.name!r} holds {type(media).__name__}(...), and this adapter writes text alone: send it with "
            "lm([...]), or write an adapter whose Format.user returns parts"
        )
    return field.dump_json(value)


def _media_in(value: Any) -> Any:
    """The first image, sound or file in a value; None if there is none."""
    if isinstance(value, (list, tuple)):
        return next((media for item in value if (media := _media_in(item)) is not None), None)
    return value if isinstance(value, (ImagePart, AudioPart, FilePart)) else None


def reader(field: Field) -> Callable[[str], Any] | None:
    """The function that reads a value from text; None for a plain text, which needs no reading."""
    if field.is_plain:
        return None
    if field.is_text:
        return field.validate
    options = choices(field)
    if options is not None:
        return lambda text: _read_choice(field, options, text)
    return lambda text: read_typed(field, text)


def _read_choice(field: Field, options: Mapping[str, Any], text: str) -> Any:
    for attempt in (text, text.strip(), text.strip(_DECORATION).rstrip(".")):
        if attempt in options:
            return options[attempt]
    bare = text.strip(_DECORATION).rstrip(".").casefold()
    same = [value for option, value in options.items() if option.casefold() == bare]
    if len(same) == 1:
        return same[0]
    if field.constraints or not options:
        return field.validate(text)
    shown = ", ".join(repr(option) for option in options)
    raise ParseError(
        f"output {field.name!r} is one of {shown}; got {text!r}",
        reply=text,
        reason=f"`{field.name}` must be one of {shown}, not {text!r}",
    )


def read_typed(field: Field, text: str) -> Any:
    """A typed value from text: as JSON, as JSON in a fence, mended JSON, a plain word, a number among words.

    Raises:
        ParseError: The text fits in none of these ways.
    """
    text = text.strip()
    try:
        return field.validate_json(text)
    except ParseError as error:
        blame = error
    fenced = _FENCE.search(text)
    if fenced:
        text = fenced.group(1).strip()
    bare = text.strip(_DECORATION)
    mended = mend_json(text)
    number = _only_number(text)
    lines = [line for line in text.splitlines() if line.strip()]
    items = [match.group(1) for line in lines if (match := _BULLET.match(line))]
    attempts: list[Callable[[], Any]] = [lambda: field.validate(text), lambda: field.validate(bare.rstrip("."))]
    if bare.casefold() in ("none", "null"):
        attempts.insert(0, lambda: field.validate(None))
    if fenced:
        attempts.insert(0, lambda: field.validate_json(text))
    if number is not None:
        attempts.append(lambda: field.validate_json(number))
    if items and len(items) == len(lines):
        attempts.append(lambda: field.validate(items))
    if mended is not None:
        attempts.append(lambda: field.validate_json(json.dumps(mended)))
    for attempt in attempts:
        try:
            return attempt()
        except ParseError as error:
            if "Invalid JSON" in blame.reason or (mended is not None and attempt is attempts[-1]):
                blame = error  # report what is wrong with the value rather than with its spelling
    raise blame


def _only_number(text: str) -> str | None:
    """The number in a text that holds exactly one, as JSON."""
    found = [m for m in _NUMBER.finditer(text) if not _DIGITS_BEFORE.search(text[: m.start()])]
    if len(found) != 1 or len(re.findall(r"\d+(?:[.,]\d+)*", text)) != 1:
        return None
    return found[0].group().replace(",", "").removeprefix("+")


def mend_json(text: str) -> Any:
    """The object or list in a text that is nearly JSON; None where there is none.

    It accepts what language models write: prose around it, single quotes, trailing commas, Python's True and None,
    unquoted keys, line breaks in strings, an end that was cut off.
    """
    start = min((i for i in (text.find("{"), text.find("[")) if i >= 0), default=-1)
    if start < 0:
        return None
    text = text[start:]
    try:
        value, _ = json.JSONDecoder(strict=False).raw_decode(text)
    except ValueError:
        import json_repair

        value = json_repair.loads(text, skip_json_loads=True)
    return value if isinstance(value, (dict, list)) and value else None


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
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", bytes: "base64"}


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
    schema = tidy_schema({key: value for key, value in field.json_schema().items() if key != "description"})
    options = choices(field)
    annotation = get_args(field.annotation)[0] if get_origin(field.annotation) is Annotated else field.annotation
    inner = [arg for arg in get_args(annotation) if arg is not type(None)] if is_union(annotation) else []
    if options is not None:
        words = "one of " + ", ".join(json.dumps(o, ensure_ascii=False) if as_json else f"`{o}`" for o in options)
    elif field.is_text:
        words = text
    elif annotation in _KINDS:
        words = _KINDS[annotation]
    elif inner == [str]:
        words = "a string in quotes, or null"
    elif len(inner) == 1 and inner[0] in _KINDS:
        words = f"{_KINDS[inner[0]]}, or null"
    elif _has_keys(schema) and (field.role == "output" or '"description"' in json.dumps(schema)):
        return f"JSON that fits the schema {json.dumps(schema, ensure_ascii=False)}"
    else:
        words = f"JSON of the type {field.type_name}"
    return ", ".join([words, *(limit.format(schema[key]) for key, limit in _LIMITS.items() if key in schema)])


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
