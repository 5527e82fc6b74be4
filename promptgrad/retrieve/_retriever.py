"""`Retriever`: what every index is, whatever it compares; `Stored`, one that keeps passages of its own."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

from promptgrad import aio
from promptgrad.errors import DataError
from promptgrad.retrieve._best import best
from promptgrad.retrieve._filter import Filter, check_filter
from promptgrad.retrieve._folder import write_folder
from promptgrad.retrieve._passage import Passage
from promptgrad.retrieve._passages import Passages

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from promptgrad.retrieve._passages import Mask

R = TypeVar("R", bound="Retriever")

_IN_PLACE = 20_000  # passages up to which a search is too short for a thread of its own


class Retriever:
    """Base of all indexes: `search` finds passages for a query.

    `BM25`, `Dense`, `Hybrid` and `Rerank` are those there are; to search elsewhere, give `nn.Retrieve` a function. With
    the same passages and queries the results are the same, in the same order: of equal scores, the passage that was
    added first comes first.
    """

    kind: ClassVar[str] = ""
    kinds: ClassVar[dict[str, type[Retriever]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in cls.__dict__:
            Retriever.kinds[cls.kind] = cls

    @overload
    def search(self, query: str, k: int = 3, *, filter: Filter | None = None) -> list[Passage]: ...
    @overload
    def search(
        self, query: list[str] | tuple[str, ...], k: int = 3, *, filter: Filter | None = None
    ) -> list[list[Passage]]: ...
    def search(self, query: str | list[str] | tuple[str, ...], k: int = 3, *, filter: Filter | None = None) -> Any:
        """Find the `k` passages that fit a query best, the best first; fewer if fewer fit.

        Args:
            query: A query, or a list of queries, which gives a list of lists.
            k: The most passages.
            filter: What the passages must be besides: values of their metadata by name, such as
                `{"language": "en", "year": [2023, 2024]}`, where a list means any of them; or a function of a passage.

        Raises:
            TypeError: A query is no text, `k` is no whole number, or `filter` is no filter.
            ValueError: `k` is below 1.
            AsyncUsageError: Called where it would block a running loop of ours; use `await index.asearch(...)`.
        """
        return aio.drive(self.asearch(query, k, filter=filter))

    @overload
    async def asearch(self, query: str, k: int = 3, *, filter: Filter | None = None) -> list[Passage]: ...
    @overload
    async def asearch(
        self, query: list[str] | tuple[str, ...], k: int = 3, *, filter: Filter | None = None
    ) -> list[list[Passage]]: ...
    async def asearch(
        self, query: str | list[str] | tuple[str, ...], k: int = 3, *, filter: Filter | None = None
    ) -> Any:
        """As `search`, from a coroutine; a search in many passages runs in a thread."""
        one = isinstance(query, str)
        queries = [query] if isinstance(query, str) else list(query)
        for each in queries:
            if not isinstance(each, str):
                raise TypeError(f"a query is a text, not {type(each).__name__}")
        if isinstance(k, bool) or not isinstance(k, int):
            raise TypeError(f"k is the number of passages, a whole number, not {k!r}")
        if k < 1:
            raise ValueError(f"k is the number of passages, at least 1, not {k}")
        found = await self._search([str(each) for each in queries], k, check_filter(filter))
        return found[0] if one else found

    async def _search(self, queries: list[str], k: int, wanted: Filter | None) -> list[list[Passage]]:
        raise NotImplementedError(f"{type(self).__name__} does not define _search()")

    def add(self, passages: Iterable[Any]) -> None:
        """Add passages; the next search finds them, as if they had been there from the start.

        Raises:
            DataError: One is no passage, or its id is there already; then none is added.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define add()")

    def refresh(self) -> None:
        """Do now what the next search would do first, such as the vectors of passages that were added."""
        aio.drive(self.arefresh())

    async def arefresh(self) -> None:
        """As `refresh`, from a coroutine."""

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the index into a folder, completely or not at all; `retrieve.load(folder)` reads it.

        The folder holds arrays, JSON and no code. Where there is an index, it is replaced in one step.

        Raises:
            DataError: A passage has metadata that JSON has not.
        """
        aio.drive(self.asave(folder))

    async def asave(self, folder: str | os.PathLike[str]) -> None:
        """As `save`, from a coroutine."""
        await self.arefresh()
        await aio.in_thread(write_folder, folder, self.kind, self._settings(), self._write)

    def digest(self) -> str:
        """Digest of what decides what is found, as far as it is read: on it depends whether results are used again.

        Those are its settings, the number of passages, and the first and the last hundred of them: an index of a
        million passages is known by its ends and its size.
        """
        facts = [self.kind, len(self), self._settings(), self._known_by()]
        text = json.dumps(facts, sort_keys=True, default=repr)
        return f"{self.kind}-{hashlib.blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=12).hexdigest()}"

    def _known_by(self) -> Any:
        """What the digest reads of the passages, in JSON types."""
        return None

    def _settings(self) -> dict[str, Any]:
        """What the index is made of besides its files, in JSON types."""
        raise NotImplementedError(f"{type(self).__name__} cannot be saved")

    def _write(self, folder: Path) -> None:
        """Write the files of the index."""
        raise NotImplementedError(f"{type(self).__name__} cannot be saved")

    @classmethod
    def _read_back(cls, folder: Path, settings: dict[str, Any], given: dict[str, Any]) -> Retriever:
        """Make the index again of its files, its settings, and what the user gave to `load`."""
        raise NotImplementedError(f"{cls.__name__} cannot be loaded")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} does not define __len__()")

    def __bool__(self) -> bool:
        return True  # an index without passages is one

    def __copy__(self: R) -> R:
        return self

    def __deepcopy__(self: R, memo: dict[int, Any]) -> R:
        return self  # a copy of a program searches in the same index


class Stored(Retriever):
    """An index that keeps passages; a subclass scores them.

    Attributes:
        passages: The passages.
    """

    def __init__(self, passages: Iterable[Any]) -> None:
        self.passages = Passages()
        self.passages.add(passages)
        self._turn = aio.Semaphore(1)
        self._lock = threading.RLock()

    def add(self, passages: Iterable[Any]) -> None:
        """Add passages, as `Retriever.add`."""
        with self._lock:
            self.passages.add(passages)

    def __len__(self) -> int:
        return len(self.passages)

    def _known_by(self) -> Any:
        return self.passages.ends()

    async def _heavy(self, function: Any, *arguments: Any) -> Any:
        """Call a function that computes: in a thread, if it is long."""
        if len(self) <= _IN_PLACE or aio.is_driven():
            return function(*arguments)
        return await aio.in_thread(function, *arguments)

    def _mask(self, wanted: Filter | None) -> Mask | None:
        return self.passages.mask(wanted) if isinstance(wanted, Mapping) else None

    def _accepted(
        self, scores: NDArray[np.float32], k: int, wanted: Filter | None, least: float
    ) -> list[tuple[int, float]]:
        """The best places with a score above `least` that a function accepts, and their scores."""
        import numpy as np

        function = None if wanted is None or isinstance(wanted, Mapping) else wanted
        above = np.flatnonzero(scores > least)
        own, most, number = scores[above], k, len(above)
        while True:
            kept: list[tuple[int, float]] = []
            for place in above[best(own, most)].tolist():
                if len(kept) == k:
                    break
                score = float(scores[place])
                if function is None or function(self.passages.passage(place, score)):
                    kept.append((place, score))
            if len(kept) == k or most >= number:
                return kept
            most = min(4 * most, number)  # from the start: a function may be asked about a passage twice

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_turn", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _turn=aio.Semaphore(1), _lock=threading.RLock())


def name_of(function: Any) -> str | None:
    """The name of a function, an embedder or a module in a saved index; None for None."""
    if function is None:
        return None
    own = getattr(function, "name", None)
    if isinstance(own, str) and own:
        return own
    owner = getattr(function, "__self__", None)
    if owner is not None and not isinstance(owner, ModuleType):
        return f"{type(owner).__name__}.{function.__name__}"
    return getattr(function, "__qualname__", None) or type(function).__name__


def write_members(folder: Path, members: Iterable[Retriever]) -> None:
    """Write indexes into folders inside of a folder."""
    for number, member in enumerate(members):
        (folder / str(number)).mkdir()
        member._write(folder / str(number))


def read_member(folder: Path, kind: str, settings: dict[str, Any], given: dict[str, Any]) -> Retriever:
    """Read an index from the folder of its files.

    Raises:
        DataError: Its kind is not known.
    """
    if kind not in Retriever.kinds:
        raise DataError(f"the index in {folder} is of the kind {kind!r}, which this promptgrad does not know")
    return Retriever.kinds[kind]._read_back(folder, settings, given)
