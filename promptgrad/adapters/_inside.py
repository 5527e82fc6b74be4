"""Parts of a value by a path, as in `items[0].kind`: what type each is of, and where it stands in a reply."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin, get_type_hints

from promptgrad._patterns import late_pattern
from promptgrad.adapters._kinds import bare, is_list, is_mapping, members
from promptgrad.adapters._place import ValuePlace, skip_blanks

_STEP = late_pattern(r"\.(\w+)|\[(\d+)\]|\[\"([^\"]*)\"\]|\['([^']*)'\]")

Step = str | int


def split_path(path: str) -> tuple[str, tuple[Step, ...]]:
    """The name of an output and the steps into its value: `items[0].kind` is `items`, then 0, then `kind`.

    What is no path is a name.
    """
    head = re.match(r"\w+", path)
    if head is None:
        return path, ()
    steps: list[Step] = []
    at = head.end()
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            return path, ()
        steps.append(int(step[2]) if step[2] is not None else next(part for part in step.groups() if part is not None))
        at = step.end()
    return head[0], tuple(steps)


def type_at(annotation: Any, steps: Sequence[Step]) -> Any:
    """The type of a part of a value; None where the type does not say, as for a part of a union."""
    for step in steps:
        kinds = [kind for kind in members(annotation) if kind is not type(None)]
        if len(kinds) != 1:
            return None
        kind = bare(kinds[0])
        origin, args = get_origin(kind) or kind, get_args(kind)
        if is_mapping(origin):
            annotation = args[1] if len(args) == 2 and isinstance(step, str) else None
        elif is_list(origin):
            annotation = _item(origin, args, step)
        else:
            annotation = _fields(kind).get(step) if isinstance(step, str) else None
        if annotation is None:
            return None
    return annotation


def _item(origin: Any, args: tuple[Any, ...], step: Step) -> Any:
    if not isinstance(step, int) or not args or issubclass(origin, (set, frozenset)):
        return None  # a set has no order
    if issubclass(origin, tuple) and args[-1] is not ...:
        return args[step] if step < len(args) else None
    return args[0]


def _fields(kind: Any) -> Mapping[str, Any]:
    model = getattr(kind, "model_fields", None)
    if model is not None:
        return {name: entry.annotation for name, entry in model.items()}
    known = dataclasses.is_dataclass(kind) or hasattr(kind, "__required_keys__") or hasattr(kind, "_fields")
    return get_type_hints(kind) if known else {}


def part_at(value: Any, steps: Sequence[Step]) -> Any:
    """A part of a value.

    Raises:
        LookupError: It has no such part.
    """
    for step in steps:
        if isinstance(step, int) or isinstance(value, Mapping):
            value = value[step]
        elif hasattr(value, step):
            value = getattr(value, step)
        else:
            raise LookupError(step)
    return value


def place_at(reply: str, whole: ValuePlace, steps: Sequence[Step]) -> ValuePlace | None:
    """Where a part of a value stands that is written as JSON; None where it is not."""
    place: ValuePlace | None = whole
    for step in steps:
        place = None if place is None else _child(reply, place.start, step)
    return place


def _child(reply: str, start: int, step: Step) -> ValuePlace | None:
    decoder = json.JSONDecoder()
    wanted = "[" if isinstance(step, int) else "{"
    if reply[start : start + 1] != wanted:
        return None
    at, number = skip_blanks(reply, start + 1), 0
    try:
        while True:
            key: Step = number
            if wanted == "{":
                key, at = decoder.raw_decode(reply, at)
                at = skip_blanks(reply, reply.index(":", at) + 1)
            _, end = decoder.raw_decode(reply, at)
            if key == step:
                return ValuePlace(at, end, reply[end : end + 1])
            after = skip_blanks(reply, end)
            if reply[after : after + 1] != ",":
                return None
            at, number = skip_blanks(reply, after + 1), number + 1
    except ValueError:
        return None
