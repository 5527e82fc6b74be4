"""`deadline`: calls that end when the time is over, at the server too."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from functools import partial
from typing import Any, TypeVar

from promptgrad import aio
from promptgrad.errors import DeadlineError

T = TypeVar("T")

GRACE = 1.0
"""Seconds that plain code which blocks is waited for at the end of its time."""


class TimeLimit:
    """The end of the time of a block.

    Attributes:
        seconds: How long it was.
        until: When it is over, by the clock.
        clock: Function that returns seconds.
        sleep: Function that waits.
    """

    __slots__ = ("clock", "seconds", "sleep", "until")

    def __init__(self, seconds: float, clock: Callable[[], float], sleep: Callable[[float], Awaitable[object]]) -> None:
        self.seconds = seconds
        self.until = clock() + seconds
        self.clock = clock
        self.sleep = sleep

    @property
    def left(self) -> float:
        """Seconds that are left, 0 if it is over."""
        return max(0.0, self.until - self.clock())

    async def hold(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine, and cancel it when the time is over.

        Raises:
            DeadlineError: The time is over, now or before it ended.
        """
        left = self.left
        if left <= 0:
            raise self.error()
        if aio.is_driven():  # plain code may block, and so has a thread of its own rather than a loop
            thread = aio.start_in_thread(lambda: aio.drive(work()))
            done: aio.Signal[T] = thread
            stop: Callable[[], Awaitable[object]] = partial(_end, thread.cancel, done)
        else:
            task = aio.start(work)
            done, stop = task, task.stop
        timer = aio.start(self._wait, left)
        news: aio.Signal[None] = aio.Signal()

        def wake() -> None:
            news.set(None)

        try:
            if done.subscribe(wake) and timer.subscribe(wake):
                await news
            ended = done.done
        finally:
            await timer.stop()
            await stop()
        if ended or done.succeeded:  # in the last moment: it is paid
            return done.result()
        raise self.error()

    async def _wait(self, seconds: float) -> None:
        await self.sleep(seconds)

    def error(self) -> DeadlineError:
        """The error of a call that has no time left."""
        return DeadlineError(f"the {self.seconds:g} seconds of deadline() are over", seconds=self.seconds)

    def __repr__(self) -> str:
        return f"<TimeLimit of {self.seconds:g} s, {self.left:.1f} s left>"


async def _end(cancel: Callable[[], object], done: aio.Signal[Any]) -> None:
    """Cancel what runs in a thread, and wait for a moment for its cleanup; a function that blocks is left alone."""
    if done.done:
        return
    cancel()
    over: aio.Signal[None] = aio.Signal()
    grace = aio.start(aio.sleep, GRACE)
    if done.subscribe(lambda: over.set(None)) and grace.subscribe(lambda: over.set(None)):
        await over
    await grace.stop()


time_limit: ContextVar[TimeLimit | None] = ContextVar("promptgrad.deadline", default=None)


class deadline(ContextDecorator):
    """Give the calls inside the block so much time together; at its end those in flight are cancelled.

    ```python
    with pg.deadline(5):
        answer = program(question="...")
    ```

    It holds for every call of an LM or an `Embedder` in the block, and in the tasks and workers that it starts,
    waits of `Retry` and `Limit` included. A request in flight is ended at the server, too. A call that comes later
    is not sent. Of blocks inside one another the earliest end counts. Code that calls no LM is not interrupted. In
    a run, a call that was cancelled counts against the budget, as it may be paid, and is without a reply when the
    run is resumed too. `async with` is the same. Over a plain function, `@pg.deadline(5)`, it gives each call of it
    so much time. One object is for one block.

    Args:
        seconds: How long the calls may take, from the beginning of the block on.
        clock: Function that returns seconds; tests pass their own.
        sleep: Function that waits; tests pass their own.

    Raises:
        ValueError: `seconds` is not above zero.
        DeadlineError: In the block: the time is over. It is a `TimeoutError`, and no `LMError`: nothing is tried again.
    """

    __slots__ = ("_clock", "_seconds", "_sleep", "_token")

    def __init__(
        self,
        seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = aio.sleep,
    ) -> None:
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
            raise ValueError(f"a deadline is a number of seconds above 0, not {seconds!r}")
        self._seconds = seconds
        self._clock = clock
        self._sleep = sleep
        self._token: Token[TimeLimit | None] | None = None

    def _recreate_cm(self) -> deadline:
        return deadline(self._seconds, clock=self._clock, sleep=self._sleep)  # for each call of a decorated function

    def __enter__(self) -> TimeLimit:
        if self._token is not None:
            raise RuntimeError("this deadline has a block already: write `with pg.deadline(...):` for each block")
        outer = time_limit.get()
        made = TimeLimit(self._seconds, self._clock, self._sleep)
        if outer is not None and outer.left < made.left:
            made = outer
        self._token = time_limit.set(made)
        return made

    def __exit__(self, *raised: object) -> None:
        if self._token is not None:
            time_limit.reset(self._token)

    async def __aenter__(self) -> TimeLimit:
        return self.__enter__()

    async def __aexit__(self, *raised: object) -> None:
        self.__exit__(*raised)
