"""What passes between code in a sandbox and the program around it: plain data, of a bounded size."""

from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any

MOST_DEPTH = 64
MOST_ITEMS = 200_000
MOST_BITS = 14_000  # of whole numbers: Python writes no longer ones as text


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


def received(value: Any) -> Any:
    """A value of the code, in plain data: records become dicts, dates texts, and what is strange its `repr`.

    Raises:
        ValueError: It is too deep, has too many parts, or holds a whole number with too many digits.
    """
    return _copied(value, _as_text)


def _copied(value: Any, strange: Any) -> Any:
    left = [MOST_ITEMS]

    def copied(item: Any, depth: int) -> Any:
        if item is None or isinstance(item, bool):
            return item
        if isinstance(item, int):
            if item.bit_length() > MOST_BITS:
                raise ValueError(f"a whole number of {item.bit_length()} bits is too long to be passed on")
            return int(item)
        for kind in (str, float, bytes):
            if isinstance(item, kind):
                return item if type(item) is kind else _exact(kind, item)
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


def _as_text(item: Any) -> Any:
    if isinstance(item, (datetime, date, time)):
        return item.isoformat()
    attributes = getattr(item, "attributes", None)  # an object of a class that the code defined
    if isinstance(attributes, dict):
        return attributes
    return repr(item)[:10_000]
