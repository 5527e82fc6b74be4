"""`Worker`: the only thread in which a local model computes."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from promptgrad.lm._fork import reset_after_fork

J = TypeVar("J")

IDLE_SECONDS = 10.0
"""Seconds that the thread is kept without work."""

_workers: weakref.WeakSet[Worker[object]] = weakref.WeakSet()


class Worker(Generic[J]):
    """Passes waiting jobs to a function, as many as there are, in a thread that starts and ends as needed.

    Args:
        work: Function that processes jobs from the left of the queue until it is empty; more may come meanwhile. It
            must not raise.
        name: Name of the thread.
    """

    def __init__(self, work: Callable[[deque[J]], None], name: str) -> None:
        self._work = work
        self._name = name
        self._reset()
        _workers.add(self)  # type: ignore[arg-type] # a set of any workers
        reset_after_fork(self)

    def _reset(self) -> None:
        self._wake = threading.Condition()
        self._jobs: deque[J] = deque()
        self._thread: threading.Thread | None = None
        self._closing = False

    def after_fork(self) -> None:
        """Start without a thread: it belongs to the parent."""
        self._reset()

    def submit(self, job: J) -> None:
        """Queue a job."""
        with self._wake:
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                self._thread.start()
            else:
                self._wake.notify()

    def _serve(self) -> None:
        while True:
            with self._wake:
                if not self._jobs and (self._closing or not self._wake.wait_for(self._has_work, IDLE_SECONDS)):
                    self._thread = None
                    return
                if self._closing:
                    self._thread = None
                    return
            self._work(self._jobs)

    def _has_work(self) -> bool:
        return bool(self._jobs) or self._closing

    def close(self, timeout: float = 5.0) -> None:
        """End the thread after the jobs in progress; a new job starts it again."""
        with self._wake:
            thread = self._thread
            self._closing = True
            self._wake.notify()
        if thread is not None:
            thread.join(timeout)
        self._closing = False

    @property
    def closing(self) -> bool:
        """True if work in progress should be given up."""
        return self._closing


def _close_all() -> None:
    for worker in list(_workers):
        worker.close()


atexit.register(_close_all)
