"""`Limit`: bounds on the calls in flight and on what is sent in a minute."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from promptgrad import aio
from promptgrad._numbers import check_count
from promptgrad.errors import LMError, LMReplyError, LMStatusError, OverloadedError, RateLimitError
from promptgrad.lm._base import LM
from promptgrad.lm._channel import REPLY_TOKENS, estimate_tokens
from promptgrad.lm._completion import Completion
from promptgrad.lm._fork import reset_after_fork
from promptgrad.lm._layer import Layer
from promptgrad.lm._minute import Minute
from promptgrad.lm._places import UNKNOWN, places_of
from promptgrad.lm._request import Request

_TURNED_AWAY = (RateLimitError, OverloadedError)
_ANSWERS = (LMStatusError, LMReplyError)
"""Errors that the endpoint answers with; of all but those above it has worked on the request."""


class Limit(Layer):
    """Let at most `concurrency` calls go to the wrapped LM at once; the others wait in line, first come first served.

    Below that, the number follows what the endpoint takes: it falls when requests are turned away (429, overload), and
    grows by one at a time while they are served. All LMs of the process that ask the same model at the same address
    share this cap; `stats()` shows it. Put `Retry` around, so that a request that waits to be sent again has no place.

    The limit applies across all threads and event loops that use this object.

    Args:
        lm: The LM to wrap.
        concurrency: The most calls in flight.
        requests_per_minute: The most requests in any minute; None for no limit.
        tokens_per_minute: The most tokens in any minute, estimated before a call and corrected after it.
        clock: Function that returns seconds; tests pass their own.
        sleep: Function that waits for a minute to pass; tests pass their own.

    Raises:
        ValueError: A limit is below one.
    """

    def __init__(
        self,
        lm: LM,
        concurrency: int,
        *,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = aio.sleep,
    ) -> None:
        super().__init__(lm)
        check_count("concurrency", concurrency)
        self.concurrency = concurrency
        self.requests_per_minute = requests_per_minute
        self.tokens_per_minute = tokens_per_minute
        limited = requests_per_minute is not None or tokens_per_minute is not None
        self._minute = Minute(requests_per_minute, tokens_per_minute, clock=clock, sleep=sleep) if limited else None
        self._places = places_of(getattr(lm.transport, "endpoint", ""))
        self._own = aio.Semaphore(concurrency, self._places.lock)
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Free all places: the calls in flight belong to the parent."""
        self._places.reset()
        self._own = aio.Semaphore(self.concurrency, self._places.lock)

    async def complete(self, request: Request) -> Completion:
        """Answer one request, when it is its turn."""
        own, places = self._own, self._places
        level = places.take(own) or await places.enter(own)
        served: bool | None = None
        try:
            if self._minute is None:
                completion = await self.lm.complete(request)
            else:
                completion = await self._in_its_minute(self._minute, request)
            served = True
            return completion
        except LMError as error:
            if not error.replayed and isinstance(error, _ANSWERS):
                served = not isinstance(error, _TURNED_AWAY)
            raise
        finally:
            places.release(level, served, own)

    async def _in_its_minute(self, minute: Minute, request: Request) -> Completion:
        room = request.max_tokens or getattr(self.transport, "options", {}).get("max_tokens") or REPLY_TOKENS
        entry = await minute.enter(estimate_tokens(request, self.name) + room * request.samples)
        completion = await self.lm.complete(request)
        minute.settle(entry, completion.usage.tokens)
        return completion

    def stats(self) -> dict[str, Any]:
        """The counts of the LM below, and `cap`: the calls that may be in flight now, `waiting`, `turned_away`."""
        places = self._places
        return {
            **super().stats(),
            "concurrency": self.concurrency,
            "cap": self.concurrency if places.cap == UNKNOWN else min(self.concurrency, places.cap),
            "waiting": places.waiting,
            "turned_away": places.turned_away,
        }

    def __repr__(self) -> str:
        return f"Limit({self.lm!r}, concurrency={self.concurrency})"
