"""The fields that the keys of an object stand for: `to_blame` for "to blame" and "toBlame", `runs` for "run"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from typing import Any

_LONGEST_NAME = 200
"""A key of more characters is no name of a field, and is not looked at for one."""


class FieldNames:
    """Finds the field that a key stands for.

    Args:
        names: The names of the fields.
        lists: Those whose values are lists.
    """

    def __init__(self, names: Iterable[str], lists: Iterable[str] = ()) -> None:
        self._names = list(names)
        self._lists = frozenset(lists)
        self._by_key: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for name in self._names:
            self._by_key.setdefault(_key(name), []).append(name)
            self._by_stem.setdefault(_stem(name), []).append(name)

    def all_of(self, key: str) -> list[str]:
        """The fields whose names are the key, apart from case and from signs between words."""
        return self._by_key.get(_key(key), [])

    def sole(self, key: str, given: Mapping[Any, Any]) -> str:
        """The field whose name is the key in the other number, if no other key may be it; else the key."""
        found = self._by_stem.get(_stem(key), []) if len(_stem(key)) > 2 else []
        keys = [other for other in given if isinstance(other, str) and _stem(other) == _stem(key)]
        return found[0] if len(found) == len(keys) == 1 else key

    def list_of(self, key: str) -> str:
        """The field of several values of which the key is the name of one; "" if there is none."""
        found = self._by_stem.get(_stem(key), []) if len(_stem(key)) > 2 else []
        return found[0] if len(found) == 1 and found[0] in self._lists and found[0] != key else ""

    def item_of(self, name: str, key: str, item: Any) -> Any:
        """The value of a field under a key; one item of a list stands under a key in the singular."""
        if name in self._lists and _key(name) == f"{_key(key)}s" and isinstance(item, (int, float, dict)):
            return [item]
        return item


def is_near(key: str, name: str) -> bool:
    """Whether a key may be a misspelt name, a part of it or more than it, or one of them an abbreviation: `qty`."""
    if len(key) > _LONGEST_NAME:
        return False
    one, other = sorted((_key(key), _key(name)), key=len)
    if 2 < len(one) < len(other) < 60 and one[0] == other[0]:
        same = next((at for at, letter in enumerate(one) if other[at] != letter), len(one))
        letters = iter(other[same:])
        if all(
            letter in letters and letter not in "aeiou" for letter in one[same:]
        ):  # `dept`, but no `date` in duration
            return True
    if min(len(one), len(other)) < 4 or max(len(one), len(other)) > 60:
        return False
    return one in other or other in one or SequenceMatcher(None, one, other).ratio() >= 0.8


def _key(name: str) -> str:
    return name if len(name) > _LONGEST_NAME else re.sub(r"[\s_-]+", "", name.casefold())


def _stem(name: str) -> str:
    return _key(name).removesuffix("s")
