"""What is told of the entries of a cache, and the file that they are exported to."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptgrad._files import write_text
from promptgrad.errors import DataError
from promptgrad.lm._completion import Completion

_FORMAT = "promptgrad cache 1"


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One reply of a cache.

    Attributes:
        key: Digest of the request and of the language model.
        model: The model that answered, as it names itself; empty where a file of an earlier version does not say.
        size: Bytes of the reply.
        made: When it was put there, in seconds since 1970; None in a cache without a file, 0 where it is not known.
        used: When a process read it last from the file, within an hour; as `made`.
    """

    key: str
    model: str
    size: int
    made: float | None = None
    used: float | None = None

    def __repr__(self) -> str:
        day = "" if not self.used else f", used {time.strftime('%Y-%m-%d', time.gmtime(self.used))}"
        return f"CacheEntry({self.key[:8]}, {self.model!r}, {self.size} bytes{day})"


@dataclass(frozen=True, slots=True, repr=False)
class CacheDiff:
    """How two caches differ, by keys.

    Attributes:
        here: Keys that only this one has.
        there: Keys that only the other one has.
        changed: Keys that both have with different replies.
        same: Number of keys with equal replies.
    """

    here: tuple[str, ...]
    there: tuple[str, ...]
    changed: tuple[str, ...]
    same: int

    def __bool__(self) -> bool:
        return bool(self.here or self.there or self.changed)

    def __repr__(self) -> str:
        return (
            f"CacheDiff({len(self.here)} only here, {len(self.there)} only there, {len(self.changed)} changed, "
            f"{self.same} the same)"
        )


Item = tuple[CacheEntry, Completion]


def compare(here: Iterable[Item], there: Iterable[Item]) -> CacheDiff:
    """Compare the replies of two caches, whatever they cost and when they came."""
    one, two = _replies(here), _replies(there)
    common = one.keys() & two.keys()
    changed = tuple(sorted(key for key in common if one[key] != two[key]))
    return CacheDiff(
        tuple(sorted(one.keys() - common)), tuple(sorted(two.keys() - common)), changed, len(common) - len(changed)
    )


def _replies(items: Iterable[Item]) -> dict[str, str]:
    return {entry.key: json.dumps(plain(reply), sort_keys=True) for entry, reply in items}


def plain(reply: Completion) -> dict[str, Any]:
    """A reply in JSON types as a cache keeps it: without its cost."""
    data = reply.to_dict()
    data.pop("usage", None)
    data.pop("cached", None)
    return data


def write_items(path: Path, items: Iterable[Item]) -> int:
    """Write replies as JSON lines, in the order of their keys; returns their number."""
    lines = [
        json.dumps({"key": entry.key, "made": entry.made, "used": entry.used, "reply": plain(reply)})
        for entry, reply in sorted(items, key=lambda item: item[0].key)
    ]
    write_text(path, "\n".join([json.dumps({"format": _FORMAT}), *lines, ""]))
    return len(lines)


def read_items(path: Path) -> Iterator[Item]:
    """The replies in a file that `write_items` wrote.

    Raises:
        DataError: It is no such file, or a line of it cannot be read.
    """
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                data = json.loads(line)
                if number == 1:
                    if data.get("format") != _FORMAT:
                        raise ValueError("it is not the export of a cache")
                    continue
                yield _read(data, len(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise DataError(f"{path}, line {number}: {error}") from None


def _read(data: Mapping[str, Any], size: int) -> Item:
    key = str(data["key"])
    bytes.fromhex(key)
    reply = Completion.from_dict(data["reply"]).as_cached()
    return CacheEntry(key, reply.model, size, data.get("made"), data.get("used")), reply
