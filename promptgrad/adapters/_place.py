"""Where the value of an output stands in a reply."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from promptgrad._patterns import late_pattern
from promptgrad.adapters._kinds import members

_BLANK = late_pattern(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True)
class ValuePlace:
    """A value in a reply.

    Attributes:
        start: Where it begins.
        end: Where it ends.
        after: What follows, as far as it shows that the value has ended; "" where the reply ends.
    """

    start: int
    end: int
    after: str


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The values of a `Literal`, an enum or a bool, and None where it may be nothing; () for other types."""
    kinds = members(annotation)
    nothing = (None,) if type(None) in kinds else ()
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    kind = kinds[0] if len(kinds) == 1 else None
    if kind is bool:
        return (True, False, *nothing)
    if get_origin(kind) is Literal:
        return (*get_args(kind), *nothing)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return (*kind, *nothing)
    return ()


def place_in_object(reply: str, name: str) -> ValuePlace | None:
    """The value of a key of the object that a reply is."""
    decoder = json.JSONDecoder()
    at = skip_blanks(reply, reply.find("{") + 1)
    try:
        while at:
            key, at = decoder.raw_decode(reply, at)
            start = skip_blanks(reply, reply.index(":", at) + 1)
            _, end = decoder.raw_decode(reply, start)
            if key == name:
                return ValuePlace(start, end, reply[end : end + 1])
            at = skip_blanks(reply, reply.index(",", end) + 1)
    except ValueError:
        return None
    return None


def place_in_sections(
    reply: str, sections: re.Pattern[str], names: Mapping[str, str], wanted: str
) -> ValuePlace | None:
    """The value under the marker of an output.

    Args:
        reply: The reply.
        sections: The pattern of markers, whose first group is a name.
        names: Outputs by the names of markers.
        wanted: The output.
    """
    marks = list(sections.finditer(reply))
    for number, mark in enumerate(marks):
        if names.get(mark[1]) == wanted:
            more = marks[number + 1] if number + 1 < len(marks) else None
            return _within(reply, mark.end(), len(reply) if more is None else more.start(), more and more.end())
    return None


def place_in_tags(reply: str, name: str) -> ValuePlace | None:
    """The value between the tags of an output."""
    head, tail = f"<{name}>", f"</{name}>"
    low = reply.find(head)
    high = reply.find(tail, low + len(head))
    return None if low < 0 or high < 0 else _within(reply, low + len(head), high, high + len(tail))


def place_of_all(reply: str, end: int, after: int | None) -> ValuePlace | None:
    """The value that a reply begins with."""
    return _within(reply, 0, end, after)


def _within(reply: str, low: int, high: int, after: int | None) -> ValuePlace | None:
    body = reply[low:high]
    text = body.strip()
    if not text:
        return None
    start = low + len(body) - len(body.lstrip())
    end = start + len(text)
    return ValuePlace(start, end, "" if after is None else reply[end:after])


def skip_blanks(text: str, at: int) -> int:
    """The place of the first character from `at` on that is no blank of JSON."""
    found = _BLANK.match(text, at)
    return at if found is None else found.end()
