"""Waiting for what happens, however long it takes: the only clocks that tests look at are here."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

from promptgrad import aio, errors

T = TypeVar("T")


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait until something that another thread or process does is so; the deadline only ends a test that hangs."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{condition} does not hold after {seconds} s")
        time.sleep(0.002)


async def interrupted() -> str:
    """Ctrl-C, and no answer any more: the call that it comes in ends with the run, however late the Ctrl-C is heard."""
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


async def turns(count: int = 50) -> None:
    """Let all that can run on this event loop run, by turns of the loop rather than by time."""
    for _ in range(count):
        await aio.sleep(0)


def given_time(test: Callable[[float], object], seconds: float) -> None:
    """Run a test of what has a limit of that many seconds; again with ten and a hundred times as many if it fails.

    For what ends an endless program and must leave a short one alone: how long a short one takes, the machine decides.
    """
    for limit in (seconds, 10 * seconds):
        try:
            test(limit)
        except (AssertionError, AttributeError, errors.PromptgradError, pytest.fail.Exception):
            continue
        return
    test(100 * seconds)


def ends(work: Callable[[], T], seconds: float = 60) -> T:
    """What `work` returns; it fails once this process has computed for so long.

    For reading that takes milliseconds, and hours if its time grew with the square of the length. `counting.growth` is
    better where the work is Python's own: what a pattern does inside cannot be counted, but it hears signals.
    """

    def late(signum: int, frame: object) -> None:
        pytest.fail(f"it has not ended after {seconds} s")

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        return work()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
