"""Sets in JSON, sorted by the text of their items, since the order of a Python set differs between processes."""

import json
from collections.abc import Mapping
from typing import Any


def may_hold_sets(schema: Any) -> bool:
    """Whether values of a pydantic core schema can hold a set somewhere."""
    left = [schema]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            if part.get("type") in ("set", "frozenset", "any", "is-instance"):
                return True
            left += part.values()
        elif isinstance(part, (list, tuple)):
            left += part
    return False


def with_sorted_sets(value: Any, data: Any) -> Any:
    """The data that a value was written as, with the items of each set in the order of their JSON.

    Args:
        value: The value.
        data: The content of its JSON, in the order in which the value was iterated.
    """
    if isinstance(data, list) and isinstance(value, (set, frozenset, list, tuple)) and len(value) == len(data):
        items = [with_sorted_sets(*pair) for pair in zip(value, data, strict=True)]
        return sorted(items, key=_text) if isinstance(value, (set, frozenset)) else items
    if not isinstance(data, dict):
        return data
    if isinstance(value, Mapping):
        if len(value) != len(data):
            return data
        return {key: with_sorted_sets(*pair) for key, *pair in zip(data, value.values(), data.values(), strict=True)}
    return {key: with_sorted_sets(getattr(value, key, None), item) for key, item in data.items()}


def _text(item: Any) -> str:
    return json.dumps(item, ensure_ascii=False, sort_keys=True)
