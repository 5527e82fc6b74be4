"""Running the function of a tool: off the loop, and for no longer than its time."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from promptgrad import aio
from promptgrad.adapters._tool_arguments import unwrapped
from promptgrad.errors import ToolTimeoutError

if TYPE_CHECKING:
    import asyncio

MOST_LEFT = 8
"""Calls of one tool that may run on after their time, each in its thread."""

MOST_LEFT_TOGETHER = 128
"""Calls of all tools that may."""

GRACE_SECONDS = 1.0
"""How long a cancelled coroutine is waited for."""


class LeftBehind:
    """Counts the calls of a tool that run on after their time was over."""

    __slots__ = ("_lock", "count")

    together: LeftBehind

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def add(self, signal: aio.Signal[Any]) -> None:
        """Count a call, until its signal comes."""
        self._change(1)
        if not signal.subscribe(self._ended):
            self._ended()

    def _ended(self) -> None:
        self._change(-1)

    def _change(self, by: int) -> None:
        with self._lock:
            self.count += by

    def __deepcopy__(self, memo: dict[int, Any]) -> LeftBehind:
        return self  # a copy of a tool calls the same function

    def __reduce__(self) -> tuple[Any, ...]:
        return (LeftBehind, ())


LeftBehind.together = LeftBehind()


async def run_tool(
    function: Callable[..., Any], arguments: Mapping[str, Any], name: str, timeout: float | None, left: LeftBehind
) -> Any:
    """Call a function, plain ones in a thread, `async` ones in a task.

    Args:
        function: The function.
        arguments: Its arguments by name.
        name: Name of the tool, for errors.
        timeout: Seconds until it is given up; None for no limit.
        left: Counts the calls that are given up and run on.

    Raises:
        ToolTimeoutError: It took too long, or too many earlier calls still run.
    """
    if timeout is None:
        return await _called(function, arguments)
    for whose, counted, most in (("it", left, MOST_LEFT), ("tools", LeftBehind.together, MOST_LEFT_TOGETHER)):
        if counted.count >= most:
            raise ToolTimeoutError(
                f"`{name}` was not called: {counted.count} earlier calls of {whose} run on after their time was over",
                tool=name,
                seconds=timeout,
            )
    return await aio.awaited(_limited(function, arguments, name, timeout, left))


async def _called(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    if aio.is_coroutine_function(unwrapped(function)[0]):
        return await aio.awaited(function(**arguments))
    found = await aio.in_thread(function, **arguments)
    return await aio.awaited(found) if inspect.isawaitable(found) else found


async def _limited(
    function: Callable[..., Any], arguments: Mapping[str, Any], name: str, timeout: float, left: LeftBehind
) -> Any:
    import asyncio

    signal: aio.Signal[Any]
    cancel: Callable[[], object]
    is_async = aio.is_coroutine_function(unwrapped(function)[0])
    if is_async:
        remote = aio.start(function, **arguments)
        signal, cancel = remote, remote.cancel
    else:
        job = aio.start_in_thread(function, **arguments)
        signal, cancel = job, job.cancel
    waiting = asyncio.ensure_future(_result(signal))
    try:
        done, _ = await aio.apart(asyncio.wait({waiting}, timeout=timeout))  # its timer keeps nothing of the run
        if done:
            return waiting.result()
        cancel()
        if is_async:
            await aio.apart(asyncio.wait({waiting}, timeout=GRACE_SECONDS))
    finally:
        if not signal.done:
            cancel()
            left.add(signal)
            LeftBehind.together.add(signal)
        if not waiting.done():
            waiting.cancel()
        waiting.add_done_callback(_seen)
    raise ToolTimeoutError(f"`{name}` gave no result within {timeout:g} seconds", tool=name, seconds=timeout)


async def _result(signal: aio.Signal[Any]) -> Any:
    found = await signal
    return await found if inspect.isawaitable(found) else found


def _seen(task: asyncio.Future[Any]) -> None:
    """Look at the error of a task that nobody waits for, of which asyncio would complain."""
    import asyncio

    with suppress(asyncio.CancelledError):
        task.exception()
