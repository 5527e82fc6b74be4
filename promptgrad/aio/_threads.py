"""`in_thread`: blocking functions in threads that are reused, never queued behind one another."""

import os
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

from promptgrad.aio._signal import Signal, brief, is_driven, running_loop, state
from promptgrad.aio.sequence import fork

P = ParamSpec("P")
T = TypeVar("T")

IDLE_SECONDS = 10.0
"""How long a thread without work is kept."""


class ThreadCall(Signal[Any]):
    """The result of a function call in a thread, which can be cancelled where it next waits for one of our signals."""

    __slots__ = ("_call", "_cancelled", "_context", "_wake")

    def __init__(self, call: Callable[[], Any], context: Context) -> None:
        super().__init__()
        self._call = call
        self._context = context
        self._cancelled = False
        self._wake: Callable[[], object] | None = None

    def work(self) -> None:
        """Make the call in this thread; `settle` hands the result to the waiter."""
        state.job = self
        try:
            self._value = self._context.run(self._call)
        except BaseException as error:  # noqa: BLE001 - it is raised in the waiter
            self._error = error
        finally:
            state.job = None

    def settle(self) -> None:
        """Hand the result to the waiter."""
        self._settle(self._value, self._error)

    def cancel(self) -> None:
        """Raise `CancelledError` in the thread, in its present wait or its next one."""
        with brief:
            self._cancelled = True
            wake = self._wake
        if wake is not None:
            wake()

    def on_cancel(self, wake: Callable[[], object] | None) -> None:
        """Call `wake` when `cancel` comes, at once if it came already; None: call nothing any more."""
        with brief:
            self._wake = wake
        if self._cancelled and wake is not None:
            wake()

    def raise_if_cancelled(self) -> None:
        """Deliver a cancellation, once, so that cleanup code may wait again."""
        if self._cancelled:
            import asyncio

            self._cancelled = False
            raise asyncio.CancelledError


class _Worker:
    """A daemon thread that takes one job at a time and waits a while for the next."""

    def __init__(self, pool: "_Pool", job: ThreadCall) -> None:
        self._pool = pool
        self._job: ThreadCall | None = job
        self._gate = threading.Lock()
        self._gate.acquire()
        threading.Thread(target=self._serve, name="promptgrad-worker", daemon=True).start()

    def give(self, job: ThreadCall) -> None:
        self._job = job
        self._gate.release()

    def _serve(self) -> None:
        while True:
            job, self._job = self._job, None
            if job is not None:
                job.work()
                self._pool.idle(self)  # first, so that the waiter may reuse this thread at once
                job.settle()
                del job
            if not self._gate.acquire(timeout=IDLE_SECONDS):
                if self._pool.retire(self):
                    return
                self._gate.acquire()  # a job arrives at the very moment of the timeout


class _Pool:
    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []

    def submit(self, job: ThreadCall) -> None:
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        if worker is None:
            _Worker(self, job)
        else:
            worker.give(job)

    def idle(self, worker: _Worker) -> None:
        with self._lock:
            self._idle.append(worker)

    def retire(self, worker: _Worker) -> bool:
        with self._lock:
            if worker in self._idle:
                self._idle.remove(worker)
                return True
            return False


_pool = _Pool()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.reset)


def start_in_thread(fn: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> ThreadCall:
    """Call a blocking function in a thread of its own beside the caller, in a copy of its context.

    Await what it returns, or `cancel()` it: that raises `asyncio.CancelledError` in the function at its
    next wait for one of our signals.
    """
    context = copy_context()
    fork(context)
    job = ThreadCall(partial(fn, *args, **kwargs) if args or kwargs else fn, context)
    _pool.submit(job)
    return job


async def in_thread(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a blocking function in a thread of its own, in a copy of the caller's context.

    Threads are reused and never bounded in number: a bounded pool would hang as soon as one waiting function needs
    another. Cancelling the waiter raises `asyncio.CancelledError` in the function, at its next wait for one of our
    signals; code that never waits runs on to its end. From a driven coroutine, with no loop running in the thread,
    the function is called in place, since the thread could only wait.
    """
    if is_driven() and running_loop() is None:
        context = copy_context()
        fork(context)
        return context.run(fn, *args, **kwargs)
    job = start_in_thread(fn, *args, **kwargs)
    try:
        result: T = await job
    except BaseException:
        job.cancel()
        raise
    return result
