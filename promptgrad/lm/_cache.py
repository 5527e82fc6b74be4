"""`Cache`: equal requests are paid for once."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from promptgrad import aio
from promptgrad.errors import BudgetExceeded, JournalError, ReplayError, UnknownPriceError
from promptgrad.lm._base import LM
from promptgrad.lm._channel import DIRECT, answerer
from promptgrad.lm._completion import CACHE_HIT, Completion
from promptgrad.lm._fork import reset_after_fork
from promptgrad.lm._layer import Layer
from promptgrad.lm._request import Request

if TYPE_CHECKING:
    from promptgrad.lm._store import Store

_ASKERS_OWN = (BudgetExceeded, UnknownPriceError, JournalError, ReplayError)
"""Errors of the run or the replay that made the request, not of the LM."""


class MemoryStore:
    """The memory of a cache.

    Args:
        most: Most replies that are kept; the least recently used is dropped first.

    Attributes:
        replies: The replies, by the digest of request and LM, the least recently used first.
        flying: The calls in flight, by the same digest.
        store: The file behind it, if there is one.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.replies: OrderedDict[str, Completion] = OrderedDict()
        self.flying: dict[str, aio.Signal[Completion | None]] = {}
        self.store: Store | None = None

    def empty(self) -> MemoryStore:
        """A new memory of the same size, without a file."""
        return MemoryStore(self.most)

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
            if hit is not None:
                self._keep(key, hit)
        return hit

    def put(self, key: str, completion: Completion) -> None:
        """Remember a reply, unless it was filtered or is empty: it is worth asking for anew."""
        if not _is_worth_keeping(completion):
            return
        self._keep(key, completion if completion.trace is None else completion.as_cached())
        if self.store is not None:
            self.store.put(key, completion)

    def drop(self, key: str) -> None:
        """Forget a reply, in the file too."""
        self.replies.pop(key, None)
        if self.store is not None:
            self.store.drop(key)

    def _keep(self, key: str, completion: Completion) -> None:
        self.replies[key] = completion
        while len(self.replies) > self.most:
            self.replies.popitem(last=False)

    def __len__(self) -> int:
        return len(self.replies) if self.store is None else len(self.store)

    def __bool__(self) -> bool:
        return True


def _is_worth_keeping(completion: Completion) -> bool:
    return not completion.is_filtered and bool(completion.content or completion.refusal)


class Cache(Layer):
    """Answer repeated requests from memory and, with a `path`, from a SQLite file that many processes may share.

    The key is the digest of the complete request, with its options and replicate, and of the wrapped LM's identity:
    model, endpoint, default options, weight version. Set another `replicate` to get another reply to the same prompt.
    Equal requests that are in flight at the same time are sent once, and an error of the LM is raised in all waiting
    callers. An error of the sender's run, such as the end of its budget, is raised only there, and so is one that broke
    off a stream, which is never retried; the next caller then sends the request anew. Errors are not cached, nor are
    replies that a filter stopped and empty ones, and `Predict` has those forgotten that were cut or do not parse. Where
    weights need a gradient, the cache is not read, because a cached reply has no gradient.

    Cost: no LM call for a hit; inside a run a hit is journalled as a call without tokens and money, so that a resumed
    run makes the same decisions even if it finds the cache empty.

    Args:
        lm: The LM to wrap.
        path: A folder, in which `lm.db` is made, or a file ending in `.db`; None for memory only.
        max_entries: Most replies kept in memory; the least recently used is dropped first.

    Raises:
        ValueError: The file at `path` is of a newer version, or `max_entries` is below one.
    """

    def __init__(self, lm: LM, path: str | os.PathLike[str] | None = None, *, max_entries: int = 10_000) -> None:
        super().__init__(lm)
        if max_entries < 1:
            raise ValueError(f"max_entries must be at least 1, not {max_entries}")
        self._memory = MemoryStore(max_entries)
        reset_after_fork(self)
        if path is not None:
            from promptgrad.lm._store import Store

            place = Path(path)
            self._memory.store = Store(place if place.suffix == ".db" else place / "lm.db")

    @property
    def max_entries(self) -> int:
        """Most replies kept in memory."""
        return self._memory.most

    def after_fork(self) -> None:
        """Forget the calls in flight, which belong to the parent."""
        self._memory.flying = {}

    async def complete(self, request: Request) -> Completion:
        """Answer one request, from the cache if it can."""
        lm = self.lm
        if lm.traces():
            return await lm.complete(request)
        key = request.digest(lm.identity())
        link, trackers = answerer()
        memory = self._memory if link is DIRECT else link.memory(self._memory)
        while True:
            hit = memory.find(key)
            if hit is not None:
                paid = None if link is DIRECT else await link.book(lm, request, key, hit.to_dict)
                for tracker in trackers:
                    tracker.hit(paid)
                return hit
            mine: aio.Signal[Completion | None] = aio.Signal()
            other = memory.flying.setdefault(key, mine)
            if other is mine:
                break
            await other  # now it is in the cache; or only its caller failed, and the next one sends it
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
            broken = request.listener is not None and request.listener.started
            if failure is None or broken or isinstance(failure, _ASKERS_OWN):
                mine.set(None)
            else:
                mine.fail(failure)

    def forget(self, request: Request) -> None:
        """Forget the reply to a request, in memory and in the file."""
        link, _ = answerer()
        memory = self._memory if link is DIRECT else link.memory(self._memory)
        memory.drop(request.digest(self.lm.identity()))
        super().forget(request)

    def clear(self) -> None:
        """Clear the memory; a file is not changed."""
        self._memory.replies.clear()

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
