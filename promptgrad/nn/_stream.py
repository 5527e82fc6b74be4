"""`Module.stream` and `Module.stream_sync`: a program's events while it runs."""

from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from promptgrad import aio
from promptgrad.errors import AsyncUsageError
from promptgrad.nn._call import around_of, surrounded
from promptgrad.nn._hearing import Hearing
from promptgrad.nn._mailbox import Mailbox

if TYPE_CHECKING:
    from promptgrad.nn._calling import Calling


async def _run(heard: Hearing, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the program. It knows nothing of its reader, so that a reader that is dropped ends it."""
    with surrounded(heard):
        return await heard.program.acall(*args, **kwargs)


_NOTHING: Any = object()
_running: dict[Any, None] = {}
"""The programs that run. A loop holds its tasks weakly: without a reader, one would be collected where it stands."""


def _end(remote: Any, mailbox: Mailbox) -> None:
    _running.pop(remote, None)
    mailbox.close()


class _Streamed:
    """A program that runs, and its reader's end of the mailbox."""

    def __init__(self, program: "Calling", args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.mailbox = Mailbox()
        self.output: Any = _NOTHING
        self.over = False
        self._context = copy_context()
        self._remote: Any = None
        self._make = (Hearing(program, self.mailbox, around_of(Hearing)), args, kwargs)

    async def next(self) -> Any:
        """The next event, and after the last one what the program returned.

        Raises:
            StopAsyncIteration: There is no more.
            AsyncUsageError: Another reader waits for it.
            BaseException: That of the program; of the reader, if it is cancelled, after the program was stopped.
        """
        if self.over:
            raise StopAsyncIteration
        if self.mailbox.is_awaited:
            raise AsyncUsageError("two readers wait for this stream, and each event is for one: make a stream for each")
        event = self.mailbox.pop()
        if event is not None:
            return event
        try:
            if self._remote is None:
                self._remote = remote = aio.prepare(_run, *self._make)
                _running[remote] = None
                remote.subscribe(partial(_end, remote, self.mailbox))
                self._context.run(remote.launch)
            event = await self.mailbox.take()
        except BaseException:
            await self.stop()
            raise
        if event is not None:
            return event
        self.over = True
        self.output = self._remote.result()
        return self.output

    async def stop(self) -> None:
        """End the program, unless it has ended, and wait for its cleanup."""
        self.over = True
        self.mailbox.close()
        if self._remote is not None:
            await self._remote.stop()

    def drop(self) -> None:
        """End the program. Does not wait."""
        self.over = True
        if self._remote is not None and not self._remote.done:
            self.mailbox.close()
            self._remote.cancel()

    def result(self) -> Any:
        """What the program returned.

        Raises:
            AsyncUsageError: The stream was not read to its end.
        """
        if self.output is _NOTHING:
            raise AsyncUsageError("the stream has no output yet: read it to its end")
        return self.output

    def __repr__(self) -> str:
        state = "over" if self.over else "not begun" if self._remote is None else f"{len(self.mailbox)} events waiting"
        return f"{type(self._make[0].program).__name__}, {state}"


class _Loop:
    """One `for` or `async for` over a stream: when it is left, the program ends."""

    def __init__(self, stream: "EventStream | EventIterator") -> None:
        self._stream: Any = stream

    def __aiter__(self) -> "_Loop":
        return self

    def __anext__(self) -> Awaitable[Any]:
        found: Awaitable[Any] = self._stream._streamed.next()
        return found

    def __iter__(self) -> "_Loop":
        return self

    def __next__(self) -> Any:
        return next(self._stream)

    def __del__(self) -> None:
        self._stream._streamed.drop()


class _Events:
    """What both forms of a stream have: the program that runs, its output, and an end when nobody holds it."""

    def __init__(self, program: "Calling", args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._streamed = _Streamed(program, args, kwargs)

    @property
    def output(self) -> Any:
        """What the program returned.

        Raises:
            AsyncUsageError: The stream was not read to its end.
        """
        return self._streamed.result()

    def __del__(self) -> None:
        with suppress(AttributeError):  # made with the wrong arguments
            self._streamed.drop()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._streamed!r}>"


class EventStream(_Events):
    """The events of a program that runs, for `async for`. `Module.stream` makes it.

    The program starts with the first event that is asked for, in the context in which the stream was made, and runs on
    the loop of the reader. Leaving the loop ends it, and so do `aclose()`, the end of an `async with` around it and
    the cancellation of the reader: the requests in flight are closed. After a `break` that takes a moment;
    `aclose()` and `async with` wait for it.

    Attributes:
        output: What the program returned; it is the last event, too.
    """

    def __aiter__(self) -> AsyncIterator[Any]:
        return _Loop(self)

    if not TYPE_CHECKING:  # a type checker goes on to refuse both

        def __iter__(self):
            raise AsyncUsageError(
                f"{self!r} is read by `async for`; plain code reads program.stream_sync(...) by `for`"
            )

        def __await__(self):
            raise AsyncUsageError(
                f"{self!r} is read by `async for event in program.stream(...)`; for the output alone, write "
                "`await program.acall(...)`"
            )

    def __anext__(self) -> Awaitable[Any]:
        return self._streamed.next()

    async def aclose(self) -> None:
        """End the program, unless it has ended, and wait for its cleanup."""
        await self._streamed.stop()

    async def __aenter__(self) -> "EventStream":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class EventIterator(_Events):
    """The events of a program that runs, for `for`. `Module.stream_sync` makes it.

    As `EventStream`; the thread waits for each event, and the program runs beside it.

    Attributes:
        output: What the program returned; it is the last event, too.
    """

    def __iter__(self) -> Iterator[Any]:
        return _Loop(self)

    if not TYPE_CHECKING:

        def __aiter__(self):
            raise AsyncUsageError(f"{self!r} is read by `for`; a coroutine reads program.stream(...) by `async for`")

    def __next__(self) -> Any:
        try:
            return aio.drive(self._streamed.next())
        except StopAsyncIteration:
            raise StopIteration from None
        except AsyncUsageError:  # the other reader goes on
            raise
        except BaseException:  # Ctrl-C may come anywhere
            self.close()
            raise

    def close(self) -> None:
        """End the program, unless it has ended, and wait for its cleanup, at most 5 seconds."""
        aio.drive(self._streamed.stop())

    def __enter__(self) -> "EventIterator":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
