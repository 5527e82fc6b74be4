"""`Signal`, a one-shot result that any code can wait for, and `drive`, which runs a coroutine without a loop."""

import os
import sys
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from promptgrad.errors import AsyncUsageError

if TYPE_CHECKING:
    import asyncio

    from promptgrad.aio._threads import ThreadCall

T = TypeVar("T")

_UNDRIVEN = object()


class _ThreadState(threading.local):
    driven: object = _UNDRIVEN  # the loop that was running when `drive` began, or None; else `_UNDRIVEN`
    serving: str = ""  # the name of our loop that this thread runs
    job: "ThreadCall | None" = None  # the `in_thread` call that this thread works on


state = _ThreadState()
posts: "dict[asyncio.AbstractEventLoop, Callable[[Callable[[], object]], None]]" = {}
"""How to hand a callback to one of our own loops: cheaper than `call_soon_threadsafe` when many come together."""


brief = threading.RLock()
"""Held for a few steps at a time, by whatever there are hundreds of at once: a lock for each would be one more
object for the collector to follow. Re-entrant, as the collector may run any code in between."""

_get_running_loop: "Callable[[], asyncio.AbstractEventLoop | None] | None" = None


def running_loop() -> "asyncio.AbstractEventLoop | None":
    """The loop that runs in this thread. Does not import asyncio: unless it is imported, no loop can be running."""
    global _get_running_loop
    if _get_running_loop is None:
        # absent while another thread is importing it
        _get_running_loop = getattr(sys.modules.get("asyncio.events"), "_get_running_loop", None)
        if _get_running_loop is None:
            return None
    return _get_running_loop()


def is_driven() -> bool:
    """Whether the calling code is a coroutine that `drive` runs, rather than a task of a loop."""
    driven = state.driven
    return driven is not _UNDRIVEN and driven is running_loop()


def serving() -> str:
    """The name of our loop that this thread runs, where a blocking call would wait for itself; empty elsewhere."""
    return state.serving


class Signal(Generic[T]):
    """A result that comes once, from any thread, and can be awaited from everywhere.

    The first `set` or `fail` counts; later ones are ignored. Awaiting is safe against cancellation and may be done
    by any number of waiters, in driven coroutines and on any number of loops.
    """

    __slots__ = ("_error", "_value", "_waiters")

    def __init__(self) -> None:
        self._waiters: list[Callable[[], object]] | tuple[()] | None = ()  # a list from the first waiter on
        self._value: T | None = None
        self._error: BaseException | None = None

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return self._waiters is None

    @property
    def succeeded(self) -> bool:
        """Whether a value is there, and not an error."""
        return self._waiters is None and self._error is None

    def set(self, value: T) -> None:
        """Set the value and wake all waiters."""
        self._settle(value, None)

    def fail(self, error: BaseException) -> None:
        """Raise `error` in all waiters, present and future."""
        self._settle(None, error)

    def result(self) -> T:
        """The value; raises the error that `fail` got, and `AsyncUsageError` while there is no result."""
        if self._waiters is not None:
            raise AsyncUsageError("the signal has no result yet: await it")
        if self._error is not None:
            raise self._error
        return cast(T, self._value)

    def _settle(self, value: T | None, error: BaseException | None) -> None:
        with brief:
            waiters = self._waiters
            if waiters is None:
                return
            self._value, self._error = value, error
            self._waiters = None
        for wake in waiters:
            wake()

    def subscribe(self, wake: Callable[[], object]) -> bool:
        """Call `wake` from some thread when the result comes. Returns False, without a call, if it has come already."""
        first = [wake]
        with brief:
            waiters = self._waiters
            if waiters is None:
                return False
            if waiters:
                waiters.append(wake)
            else:
                self._waiters = first
            return True

    def unsubscribe(self, wake: Callable[[], object]) -> None:
        """Undo a `subscribe`. Does nothing if the result has come already."""
        if self._waiters is None:
            return
        with brief:
            if self._waiters and wake in self._waiters:
                self._waiters.remove(wake)

    def __await__(self) -> Generator[Any, Any, T]:
        while self._waiters is not None:
            loop = running_loop()
            if loop is None or state.driven is loop:
                yield self  # `drive` blocks the thread until the result is there
                continue
            waiter = _LoopWaiter(loop)
            if self.subscribe(waiter):
                try:
                    yield from waiter.future
                finally:
                    self.unsubscribe(waiter)
        return self.result()

    def __repr__(self) -> str:
        if self._waiters is not None:
            return "<Signal waiting>"
        return f"<Signal failed {self._error!r}>" if self._error is not None else f"<Signal {self._value!r}>"


class _LoopWaiter:
    """Wakes a task that waits for a signal: an object, not functions with their cells, as hundreds wait together."""

    __slots__ = ("_loop", "future")

    def __init__(self, loop: "asyncio.AbstractEventLoop") -> None:
        self._loop = loop
        self.future: asyncio.Future[None] = loop.create_future()

    def resolve(self) -> None:
        if not self.future.done():
            self.future.set_result(None)

    def __call__(self) -> None:
        loop = self._loop
        if running_loop() is loop:
            self.resolve()
            return
        post = posts.get(loop)
        if post is not None:
            post(self.resolve)
            return
        try:
            loop.call_soon_threadsafe(self.resolve)
        except RuntimeError:  # the loop was closed meanwhile: nothing waits there any more
            return


class _ThreadWaiter:
    """Wakes a thread that waits for a signal."""

    __slots__ = ("gate",)

    def __init__(self) -> None:
        self.gate = threading.Lock()
        self.gate.acquire()

    def __call__(self) -> None:
        if self.gate.locked():
            try:
                self.gate.release()
            except RuntimeError:  # the other waker was faster
                return


def refuse_on_our_loops() -> None:
    """Raise `AsyncUsageError` in a thread that runs one of our loops, which the caller would block."""
    if state.serving:
        raise AsyncUsageError(
            f"a blocking call on promptgrad's {state.serving} loop would stop everything that runs there: "
            "inside async code write `await module.acall(...)` instead of `module(...)`"
        )


POLL_SECONDS = 0.5
"""How often a blocked thread wakes up, so that a Ctrl-C that came at the very moment of blocking is not lost."""


def block(signal: Signal[Any]) -> None:
    """Block the thread until the signal has its result.

    Raises:
        AsyncUsageError: This thread runs one of our loops, which must never be blocked.
        KeyboardInterrupt: Ctrl-C, in the main thread.
        asyncio.CancelledError: The `in_thread` call that this thread works on was cancelled.
    """
    if signal.done:
        return
    refuse_on_our_loops()
    waiter = _ThreadWaiter()
    if not signal.subscribe(waiter):
        return
    job = state.job
    try:
        if job is not None:
            job.on_cancel(waiter)
        while not waiter.gate.acquire(timeout=POLL_SECONDS):
            pass
    finally:
        if job is not None:
            job.on_cancel(None)
        signal.unsubscribe(waiter)
    if not signal.done and job is not None:
        job.raise_if_cancelled()


def drive(coro: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in this thread, without a loop; block wherever it waits for a `Signal`.

    A coroutine that never suspends costs about a microsecond. This also works in a thread that has a running loop
    (a notebook, a web handler), which is blocked meanwhile. Ctrl-C during a wait is raised inside the coroutine.

    Raises:
        AsyncUsageError: The coroutine waits for something that needs an event loop; use `run`.
    """
    thread = state
    outer = thread.driven
    thread.driven = running_loop()
    try:
        wanted: object = coro.send(None)
        while True:
            try:
                if not isinstance(wanted, Signal):
                    raise AsyncUsageError(  # thrown into the coroutine below
                        f"a coroutine driven in place awaited {wanted!r}, which needs an event loop: "
                        "run it with `promptgrad.aio.run(...)`, or await it inside async code"
                    )
                block(wanted)
            except BaseException as error:  # noqa: BLE001 - raised inside the coroutine, which may clean up
                wanted = coro.throw(error)
            else:
                wanted = coro.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        thread.driven = outer


def _after_fork() -> None:
    brief._at_fork_reinit()  # type: ignore[attr-defined]  # a thread that is not there any more may have held it
    posts.clear()
    state.serving = ""
    state.job = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
