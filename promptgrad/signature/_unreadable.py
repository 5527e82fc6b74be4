"""Types of which no reply can ever be read as a value, though values of them can be made in code."""

import enum
from typing import Any


def unreadable(schema: Any) -> str:
    """Why no JSON is a value of a pydantic core schema, or of a part of it, and what to write; empty if there is some.

    A validator of the user's own may read anything, so what is inside one is not looked at.
    """
    left = [schema]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            kind = part.get("type")
            if kind == "enum" and (problem := _in_enum(part["cls"])):
                return problem
            if kind == "literal" and (problem := _in_literal(part["expected"])):
                return problem
            if not str(kind).startswith("function"):
                left += part.values()
        elif isinstance(part, (list, tuple)):
            left += part
    return ""


def _in_enum(cls: type[enum.Enum]) -> str:
    odd = [member for member in cls if not isinstance(member.value, (str, int, float, type(None)))]
    if not odd or cls._missing_.__func__ is not enum.Enum._missing_.__func__:  # type: ignore[attr-defined]
        return ""
    names = ", ".join(map(repr, cls.__members__))
    return (
        f"no reply can be read as a {cls.__name__}, whose member {odd[0].name} is a {type(odd[0].value).__name__}: "
        f"give its members texts or numbers, or write Literal[{names}] and look the member up by its name"
    )


def _in_literal(expected: Any) -> str:
    odd = [member for member in expected if isinstance(member, enum.Enum) and not isinstance(member, (str, int))]
    if not odd:
        return ""
    return (
        f"no reply can be read as a Literal of {odd[0]}: write {type(odd[0]).__name__} itself, or a Literal of the "
        "values or names"
    )
