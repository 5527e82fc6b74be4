"""The arguments of a tool: fields from the signature of a function, or from a JSON schema."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from keyword import iskeyword
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from promptgrad._patterns import late_pattern
from promptgrad.adapters._schema_types import SchemaTypes
from promptgrad.adapters._values import tidy_schema
from promptgrad.errors import SignatureError
from promptgrad.signature import Field

_UNFIT = late_pattern(r"\W")


class Arguments(NamedTuple):
    """What is known of the arguments of a tool.

    Attributes:
        fields: Those of which a type is known, by name.
        required: Names of those without a default.
        schema: The JSON schema of all of them, an object.
    """

    fields: dict[str, Field]
    required: tuple[str, ...]
    schema: dict[str, Any]


def unwrapped(function: Callable[..., Any]) -> tuple[Callable[..., Any], frozenset[str]]:
    """The function in a `functools.partial`, and the names of the arguments that it has been given."""
    given: set[str] = set()
    while isinstance(function, partial):
        given.update(function.keywords)
        function = function.func
    return function, frozenset(given)


def name_of(function: Callable[..., Any] | None) -> str:
    """The name of a function, or of the class of an object that can be called."""
    if function is None:
        return ""
    inner = unwrapped(function)[0]
    return getattr(inner, "__name__", "") or type(inner).__name__


def docstring_of(function: Callable[..., Any] | None) -> tuple[str, dict[str, str]]:
    """What a docstring says of its function, and of each argument, in the styles of Google, NumPy or Sphinx."""
    if function is None:
        return "", {}
    inner = unwrapped(function)[0]
    if inspect.isroutine(inner):
        about, told = _read(inspect.getdoc(inner) or "")
        return about, {**told}
    kind = inner if inspect.isclass(inner) else type(inner)
    about, told = _read(vars(kind).get("__doc__") or "")  # that of a base class is about the base class
    call = kind.__init__ if inspect.isclass(inner) else kind.__call__
    said, more = _read(call.__doc__ or "") if inspect.isfunction(call) else ("", {})
    return about if inspect.isclass(inner) else said or about, {**told, **more}


@lru_cache(512)
def _read(text: str) -> tuple[str, Mapping[str, str]]:
    text = inspect.cleandoc(text)
    if "\n" not in text:
        return text, {}
    import docstring_parser

    try:
        found = docstring_parser.parse(text)
    except docstring_parser.ParseError:
        return text, {}
    told = {entry.arg_name.lstrip("*"): " ".join((entry.description or "").split()) for entry in found.params}
    return (found.description or "").strip(), {name: about for name, about in told.items() if about}


def _is_plain(function: Callable[..., Any]) -> bool:
    return inspect.isroutine(function) or inspect.isclass(function)


def from_function(function: Callable[..., Any], name: str, told: Mapping[str, str]) -> Arguments:
    """The arguments of a function, each of which has a type.

    Args:
        function: The function.
        name: Name of the tool, for errors.
        told: Descriptions by name.

    Raises:
        SignatureError: An argument has no type, or cannot be passed by name.
    """
    inner, given = unwrapped(function)
    target = inspect.unwrap(inner) if _is_plain(inner) else getattr(inner, "__call__", inner)  # noqa: B004
    try:
        hints = get_type_hints(target, include_extras=True)
        parameters = inspect.signature(function).parameters
    except (NameError, TypeError, ValueError) as error:
        raise SignatureError(f"the types of the tool {name!r} cannot be found: {error}") from error
    fields: dict[str, Field] = {}
    required: list[str] = []
    for key, parameter in parameters.items():
        optional = parameter.default is not parameter.empty
        if key in given or (optional and (key not in hints or key.startswith("_"))):
            continue  # the program's own affair: the model cannot know it
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise SignatureError(
                f"the argument {parameter} of the tool {name!r} cannot be passed by name: a tool has named "
                "arguments alone"
            )
        if key not in hints:
            more = " (pass the method of an object, `thing.method`)" if key == "self" else ""
            raise SignatureError(f"the argument {key!r} of the tool {name!r} has no type: write `{key}: str`{more}")
        try:
            fields[key] = Field(key, hints[key], told.get(key) or _description_in(hints[key]), "output")
        except SignatureError as error:
            raise SignatureError(f"the tool {name!r}: {error}") from error
        if not optional:
            required.append(key)
    return Arguments(fields, tuple(required), _schema(fields, required))


def _description_in(annotation: Any) -> str:
    """The description in an annotation: `Annotated[int, "how many"]`, or that of a pydantic `Field`."""
    if get_origin(annotation) is not Annotated:
        return ""
    for extra in get_args(annotation)[1:]:
        about = extra if isinstance(extra, str) else getattr(extra, "description", None)
        if isinstance(about, str):
            return about
    return ""


def _schema(fields: Mapping[str, Field], required: list[str]) -> dict[str, Any]:
    definitions: dict[str, Any] = {}
    properties = {}
    for key, field in fields.items():
        schema = tidy_schema(field.json_schema())
        definitions.update(schema.pop("$defs", {}))
        properties[key] = schema
    whole: dict[str, Any] = {"type": "object", "properties": properties, "required": list(required)}
    return {**whole, "additionalProperties": False, **({"$defs": definitions} if definitions else {})}


def from_schema(parameters: Mapping[str, Any] | None, told: Mapping[str, str]) -> Arguments:
    """The arguments that a JSON schema declares. What it says badly is left out: it is somebody else's.

    Args:
        parameters: The schema.
        told: Descriptions by name, in place of those in it.
    """
    given = dict(parameters or {})
    properties = given.get("properties")
    properties = {
        str(key): {**schema, "description": told[key]} if key in told else dict(schema)
        for key, schema in (properties.items() if isinstance(properties, Mapping) else ())
        if isinstance(schema, Mapping)
    }
    named = given.get("required")
    required = tuple(key for key in named if isinstance(key, str)) if isinstance(named, (list, tuple)) else ()
    fields = {}
    types = SchemaTypes(given)
    for key, schema in properties.items():
        about = schema.get("description")
        annotation = types.of(schema)
        if annotation is Any:
            continue
        try:
            fields[key] = Field(_fit_name(key), annotation, about if isinstance(about, str) else "", "output")
        except SignatureError:
            continue
    whole: dict[str, Any] = {"type": "object", **given, "properties": properties}
    if "required" in given:
        whole["required"] = list(required)
    return Arguments(fields, required, {**whole, "type": "object"})


def _fit_name(key: str) -> str:
    """A name that a field may have; that of an argument of somebody else's may be any text."""
    fits = key.isidentifier() and not key.startswith("_") and not iskeyword(key)
    return key if fits else f"argument_{_UNFIT.sub('_', key)}"
