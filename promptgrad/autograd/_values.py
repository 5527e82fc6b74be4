"""Looking into values: copies of containers, the leaves of a value, texts put back into it."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from promptgrad.autograd._record import fields_of, is_record
from promptgrad.content import Audio, File, Image

_ATOMS = (str, int, float, bool, type(None), bytes)
CONTAINERS = frozenset({list, dict, tuple})
"""What `snapshot` copies."""
_DEEPEST = 32  # containers nested deeper are kept by reference
_MOST = 20_000  # leaves of one value that are looked at


def snapshot(value: Any, depth: int = 0) -> Any:
    """The value with its lists, tuples and dicts copied, so that later appends do not change the record."""
    kind = type(value)
    if depth > _DEEPEST:
        return value
    if kind is list:
        return [snapshot(item, depth + 1) for item in value]
    if kind is dict:
        return {key: snapshot(item, depth + 1) for key, item in value.items()}
    if kind is tuple:
        return tuple([snapshot(item, depth + 1) for item in value])
    return value


def snapshots(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values by name, each as `snapshot` has it."""
    copy = dict(values)
    for name, value in copy.items():
        if type(value) is not str:
            copy[name] = snapshot(value)
    return copy


def leaves(value: Any) -> Iterator[tuple[Any, bool]]:
    """Every part of a value, in order, with whether it is a leaf: containers come before what they hold.

    Looks into lists, tuples, sets, mappings, a `Record`, the fields of pydantic objects and dataclasses, whatever has
    `keys` and `[]`, and what a value of another type gives as its `__parts__()`. Nothing notes that parts are read.
    Iterative, each container once, and at most `_MOST` parts.
    """
    stack: list[Any] = [value]
    seen: dict[int, Any] = {}
    budget = _MOST
    while stack and budget:
        budget -= 1
        part = stack.pop()
        if isinstance(part, _ATOMS):
            yield part, True
            continue
        inside = _inside(part)
        if inside is None:
            yield part, True
        elif id(part) not in seen:
            seen[id(part)] = part
            yield part, False
            stack.extend(reversed(inside))


def _inside(part: Any) -> list[Any] | None:
    if isinstance(part, (list, tuple)):
        return list(part)
    if isinstance(part, (set, frozenset)):
        return sorted(part, key=repr)
    if isinstance(part, Mapping):
        inside = list(part.values())
        inside += [key for key in part if isinstance(key, str) and type(key) is not str]  # a plain key is a name
        return inside
    if is_record(part):
        return list(part.__record__()[1].values())
    if isinstance(part, (Image, Audio, File)):
        return [part.url] if part.url else None  # their types are no words of a program
    kind = type(part)
    if hasattr(kind, "__parts__"):
        return list(part.__parts__())
    if hasattr(kind, "model_fields") or hasattr(kind, "__dataclass_fields__"):
        names = kind.model_fields if hasattr(kind, "model_fields") else kind.__dataclass_fields__
        return [getattr(part, name) for name in names if hasattr(part, name)]
    if issubclass(kind, Keyed):
        return [part[name] for name in part.keys()]  # noqa: SIM118 - it need not be iterable
    return None


@runtime_checkable
class Keyed(Protocol):
    """Anything with fields by name, such as an example, a dict, or a row of a database."""

    def keys(self) -> Iterable[Any]: ...

    def __getitem__(self, name: Any) -> Any: ...


def to_json(value: Any, *, media: bool = False) -> Any:
    """The value in JSON types, as far as it can be expressed in them; sets become sorted lists.

    Args:
        value: The value.
        media: Whether images, sounds and files stay as they are, and are not told by their captions.
    """
    if media and isinstance(value, (Image, Audio, File)):
        return value
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    fields = fields_of(value)
    if fields is not None:
        return {str(key): to_json(item, media=media) for key, item in fields.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item, media=media) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((to_json(item) for item in value), key=json.dumps)
    for name in ("to_dict", "model_dump"):
        dump = getattr(type(value), name, None)
        if callable(dump):
            return to_json(dump(value))
    return str(value)
