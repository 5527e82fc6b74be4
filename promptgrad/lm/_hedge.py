"""`Hedge`: a second request where the first one is late."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from promptgrad import aio, run
from promptgrad._numbers import is_number
from promptgrad.errors import BudgetExceeded, LMError
from promptgrad.lm._channel import REPLY_TOKENS, channel, estimate_tokens
from promptgrad.lm._completion import Completion, Usage
from promptgrad.lm._layer import Layer, layered
from promptgrad.lm._prices import Prices, cost
from promptgrad.lm._request import Request
from promptgrad.lm._resolve import LMLike, resolve
from promptgrad.lm._stream import Delta, Listener
from promptgrad.lm._transport import Transport

LEAST_REPLIES = 20
"""Replies after which a quantile of their times is known."""


class Hedge(Layer):
    """Send a second request where the first one is late, and take the reply that comes first.

    `lm.Hedge("openai/gpt-4o-mini", after=3.0)`; or `quantile=0.95`, for the twentieth of the requests that take the
    longest. It cuts the long tail of waiting times, and costs what the second requests cost. The other request is
    cancelled, at the server too. Of a stream the one counts whose first piece comes first. If one of the two fails, the
    other one is waited for.

    The hedge is below all layers of the LM: a cache sees one reply, `Retry` a failure only where both failed; the
    second request takes no place of `Limit`. Both are counted by `track_usage` and in the budget, the one that was
    cancelled with the tokens of its prompt, as nobody says what it cost; a budget that has no room for it sends none.
    In a run the reply that came first is journalled, so that a resumed run has the same one.

    Cost: one call, and another one where the first is late.
    Source: Dean and Barroso 2013, "The Tail at Scale".

    Args:
        lm: The LM: one with its layers, or a name.
        after: Seconds after which the second request is sent.
        quantile: In place of seconds: the share of the last 256 replies that came sooner. The first 20 are not hedged.
        sleep: Function that waits; tests pass their own.

    Raises:
        ValueError: Neither `after` nor `quantile` is given, or both; or one is out of its range.
        TypeError: The LM has no transport that could be asked twice.
    """

    def __init__(
        self,
        lm: LMLike,
        after: float | None = None,
        *,
        quantile: float | None = None,
        sleep: Callable[[float], Awaitable[object]] = aio.sleep,
    ) -> None:
        if (after is None) == (quantile is None):
            raise ValueError("a Hedge takes after= seconds or quantile=, one of the two")
        if after is not None and not (is_number(after) and after >= 0):
            raise ValueError(f"after is a number of seconds, not {after!r}")
        if quantile is not None and not (is_number(quantile) and 0 < quantile < 1):
            raise ValueError(f"quantile is between 0 and 1, not {quantile!r}")
        inner = resolve(lm)
        below = inner.transport
        if not isinstance(below, Transport):
            raise TypeError(f"a Hedge asks a transport twice, and {below!r} is not one")
        self.after = after
        self.quantile = quantile
        super().__init__(layered(inner, {id(below): HedgedTransport(below, after, quantile, sleep)}))

    def __repr__(self) -> str:
        when = f"after={self.after}" if self.quantile is None else f"quantile={self.quantile}"
        return f"Hedge({self.lm!r}, {when})"


class HedgedTransport(Transport):
    """A transport that is asked a second time where it is late; below journal, budget and cassettes."""

    in_place = True

    def __init__(
        self,
        inner: Transport,
        after: float | None,
        quantile: float | None,
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        super().__init__(inner.name, adapter=inner.adapter)
        self.inner = inner
        self.options = inner.options
        self.endpoint = inner.endpoint
        self._after = after
        self._quantile = quantile
        self._sleep = sleep
        self._lock = threading.Lock()
        self._seconds: deque[float] = deque(maxlen=256)
        self._hedged = self._won = 0

    def identity(self) -> str:
        """Return the identity of the transport."""
        return self.inner.identity()

    @property
    def prices(self) -> Prices | None:
        """US dollars for a million input and a million output tokens; None where they are not known."""
        return self.inner.prices

    @property
    def media(self) -> frozenset[str] | None:
        """What the transport takes beside text."""
        return self.inner.media

    def traces(self) -> bool:
        """True if the transport would attach a weight trace."""
        return self.inner.traces()

    def with_defaults(self, request: Request) -> Request:
        """Return the request with the transport's options where it leaves them open."""
        return self.inner.with_defaults(request)

    def _record(self, completion: Completion) -> dict[str, Any]:
        return self.inner._record(completion)

    def _restore(self, request: Request, reply: Mapping[str, Any]) -> Completion:
        return self.inner._restore(request, reply)

    def stats(self) -> dict[str, Any]:
        """The counts of the transport, `hedged`: second requests, and `hedges_won`: how many of them came first."""
        return {**self.inner.stats(), "hedged": self._hedged, "hedges_won": self._won}

    def close(self) -> None:
        """Close the transport."""
        self.inner.close()

    async def complete(self, request: Request) -> Completion:
        """Answer one request; in a run, also book the second request that was sent for it."""
        completion = await super().complete(request)
        session = run.current()
        if session is not None:
            late = _second(request.digest(self.identity()))
            if session.touch(late):
                paid = Usage.from_dict((session.journal.reply(late) or {})["usage"])
                for tracker in channel.get()[1]:
                    tracker.add(paid, self.name)
        return completion

    def _delay(self) -> float | None:
        """Seconds after which a request is late; None as long as that is not known."""
        if self._quantile is None:
            return self._after
        with self._lock:
            known = sorted(self._seconds)
        return known[int(self._quantile * len(known))] if len(known) >= LEAST_REPLIES else None

    async def _send(self, request: Request, key: str) -> Completion:
        delay = self._delay()
        if delay is None:
            reply = await self.inner.reach(request, key)
        else:
            reply = await self._race(request, key, delay)
        with self._lock:
            self._seconds.append(reply.usage.seconds)
        return reply

    async def _reach(self, request: Request, key: str) -> Completion:
        return await self.inner.reach(request, key)

    async def _race(self, request: Request, key: str, delay: float) -> Completion:
        race = _Race(request.listener)
        first = aio.start(self._reach, race.listening(request, 0), key)
        timer = aio.start(self._wait, delay)
        second: Any = None
        reservation = None
        try:
            await race.news_of(first, timer)
            if first.done or race.leader == 0:
                return await first
            room, reservation = await self._reserve(request)
            if not room:
                return await first
            second = aio.start(self._reach, race.listening(request, 1), _second(key) if key else "")
            with self._lock:
                self._hedged += 1
            winner = await race.end(first, second)
            both = (first, second)
            for loser in both:
                if loser is not both[winner]:
                    await loser.stop()
            reply = await both[winner]
            with self._lock:
                self._won += winner
            self._book(key, reservation, _cost_of(both[1 - winner], reply, self.prices))
            reservation = None
            return reply
        finally:
            for started in (timer, first, second):
                if started is not None:
                    await started.stop()
            if reservation is not None:
                self._give_up(key, reservation, second)

    async def _wait(self, seconds: float) -> None:
        await self._sleep(seconds)

    async def _reserve(self, request: Request) -> tuple[bool, Any]:
        """Whether the budget has room for a second request; and, in a run, its reservation."""
        session = run.current()
        if session is None:
            return True, None
        read, written = estimate_tokens(request), request.max_tokens or REPLY_TOKENS
        with suppress(BudgetExceeded):
            usd = cost(self.prices, read, written)
            return True, await session.ledger.reserve(calls=1, tokens=read + written, usd=usd)
        return False, None

    def _book(self, key: str, reservation: Any, paid: Usage | None) -> None:
        """Count the request that came second; None if it failed and cost nothing."""
        session = run.current()
        if session is not None and reservation is not None:
            if paid is None:
                reservation.release()
            else:
                session.also_paid(_second(key), reservation, {"text": "", "usage": paid.to_dict()})
        elif paid is not None:
            for tracker in channel.get()[1]:
                tracker.add(paid, self.name)

    def _give_up(self, key: str, reservation: Any, second: Any) -> None:
        """Count the second request of a race that ended without a reply."""
        session = run.current()
        if session is None or second is None:
            reservation.release()
            return
        try:
            paid = second.result().usage
        except BaseException as error:  # noqa: BLE001 - the first one's is raised
            session.also_failed(_second(key), reservation, error, cost(self.prices, 1, 1))
        else:
            self._book(key, reservation, paid)

    def __repr__(self) -> str:
        return repr(self.inner)


class _Race:
    """Which of two requests is ahead.

    Attributes:
        leader: The one that wrote the first piece of a stream; None as long as none did.
    """

    def __init__(self, listener: Listener | None) -> None:
        self.leader: int | None = None
        self._listener = listener
        self._lock = threading.Lock()
        self._news: aio.Signal[None] = aio.Signal()

    def listening(self, request: Request, number: int) -> Request:
        """The request with a listener of its own, whose pieces are passed on if it leads."""
        if self._listener is None:
            return request
        return request.replace(listener=_Ear(self, number))

    def put(self, number: int, delta: Delta) -> None:
        """Take a piece of a stream."""
        with self._lock:
            leads = self.leader is None
            if leads:
                self.leader = number
        if self.leader == number and self._listener is not None:
            self._listener.put(delta)
        if leads:
            self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, aio.Signal()
        news.set(None)

    async def news_of(self, *started: aio.Signal[Any]) -> None:
        """Wait until one has ended, or there is a leader."""
        while True:
            news = self._news
            if self.leader is not None or any(one.done for one in started):
                return
            for one in started:
                if not one.subscribe(self._wake):
                    break
            else:
                await news

    async def end(self, first: aio.Signal[Completion], second: aio.Signal[Completion]) -> int:
        """Wait until it is clear which one counts: 0 or 1. If both fail, it is the first."""
        waiting = {0: first, 1: second}
        while True:
            await self.news_of(*waiting.values())
            if self.leader is not None:
                return self.leader
            for number, one in list(waiting.items()):
                if one.done:
                    if one.succeeded:
                        return number
                    del waiting[number]
            if not waiting:
                return 0


class _Ear(Listener):
    """The listener of one of the two requests."""

    def __init__(self, race: _Race, number: int) -> None:
        super().__init__()
        self._race = race
        self._number = number

    def put(self, delta: Delta) -> None:
        self.started = True
        self._race.put(self._number, delta)


def _cost_of(loser: aio.Signal[Completion], winner: Completion, prices: Prices | None) -> Usage | None:
    """What the other request cost: what it says, if it was answered too; its prompt, if it was cancelled."""
    import asyncio

    try:
        return loser.result().usage
    except asyncio.CancelledError:
        read = winner.usage.input_tokens
        return Usage(1, read, 0, cost(prices, read, 0))
    except Exception as error:  # noqa: BLE001 - it failed, which is no cost unless its server says one
        billed = error.billed if isinstance(error, LMError) else None
        return Usage.from_dict(billed) if billed else None


def _second(key: str) -> str:
    """The key of the second request."""
    return f"{key}-hedge"
