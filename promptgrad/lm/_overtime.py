"""`Overtime`: what takes too long on one event loop ends, by one timer for all of it."""

from __future__ import annotations

import asyncio
from contextvars import Context


class Overtime:
    """Within the block, a task of the loop has so many seconds; a `TimeoutError` of asyncio ends it.

    All have the same time, so they are over in the order in which they began, and one timer waits for the first. A
    timer for each is set and cancelled in each call, and is put before all later ones that wait in the loop's heap.

    Args:
        seconds: How long a block may take.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._until: dict[asyncio.Task[object] | None, float] = {}
        self._over: dict[asyncio.Task[object] | None, None] = {}
        self._waits = False

    def __enter__(self) -> None:
        until = self._loop.time() + self.seconds
        self._until[asyncio.current_task()] = until
        if not self._waits:
            self._wait(until)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        task = asyncio.current_task()
        if self._until.pop(task, None) is not None:
            return
        del self._over[task]
        uncancel = getattr(task, "uncancel", int)  # 3.10 does not count the cancellations
        if uncancel() == 0 and kind is asyncio.CancelledError:
            raise asyncio.TimeoutError from error

    def _wait(self, until: float) -> None:
        self._waits = True
        self._loop.call_at(until, self._end, context=Context())  # no caller's, which it would keep

    def _end(self) -> None:
        """Cancel those whose time is over, and wait for the next."""
        self._waits = False
        for task, until in list(self._until.items()):
            if until > self._loop.time():
                self._wait(until)
                return
            del self._until[task]
            self._over[task] = None
            if task is not None:
                task.cancel()
