"""The transport loop and the program loop, and the functions that run code on them."""

import atexit
import inspect
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from promptgrad.aio._signal import Signal, block, is_driven, posts, refuse_on_our_loops, running_loop, state
from promptgrad.aio.sequence import fork, make_task
from promptgrad.errors import AsyncUsageError

if TYPE_CHECKING:
    import asyncio

P = ParamSpec("P")
T = TypeVar("T")

CLEANUP_SECONDS = 5.0
"""How long `run` waits, after Ctrl-C, for the cancelled task to clean up."""


class Loop:
    """An asyncio loop in a daemon thread, started on first use and again in a forked child.

    Args:
        name: Its name, in messages.
        bare: Start tasks in an empty context (see `apart`) instead of a copy of the caller's.
    """

    def __init__(self, name: str, *, bare: bool = False) -> None:
        self.name = name
        self.bare = bare
        self.reset()

    def reset(self) -> None:
        """Forget the thread: in a forked child it does not exist."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._inbox: deque[Callable[[], object]] = deque()
        self._awake = False

    def here(self) -> bool:
        """Whether the calling code runs on this loop."""
        return self._loop is not None and running_loop() is self._loop

    def post(self, callback: Callable[[], object]) -> None:
        """Call `callback` on the loop. Posts that come together wake the loop once."""
        loop = self._loop or self._start()
        self._inbox.append(callback)
        if not self._awake:
            self._awake = True
            try:
                loop.call_soon_threadsafe(self._drain, context=Context())
            except BaseException:  # a Ctrl-C here must not leave later posts waiting for a drain that never comes
                self._awake = False
                raise

    def _drain(self) -> None:
        self._awake = False  # before the first pop: a callback appended from here on wakes the loop again
        inbox = self._inbox
        for _ in range(len(inbox)):
            callback = inbox.popleft()
            try:
                callback()
            except Exception as error:  # noqa: BLE001 - as asyncio does with a callback of its own
                import asyncio

                message = f"Exception in {callback!r}, which was posted to promptgrad's {self.name} loop"
                asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})

    def _start(self) -> "asyncio.AbstractEventLoop":
        import asyncio

        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                loop.set_task_factory(make_task)
                ready = threading.Event()
                self._thread = threading.Thread(
                    target=self._serve, args=(loop, ready), name=f"promptgrad-{self.name}", daemon=True
                )
                self._thread.start()
                ready.wait()
                posts[loop] = self.post
                self._loop = loop
                atexit.register(self.close)
            return self._loop

    def _serve(self, loop: "asyncio.AbstractEventLoop", ready: threading.Event) -> None:
        state.serving = self.name
        ready.set()
        loop.run_forever()

    def close(self) -> None:
        """Cancel the running tasks and stop the loop, at interpreter exit."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None or loop.is_closed():
            return
        loop.call_soon_threadsafe(self._stop)
        thread.join(1.0)
        if not thread.is_alive():
            posts.pop(loop, None)
            loop.close()

    def _stop(self) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()

        async def finish() -> None:
            me = asyncio.current_task()
            await asyncio.gather(*(task for task in tasks if task is not me), return_exceptions=True)
            await loop.shutdown_asyncgens()
            loop.stop()

        self._closing = loop.create_task(finish())  # kept: a loop holds its tasks only weakly

    def submit(self, remote: "Remote[Any]") -> None:
        """Start a task on the loop, in a context of its own. Does not wait."""
        if self.bare:
            self.post(remote.start)
            return
        context = copy_context()
        fork(context)
        self.post(lambda: context.run(remote.start))


_NOTHING: dict[str, Any] = {}


class Remote(Signal[T]):
    """A task on one of our loops, or on the caller's own, seen from outside: a signal that can cancel its source."""

    __slots__ = ("_make", "_task", "_where", "carried")

    def __init__(self, where: "Loop | None", make: Callable[[], Coroutine[Any, Any, T]]) -> None:
        super().__init__()
        self._where = where
        self._make: Callable[[], Coroutine[Any, Any, T]] | None = make
        self._task: asyncio.Task[None] | None = None
        self.carried = _NOTHING  # attributes of the coroutine's cancellation, such as the finished rows

    def start(self) -> None:
        """Make the task, unless it was cancelled before; called on the loop."""
        import asyncio

        if self._make is None:
            return
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._finish)

    async def _run(self) -> None:
        import asyncio

        make, self._make = self._make, None
        if make is not None:
            try:
                value = await make()
            except asyncio.CancelledError as stop:
                self.carried = vars(stop)
                raise
            except (KeyboardInterrupt, SystemExit) as error:  # raised in the waiter; in a task it would end the loop
                self.fail(error)
            else:
                self.set(value)

    def _finish(self, task: "asyncio.Task[None]") -> None:
        import asyncio

        if self._make is not None:  # cancelled before its first step
            self._make().close()
            self._make = None
        if task.cancelled():
            self.fail(asyncio.CancelledError())
        else:
            error = task.exception()
            if error is not None:
                self.fail(error)

    def cancel(self) -> None:
        """Ask the task to stop, from any thread. Does not wait."""
        task = self._task
        if self._where is not None:
            self._where.post(self._cancel)
        elif task is None or task.get_loop() is running_loop():
            self._cancel()
        elif not task.get_loop().is_closed():
            with suppress(RuntimeError):  # it is closed at this very moment
                task.get_loop().call_soon_threadsafe(task.cancel)

    async def stop(self) -> None:
        """Ask the task to stop, unless it has ended, and wait for its cleanup."""
        if not self.done:
            self.cancel()
            await _end(self)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        elif self._make is not None:  # cancelled before it began
            import asyncio

            self._make().close()
            self._make = None
            self.fail(asyncio.CancelledError())

    def launch(self) -> None:
        """Start the task, in a copy of the context. Does not wait."""
        if self._where is not None:
            self._where.submit(self)
            return
        context = copy_context()
        fork(context)
        context.run(self.start)


transport = Loop("transport", bare=True)
program = Loop("program")


async def _on(where: Loop, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    if is_driven():
        refuse_on_our_loops()
    elif where.here():
        return await make()
    remote: Remote[T] = Remote(where, make)
    try:
        where.submit(remote)
        return await remote
    except GeneratorExit:
        remote.cancel()
        raise
    except BaseException:
        if not remote.done:
            remote.cancel()
            await _end(remote)
        raise


async def _end(remote: Remote[Any]) -> None:
    """Wait for a cancelled task's cleanup, for a bounded time where the wait blocks a thread."""
    if is_driven():
        ended = threading.Event()
        if remote.subscribe(ended.set):
            ended.wait(CLEANUP_SECONDS)
    else:
        with suppress(BaseException):
            await remote


def on_transport(
    fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
) -> Coroutine[Any, Any, T]:
    """Run one of our async functions on the transport loop, in an empty context; directly if already there.

    Cancelling the waiter cancels the function.
    """
    return _on(transport, partial(fn, *args, **kwargs))


def on_program(fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
    """Run an async function, the user's or ours, on the program loop, in a copy of the context.

    This is how driven code awaits a user's coroutine. Cancelling the waiter cancels the function.
    """
    return _on(program, partial(fn, *args, **kwargs))


def start(fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> Remote[T]:
    """Start an async function beside the caller, in a copy of the context: await what it returns, or `stop()` it.

    It runs as a task of the current loop, or of the program loop where the caller is driven.
    """
    remote = prepare(fn, *args, **kwargs)
    remote.launch()
    return remote


def prepare(fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> Remote[T]:
    """As `start`, but `launch()` of what it returns starts it: so that a Ctrl-C in between finds what to stop."""
    return Remote(program if is_driven() else None, partial(fn, *args, **kwargs))


async def awaited(call: Awaitable[T]) -> T:
    """Await what a user's function returned: in place in a task, on the program loop in a driven coroutine."""
    if not is_driven():
        return await call
    try:
        return await on_program(_wait, call)
    except (Exception, GeneratorExit):  # a caller that is closed has not waited for the end of the task
        raise
    except BaseException:
        if inspect.iscoroutine(call) and inspect.getcoroutinestate(call) == inspect.CORO_CREATED:
            call.close()  # cancelled before the loop came to it: it is not awaited any more
        raise


async def _wait(call: Awaitable[T]) -> T:
    return await call


def run(coro: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the program loop, in a copy of the caller's context, and block until it ends.

    In a thread in which another loop runs, such as a notebook cell, that loop is blocked meanwhile.
    Ctrl-C cancels the coroutine, waits up to `CLEANUP_SECONDS` for its cleanup, and is raised again, with the
    attributes that the coroutine set on its cancellation (the finished part of the work).

    Raises:
        AsyncUsageError: Called on one of promptgrad's own loops, where blocking would be a deadlock.
    """
    try:
        refuse_on_our_loops()
    except AsyncUsageError:
        coro.close()
        raise
    remote: Remote[T] = Remote(program, lambda: coro)
    try:
        program.submit(remote)
        block(remote)
    except BaseException as stop:
        remote.cancel()
        ended = threading.Event()
        if remote.subscribe(ended.set):
            ended.wait(CLEANUP_SECONDS)
        vars(stop).update(remote.carried)
        raise
    return remote.result()


def is_program_loop() -> bool:
    """Whether the calling code runs on the program loop, where a blocking call would be a deadlock."""
    return program.here()


def _after_fork() -> None:
    transport.reset()
    program.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
