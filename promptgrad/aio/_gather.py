"""Ordered concurrency: `gather`, `Semaphore`, `sleep`."""

import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import ContextVar, copy_context
from functools import partial
from types import TracebackType
from typing import Any, TypeVar, cast

from promptgrad.aio._loops import on_program, transport
from promptgrad.aio._signal import Signal, is_driven
from promptgrad.aio.sequence import branches

S = TypeVar("S")
T = TypeVar("T")


class _Crew:
    """The thunks of one `gather` that run in tasks.

    Attributes:
        outer: The crew around it.
        stopped: Whether it was stopped.
        leave: Called, from any thread, by a thunk that waits for nothing but time: another may start in its place.
        come_back: Called by the same one afterwards; gives the signal that it has a place again.
    """

    __slots__ = ("come_back", "leave", "outer", "stopped")

    leave: Callable[[], object]
    come_back: "Callable[[], Signal[None]]"

    def __init__(self, outer: "_Crew | None") -> None:
        self.outer = outer
        self.stopped = False


def _nothing() -> None:
    """Leave a crew that is over."""


def _at_once() -> "Signal[None]":
    """Come back to a crew that is over."""
    place: Signal[None] = Signal()
    place.set(None)
    return place


class _Seat:
    """What the code in a thunk knows of the `gather`s around it: the innermost crew, and the thunk's `row`."""

    __slots__ = ("crew", "row")

    def __init__(self, crew: _Crew | None, row: tuple[int, ...]) -> None:
        self.crew = crew
        self.row = row


_OUTSIDE = _Seat(None, ())
_seat: "ContextVar[_Seat]" = ContextVar("promptgrad.crew", default=_OUTSIDE)


def row() -> tuple[int, ...]:
    """The places of the thunk that runs here in the `gather`s around it, the outermost first: whatever the timing."""
    return _seat.get().row


def is_stopping() -> bool:
    """Whether a `gather` around the calling code has been stopped.

    A `CancelledError` that comes while none has been stopped is a failure of the awaited call, not a request to stop.
    """
    crew = _seat.get().crew
    while crew is not None:
        if crew.stopped:
            return True
        crew = crew.outer
    return False


def is_failure(error: BaseException) -> bool:
    """Whether the awaited call failed by itself, rather than because the waiter is being stopped.

    A `CancelledError` counts as a failure where no `gather` around the calling code has been stopped.
    """
    import asyncio

    return isinstance(error, Exception) or (isinstance(error, asyncio.CancelledError) and not is_stopping())


RESTING = 4
"""Thunks that may wait aside for each one that may be in flight, so that a dead server does not start them all."""


async def aside(wait: Callable[[], Awaitable[object]]) -> None:
    """Wait for nothing but time, without a place among those in flight in the `gather` around the calling code.

    Another thunk may start meanwhile; afterwards this one waits for a place, before those that have not started.
    """
    crew = _seat.get().crew
    if crew is None:
        await wait()
        return
    crew.leave()
    try:
        await wait()
    finally:
        place = crew.come_back()
        if not crew.stopped:
            await place


def gather(
    thunks: Sequence[Callable[[], Awaitable[T]]],
    *,
    limit: int | None = None,
    on_done: Callable[[int, T], object] | None = None,
) -> Coroutine[Any, Any, list[T]]:
    """Run all thunks concurrently, each in a copy of the context, and return their results in order.

    They start in order. The first failure cancels the rest, waits for them, and is raised; a cancellation does the
    same, however often it comes. A caller that wants failures as data catches them inside the thunks. In a driven
    coroutine the work moves to the program loop; or, where only one thunk may run at a time, the thunks run in place
    one after the other, in the context of the caller rather than in copies.

    Args:
        thunks: Functions without arguments, each of which returns an awaitable.
        limit: How many may be in flight; None for all.
        on_done: Called with the index and the result of each thunk that finished. What it raises is a failure of that
            thunk.

    Raises:
        ValueError: `limit` is below one.
    """
    return each(_call, thunks, limit=limit, on_done=on_done)


def _call(thunk: Callable[[], T]) -> T:
    return thunk()


async def each(
    fn: Callable[[S], Awaitable[T]],
    items: Sequence[S],
    *,
    limit: int | None = None,
    on_done: Callable[[int, T], object] | None = None,
) -> list[T]:
    """Call an async function with each item concurrently, and return the results in order: as `gather` of these calls.

    Args:
        fn: The function.
        items: What it is called with.
        limit: As for `gather`.
        on_done: As for `gather`.

    Raises:
        ValueError: `limit` is below one.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    count = len(items)
    if count == 0:
        return []
    if is_driven():
        if count > 1 and limit != 1:
            return await on_program(_each, fn, items, limit or count, on_done)
        results = []
        seat = _seat.get()
        for index, item in enumerate(items):
            token = _seat.set(_Seat(seat.crew, (*seat.row, index)))
            try:
                results.append(await fn(item))
            finally:
                _seat.reset(token)
            if on_done is not None:
                on_done(index, results[index])
        return results
    return await _each(fn, items, limit or count, on_done)


async def _each(
    fn: Callable[[S], Awaitable[T]],
    items: Sequence[S],
    limit: int,
    on_done: Callable[[int, T], object] | None,
) -> list[T]:
    import asyncio

    loop = asyncio.get_running_loop()
    count = len(items)
    results: list[Any] = [None] * count
    running: dict[asyncio.Task[None], None] = {}
    failures: list[BaseException] = []  # the first in time comes first
    finished: asyncio.Future[None] = loop.create_future()
    upcoming = resting = 0
    returning: deque[Signal[None]] = deque()
    seat = _seat.get()
    crew = _Crew(seat.crew)
    contexts = branches(count)
    home = copy_context()  # a thunk that starts in another one's place knows nothing of it

    async def one(index: int) -> None:
        _seat.set(_Seat(crew, (*seat.row, index)))
        try:
            result = results[index] = await fn(items[index])
        except (KeyboardInterrupt, SystemExit) as error:  # raised in a task, it would end the loop
            failures.append(error)
        else:
            if on_done is not None:
                on_done(index, result)

    def start() -> None:
        nonlocal upcoming
        index, upcoming = upcoming, upcoming + 1
        work = one(index)
        task = loop.create_task(work) if contexts is None else contexts[index].run(loop.create_task, work)
        running[task] = None
        task.add_done_callback(end, context=home)

    def end(task: "asyncio.Task[None]") -> None:
        del running[task]
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            failures.append(error)
        if failures and not crew.stopped:
            crew.stopped = True
            for other in running:
                other.cancel()
        fill()
        if not running and not finished.done():
            finished.set_result(None)

    def fill() -> None:
        nonlocal resting
        while returning and len(running) - resting < limit:
            resting -= 1
            returning.popleft().set(None)
        most = limit * (1 + RESTING)
        while upcoming < count and not crew.stopped and len(running) - resting < limit and len(running) < most:
            start()

    def left() -> None:
        nonlocal resting
        resting += 1
        fill()

    def came_back(place: "Signal[None]") -> None:
        returning.append(place)
        fill()

    def come_back() -> "Signal[None]":
        place: Signal[None] = Signal()
        loop.call_soon_threadsafe(came_back, place, context=home)
        return place

    crew.leave = partial(loop.call_soon_threadsafe, left, context=home)
    crew.come_back = come_back
    fill()
    try:
        await finished
    except asyncio.CancelledError:
        crew.stopped = True
        while running:
            for task in running:
                task.cancel()
            finished = loop.create_future()
            with suppress(asyncio.CancelledError):  # cancelled again: so are the tasks that still run
                await finished
        raise
    finally:
        # what was left behind in a thread keeps the crew, and would keep all results by it; and these functions keep
        # one another, so that what they name would stay until the collector of cycles comes
        crew.leave, crew.come_back = _nothing, _at_once
        items, contexts, on_done = (), None, None
        fn = None  # type: ignore[assignment]
    if failures:
        raise failures[0]
    return cast("list[T]", results)


class Semaphore:
    """At most `value` holders at a time, first come first served, from any thread, loop or driven coroutine.

    Attributes:
        free: Places that nobody holds.
        waiting: Those who wait for one, in order.

    Args:
        value: Number of places.
        lock: What guards both; whoever shares it may take and give places together with what else it guards.

    Raises:
        ValueError: `value` is below 1.
    """

    def __init__(self, value: int, lock: "threading.Lock | None" = None) -> None:
        if value < 1:
            raise ValueError(f"a semaphore needs room for at least 1 holder, not {value}")
        self.free = value
        self.waiting: deque[Signal[None]] = deque()
        self._lock = threading.Lock() if lock is None else lock

    async def acquire(self) -> None:
        """Wait for a place."""
        with self._lock:
            if self.free and not self.waiting:
                self.free -= 1
                return
            turn: Signal[None] = Signal()
            self.waiting.append(turn)
        try:
            await turn
        except BaseException:
            with self._lock:
                granted = turn not in self.waiting
                if not granted:
                    self.waiting.remove(turn)
            if granted:
                self.release()
            raise

    def release(self) -> None:
        """Give the place to the first in line."""
        with self._lock:
            turn = self.waiting.popleft() if self.waiting else None
            if turn is None:
                self.free += 1
        if turn is not None:
            turn.set(None)

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


async def sleep(seconds: float) -> None:
    """Wait, in a task or driven, without blocking other tasks."""
    seconds = float(seconds)
    if not is_driven():
        import asyncio

        await asyncio.sleep(seconds)
    elif seconds > 0:
        over: Signal[None] = Signal()

        def begin() -> None:
            import asyncio

            asyncio.get_running_loop().call_later(seconds, over.set, None)

        transport.post(begin)
        await over
