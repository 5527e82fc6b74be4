"""What passes between code in a sandbox and the program around it: plain data, of a bounded size.

The process of `Subprocess` executes this file by its path: it imports the standard library alone.
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any

MOST_DEPTH = 64
MOST_ITEMS = 200_000
MOST_BITS = 14_000  # of whole numbers: Python writes no longer ones as text

_LEAVES = frozenset({str, float, bytes, bool, type(None)})  # passed on as they are


def granted(value: Any, place: str) -> Any:
    """A value for the code, in exact built-in types: subclasses of `str` and the like become what they extend.

    Args:
        value: None, a number, text or bytes, or a list, tuple, dict or set of such.
        place: What it is, for the message.

    Raises:
        TypeError: It is no plain data.
        ValueError: It holds itself, or is nested too deeply.
    """

    def strange(item: Any) -> Any:
        raise TypeError(
            f"{place} holds {type(item).__name__}, and code in a sandbox gets plain data alone: None, numbers, texts, "
            "bytes, and lists, tuples, dicts and sets of them"
        )

    return _copied(value, strange)


def received(value: Any, own: str = "") -> Any:
    """A value of the code, in plain data: records become dicts, dates texts, and what is strange its `repr`.

    Args:
        value: The value.
        own: The name of the module of the code, whose objects are records.

    Raises:
        ValueError: It is too deep, has too many parts, or holds a whole number with too many digits.
    """
    return _copied(value, lambda item: vars(item) if own and _is_record(item, own) else _as_text(item))


def whole(value: Any) -> Any:
    """Plain data with a sign in place of each half of a character, for what writes texts as UTF-8."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, (list, tuple, set)):
        return type(value)([whole(part) for part in value])
    if isinstance(value, dict):
        return {whole(key): whole(part) for key, part in value.items()}
    return value


def pack(value: Any) -> Any:
    """Plain data in the types of JSON; `unpack` is the way back."""
    if isinstance(value, bytes):
        return {"bytes": b64encode(value).decode()}
    if isinstance(value, list):
        return [pack(part) for part in value]
    if isinstance(value, (tuple, set)):
        return {type(value).__name__: [pack(part) for part in value]}
    if isinstance(value, dict):
        return {"dict": [[pack(key), pack(part)] for key, part in value.items()]}
    return value


def unpack(value: Any) -> Any:
    """The plain data that `pack` was given.

    Raises:
        ValueError: It is nothing that `pack` gives.
    """
    if isinstance(value, list):
        return [unpack(part) for part in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (kind, inside), *_ = value.items()
        if kind == "bytes" and isinstance(inside, str):
            return b64decode(inside)
        if kind in ("tuple", "set", "dict") and isinstance(inside, list):
            parts = [unpack(part) for part in inside]
            return tuple(parts) if kind == "tuple" else set(parts) if kind == "set" else dict(parts)
    raise ValueError("it is no packed data")


def _copied(value: Any, strange: Any) -> Any:
    if type(value) in _LEAVES:
        return value
    left = [MOST_ITEMS]

    def copied(item: Any, depth: int) -> Any:
        if type(item) in _LEAVES:
            return item
        if isinstance(item, int):
            if item.bit_length() > MOST_BITS:
                raise ValueError(f"a whole number of {item.bit_length()} bits is too long to be passed on")
            return int(item)
        for kind in (str, float, bytes):
            if isinstance(item, kind):
                return _exact(kind, item)
        if depth > MOST_DEPTH:
            raise ValueError(f"it is nested more than {MOST_DEPTH} deep, or holds itself")
        if isinstance(item, (list, tuple, set, frozenset)):
            count(item)
            parts = [copied(part, depth + 1) for part in item]
            return parts if isinstance(item, list) else tuple(parts) if isinstance(item, tuple) else set(parts)
        if isinstance(item, Mapping):
            count(item)
            return {copied(key, depth + 1): copied(part, depth + 1) for key, part in item.items()}
        return copied(strange(item), depth + 1)

    def count(items: Any) -> None:
        left[0] -= len(items)
        if left[0] < 0:
            raise ValueError(f"it has more than {MOST_ITEMS} parts")

    return copied(value, 0)


def _exact(kind: Any, item: Any) -> Any:
    return str.__str__(item) if kind is str else kind(item)


def _is_record(item: Any, own: str) -> bool:
    return getattr(type(item), "__module__", "") == own and hasattr(item, "__dict__")


def _as_text(item: Any) -> Any:
    if isinstance(item, (datetime, date, time)):
        return item.isoformat()
    attributes = getattr(item, "attributes", None)  # an object of a class that the code defined
    if isinstance(attributes, dict):
        return attributes
    return repr(item)[:10_000]
