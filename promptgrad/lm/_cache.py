"""`Cache`: equal requests are paid for once."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from promptgrad import aio
from promptgrad._numbers import optional_count
from promptgrad.lm._base import LM
from promptgrad.lm._channel import DIRECT, answerer
from promptgrad.lm._completion import CACHE_HIT, Completion
from promptgrad.lm._fork import reset_after_fork
from promptgrad.lm._layer import ASKERS_OWN, Layer
from promptgrad.lm._parts import weigh
from promptgrad.lm._request import Request

if TYPE_CHECKING:
    from promptgrad.lm._cache_entry import CacheDiff, CacheEntry
    from promptgrad.lm._store import Store


class MemoryStore:
    """The memory of a cache.

    Args:
        most: Most replies that are kept; the least recently used is dropped first.
        most_bytes: Most bytes of replies that are kept, if they are bounded; a larger reply is not kept at all.

    Attributes:
        replies: The replies, by the digest of request and LM, the least recently used first.
        flying: The calls in flight, by the same digest, each with those who wait for it.
        store: The file behind it, if there is one.
    """

    def __init__(self, most: int, most_bytes: int | None = None) -> None:
        self.most = most
        self.most_bytes = most_bytes
        self.size = 0  # of the replies, counted only where it is bounded
        self._lock = Lock()
        self.replies: OrderedDict[str, Completion] = OrderedDict()
        self.flying: dict[str, list[aio.Signal[None]]] = {}
        self.store: Store | None = None

    def keep_in(self, path: str | os.PathLike[str], **bounds: Any) -> None:
        """Have a file behind it: `lm.db` in a folder, or a file ending in `.db`; with the bounds of a `Store`."""
        from promptgrad.lm._store import Store

        place = Path(path)
        self.store = Store(place if place.suffix == ".db" else place / "lm.db", **bounds)

    def empty(self) -> MemoryStore:
        """A new memory of the same size, without a file."""
        return MemoryStore(self.most, self.most_bytes)

    def find(self, key: str) -> Completion | None:
        """The reply, marked as cached; None if it is not known."""
        replies = self.replies
        hit = replies.get(key)
        if hit is not None:
            if hit.usage is not CACHE_HIT:  # still as it came: most replies are never requested again
                hit = replies[key] = hit.as_cached()
            try:
                replies.move_to_end(key)
            except KeyError:  # another thread has just dropped it
                return hit
        elif self.store is not None:
            hit = self.store.get(key)
            if hit is not None and not _is_worth_keeping(hit):  # an earlier version kept it
                return None
            if hit is not None:
                self._keep(key, hit)
        return hit

    def put(self, key: str, completion: Completion) -> None:
        """Remember a reply, unless it was filtered, broke off or is blank: it is worth asking for anew."""
        if not _is_worth_keeping(completion):
            return
        self._keep(key, completion if completion.trace is None else completion.as_cached())
        if self.store is not None:
            self.store.put(key, completion)

    def drop(self, key: str) -> None:
        """Forget a reply, in the file too."""
        self._forget(self.replies.pop(key, None))
        if self.store is not None:
            self.store.drop(key)

    def clear(self) -> None:
        """Forget all replies; the file keeps its own."""
        self.replies.clear()
        self.size = 0

    def entries(self) -> list[CacheEntry]:
        """What is told of the replies, the least recently used first: of those in the file, if there is one."""
        from promptgrad.lm._cache_entry import CacheEntry

        if self.store is not None:
            return self.store.entries()
        return [CacheEntry(key, reply.model, _weight(reply)) for key, reply in list(self.replies.items())]

    def items(self) -> Iterator[tuple[CacheEntry, Completion]]:
        """The entries with their replies."""
        if self.store is not None:
            yield from self.store.items()
            return
        for entry in self.entries():
            reply = self.replies.get(entry.key)
            if reply is not None:
                yield entry, reply.as_cached()

    def _keep(self, key: str, completion: Completion) -> None:
        replies, most_bytes = self.replies, self.most_bytes
        if most_bytes is None:
            replies[key] = completion
            while len(replies) > self.most:
                replies.popitem(last=False)
            return
        with self._lock:
            self._forget(replies.pop(key, None))
            replies[key] = completion
            self.size += _weight(completion)
            while replies and (self.size > most_bytes or len(replies) > self.most):
                self._forget(replies.popitem(last=False)[1])

    def _forget(self, dropped: Completion | None) -> None:
        if dropped is not None and self.most_bytes is not None:
            self.size -= _weight(dropped)

    def __len__(self) -> int:
        return len(self.replies) if self.store is None else len(self.store)

    def __bool__(self) -> bool:
        return True


def _weight(completion: Completion) -> int:
    """Bytes of a reply and of its further samples."""
    return weigh(completion.content) + sum([weigh(other.content) for other in completion.more])


def _is_worth_keeping(completion: Completion) -> bool:
    """Whether a reply and its further samples were not filtered, did not break off, and hold more than blanks."""
    if completion.finish_reason != "stop" and (completion.is_filtered or completion.is_broken):
        return False
    content = completion.content
    if not completion.refusal and (not content or (isinstance(content, str) and content.isspace())):
        return False
    return not completion.more or all(map(_is_worth_keeping, completion.more))


class Cache(Layer):
    """Answer repeated requests from memory and, with a `path`, from a SQLite file that many processes may share.

    The key is the digest of the complete request, with its options and replicate, and of the wrapped LM's identity:
    model, endpoint, default options, weight version. Set another `replicate` to get another reply to the same prompt.
    Equal requests that are in flight at the same time are sent once, and an error of the LM is raised in all waiting
    callers. An error of the sender's run, such as the end of its budget, is raised only there, and so is one that broke
    off a stream, which is never retried; the next caller then sends the request anew. Errors are not cached, nor are
    replies that a filter stopped, that broke off, or that hold nothing but blanks, and `Predict` has those forgotten
    that were cut or do not parse. Where
    weights need a gradient, the cache is not read, because a cached reply has no gradient.

    Cost: no LM call for a hit; inside a run a hit is journalled as a call without tokens and money, so that a resumed
    run makes the same decisions even if it finds the cache empty.

    Args:
        lm: The LM to wrap.
        path: A folder, in which `lm.db` is made, or a file ending in `.db`; None for memory only.
        max_entries: Most replies kept in memory; the least recently used is dropped first.
        max_bytes: Most bytes of replies kept in memory; None for no bound.
        max_file_entries: Most replies kept in the file, by all who give it this bound; None for no bound. It is checked
            after every hundredth part of it. The use of a reply is noted once an hour.
        max_file_bytes: Most bytes of replies kept in the file; None for no bound.
        clock: Function that returns seconds since 1970, for the file; tests pass their own.

    Raises:
        ValueError: The file at `path` is of a newer version, a bound is below one, or one of a file is without `path`.
    """

    def __init__(
        self,
        lm: LM,
        path: str | os.PathLike[str] | None = None,
        *,
        max_entries: int = 10_000,
        max_bytes: int | None = None,
        max_file_entries: int | None = None,
        max_file_bytes: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(lm)
        bounds = {"max_file_entries": max_file_entries, "max_file_bytes": max_file_bytes}
        for what, bound in {"max_entries": max_entries, "max_bytes": max_bytes, **bounds}.items():
            optional_count(what, bound)
        if path is None and (max_file_entries or max_file_bytes):
            raise ValueError("max_file_entries and max_file_bytes are bounds of a file: give path=")
        self._memory = MemoryStore(max_entries, max_bytes)
        self._clock = clock
        reset_after_fork(self)
        if path is not None:
            self._memory.keep_in(path, most=max_file_entries, most_bytes=max_file_bytes, clock=clock)

    @property
    def max_entries(self) -> int:
        """Most replies kept in memory."""
        return self._memory.most

    def after_fork(self) -> None:
        """Forget the calls in flight, which belong to the parent."""
        self._memory.flying = {}

    async def complete(self, request: Request) -> Completion:
        """Answer one request, from the cache if it can."""
        lm, known = self.lm, self._known_by  # as which the LM below is known
        if known.traces():
            return await lm.complete(request)
        key = request.digest(known.identity())
        link, trackers = answerer()
        memory = self._memory if link is DIRECT else link.memory(self._memory)
        while True:
            hit = memory.find(key)
            if hit is not None:
                paid = None if link is DIRECT else await link.book(lm, request, key, hit.to_dict)
                for tracker in trackers:
                    tracker.hit(paid, hit.answered_by or lm.name)
                return hit
            mine: list[aio.Signal[None]] = []
            others = memory.flying.setdefault(key, mine)
            if others is mine:
                break
            over: aio.Signal[None] = aio.Signal()
            others.append(over)
            if memory.flying.get(key) is others:  # it was not over before this one was among those who wait
                await over  # now it is in the cache; or only its caller failed, and the next one sends it
        failure: Exception | None = None
        try:
            completion = await lm.complete(request)
            memory.put(key, completion)
            return completion
        except Exception as error:
            failure = error
            raise
        finally:
            memory.flying.pop(key, None)
            for over in mine:
                broken = request.listener is not None and request.listener.started
                if failure is None or broken or isinstance(failure, ASKERS_OWN):
                    over.set(None)
                else:
                    over.fail(failure)

    def forget(self, request: Request) -> None:
        """Forget the reply to a request, in memory and in the file."""
        link, _ = answerer()
        memory = self._memory if link is DIRECT else link.memory(self._memory)
        memory.drop(request.digest(self.lm.identity()))
        super().forget(request)

    def clear(self) -> None:
        """Clear the memory; a file is not changed."""
        self._memory.clear()

    def entries(self, model: str | None = None) -> list[CacheEntry]:
        """List the replies, the least recently used first: those in the file, if there is one, else those in memory.

        A key is the digest of a request and an LM: `request.digest(lm.identity())`.

        Args:
            model: Only replies of this model, as it names itself.
        """
        return [entry for entry in self._memory.entries() if model is None or entry.model == model]

    def prune(
        self,
        *,
        older_than: float | None = None,
        unused_for: float | None = None,
        model: str | None = None,
        max_entries: int | None = None,
        max_bytes: int | None = None,
    ) -> int:
        """Remove replies, in memory and in the file, and return their number.

        First go those of which all that is given of `older_than`, `unused_for` and `model` is true; then the least
        recently used, until the others are within the bounds. The file gives the space back to the disk.

        Args:
            older_than: Seconds since the reply was put there.
            unused_for: Seconds since a process read it last from the file.
            model: The model that answered, as it names itself.
            max_entries: Most replies that stay.
            max_bytes: Most bytes of replies that stay.

        Raises:
            ValueError: Nothing is given, or less than 0; or an age, and there is no file: a memory keeps no times.
        """
        ages = (older_than, unused_for)
        if any(given is not None and given < 0 for given in (*ages, max_entries, max_bytes)):
            raise ValueError("prune() takes ages and bounds of at least 0; clear() empties the memory")
        if ages == (None, None) and model is None and max_entries is None and max_bytes is None:
            raise ValueError("prune() needs to be told what to remove; clear() empties the memory")
        if ages != (None, None) and self._memory.store is None:
            raise ValueError("a cache in memory keeps no times: older_than= and unused_for= are for one with a path")
        entries, now = self._memory.entries(), self._clock()
        gone: list[CacheEntry] = []
        if ages != (None, None) or model is not None:
            gone = [
                entry
                for entry in entries
                if (model is None or entry.model == model)
                and (older_than is None or now - (entry.made or 0) > older_than)
                and (unused_for is None or now - (entry.used or 0) > unused_for)
            ]
        lost = {entry.key for entry in gone}
        stay = [entry for entry in entries if entry.key not in lost]
        size = sum(entry.size for entry in stay)
        for place, entry in enumerate(stay):
            few = max_entries is None or len(stay) - place <= max_entries
            if few and (max_bytes is None or size <= max_bytes):
                break
            size -= entry.size
            gone.append(entry)
        for entry in gone:
            self._memory.drop(entry.key)
        if self._memory.store is not None and gone:
            self._memory.store.shrink()
        return len(gone)

    def export(self, path: str | os.PathLike[str]) -> int:
        """Write all replies to a file of JSON lines, for `load` and `diff` in another place; returns their number."""
        from promptgrad.lm._cache_entry import write_items

        return write_items(Path(path), self._memory.items())

    def load(self, path: str | os.PathLike[str]) -> int:
        """Add the replies of a file that `export` wrote; those that are there stay. Returns the number of new ones.

        Raises:
            DataError: It is no such file; what was read before the line that is named has been added.
        """
        from promptgrad.lm._cache_entry import read_items

        new = 0
        for entry, reply in read_items(Path(path)):
            if self._memory.find(entry.key) is None:
                self._memory.put(entry.key, reply)
                new += 1
        return new

    def diff(self, other: Cache | str | os.PathLike[str]) -> CacheDiff:
        """Compare the replies with those of another cache, or of a file that `export` wrote."""
        from promptgrad.lm._cache_entry import compare, read_items

        there = other._memory.items() if isinstance(other, Cache) else read_items(Path(other))
        return compare(self._memory.items(), there)

    def flush(self) -> None:
        """Wait until the file, if there is one, holds every reply so far."""
        if self._memory.store is not None:
            self._memory.store.flush()

    def __len__(self) -> int:
        return len(self._memory)

    def __bool__(self) -> bool:
        return True  # an empty cache is a language model too, in `lm or other`

    def close(self) -> None:
        """Write the remaining replies to the file and close it; close the wrapped LM."""
        if self._memory.store is not None:
            self._memory.store.close()
        super().close()

    def __repr__(self) -> str:
        store = self._memory.store
        where = "" if store is None else f", path={str(store.path)!r}"
        return f"Cache({self.lm!r}{where})"
