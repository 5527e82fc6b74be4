"""`Passages`: the texts, ids and metadata of an index; those of a saved one stay in their file until they are shown."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgrad.errors import DataError
from promptgrad.retrieve._filter import fits, key_of
from promptgrad.retrieve._passage import Passage, read_passage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

LINES = "passages.jsonl"
STARTS = "passages.npy"
_KEPT = 16  # masks of filters
_ENDS = 100

Row = tuple[str, str | None, dict[str, Any] | None]


class Lines:
    """The passages of a folder: one JSON line each, read where it stands, through a memory map.

    Args:
        folder: The folder, with the lines and the array of where each begins.
    """

    def __init__(self, folder: Path) -> None:
        import numpy as np

        self.folder = folder
        self._starts = np.load(folder / STARTS, mmap_mode="r", allow_pickle=False)
        size = (folder / LINES).stat().st_size
        fits = self._starts.ndim == 1 and self._starts.dtype == np.int64 and len(self._starts) > 0
        if not fits or int(self._starts[-1]) != size:
            raise DataError(f"{folder / STARTS} does not fit {LINES}")
        with (folder / LINES).open("rb") as file:
            self._data: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, place: int) -> Row:
        start, end = int(self._starts[place]), int(self._starts[place + 1])
        text, ident, metadata = json.loads(self._data[start:end].decode("utf-8", "surrogatepass"))
        return text, ident, metadata

    def __reduce__(self) -> tuple[Any, ...]:
        return (Lines, (self.folder,))


class Passages:
    """The passages of an index, each at a place from 0, in the order in which they were added.

    Args:
        lines: Those of a folder, which come first.
    """

    def __init__(self, lines: Lines | None = None) -> None:
        self._lines = lines
        self._first = 0 if lines is None else len(lines)
        self._texts: list[str] = []
        self._ids: dict[int, str] = {}
        self._metadata: dict[int, dict[str, Any]] = {}
        self._taken: set[str] | None = None  # all ids, as soon as one was given
        self._masks: dict[str, Mask] = {}

    def __len__(self) -> int:
        return self._first + len(self._texts)

    def add(self, items: Iterable[Any]) -> None:
        """Add passages: all of them, or none if one is not a passage.

        Raises:
            DataError: One is no passage, or its id is there already.
        """
        if isinstance(items, (str, Mapping)):
            raise DataError(f"passages are a list of passages, not one of type {type(items).__name__}")
        begin = len(self)
        texts: list[str] = []
        ids: dict[int, str] = {}
        metadata: dict[int, dict[str, Any]] = {}
        for number, item in enumerate(items):
            text, ident, known = read_passage(item, number)
            texts.append(text)
            if ident is not None:
                ids[begin + number] = ident
            if known is not None:
                metadata[begin + number] = known
        if ids or self._ids or self._lines is not None:
            if self._taken is None:
                self._taken = set(map(self.id, range(begin)))
            fresh: set[str] = set()
            for place in range(begin, begin + len(texts)):
                ident = ids.get(place, str(place))
                if ident in self._taken or ident in fresh:
                    raise DataError(f"the id {ident!r} stands twice: passage {place - begin} of those added has it")
                fresh.add(ident)
            self._taken |= fresh
        self._texts += texts
        self._ids |= ids
        self._metadata |= metadata
        self._masks = {}

    def row(self, place: int) -> Row:
        """Text, id if one was given, and metadata."""
        if place < self._first and self._lines is not None:
            return self._lines[place]
        return self._texts[place - self._first], self._ids.get(place), self._metadata.get(place)

    def text(self, place: int) -> str:
        """The text of a passage."""
        return self.row(place)[0] if place < self._first else self._texts[place - self._first]

    def id(self, place: int) -> str:
        """The id of a passage: the one that was given, else its place."""
        ident = self.row(place)[1] if place < self._first else self._ids.get(place)
        return str(place) if ident is None else ident

    def texts(self, begin: int = 0, end: int | None = None) -> Iterator[str]:
        """The texts from a place on, up to another."""
        for place in range(begin, len(self) if end is None else end):
            yield self.text(place)

    def passage(self, place: int, score: float = 0.0) -> Passage:
        """A passage, with a score."""
        text, ident, metadata = self.row(place)
        return Passage(text, str(place) if ident is None else ident, score, metadata)

    def mask(self, wanted: Mapping[str, Any]) -> Mask:
        """For each passage, whether its metadata has all the wanted values. Kept for the next search."""
        import numpy as np

        key = key_of(wanted)
        found = self._masks.get(key)
        if found is None or len(found) < len(self):
            found = np.zeros(len(self), dtype=bool)
            places: Iterable[int] = range(self._first)
            for place in (*places, *self._metadata) if wanted else range(len(self)):
                found[place] = fits(self.row(place)[2] or {}, wanted)
            if len(self._masks) >= _KEPT:
                self._masks = {}
            self._masks[key] = found
        return found

    def ends(self) -> list[Row]:
        """The first hundred rows and the last hundred."""
        places = range(len(self))
        return [self.row(place) for place in dict.fromkeys([*places[:_ENDS], *places[-_ENDS:]])]

    def write(self, folder: Path) -> None:
        """Write them into a folder.

        Raises:
            DataError: Metadata has a value that JSON has not.
        """
        import numpy as np

        starts = np.zeros(len(self) + 1, dtype=np.int64)
        with (folder / LINES).open("wb") as file:
            for place in range(len(self)):
                text, ident, metadata = self.row(place)
                try:
                    line = json.dumps([text, ident, metadata], ensure_ascii=False, allow_nan=False)
                except (TypeError, ValueError) as error:
                    raise DataError(
                        f"the metadata of passage {self.id(place)!r} cannot be saved: {error}: {metadata!r:.200}"
                    ) from None
                starts[place + 1] = starts[place] + file.write(f"{line}\n".encode("utf-8", "surrogatepass"))
        np.save(folder / STARTS, starts, allow_pickle=False)
