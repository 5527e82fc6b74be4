"""`LimitedSession`: what the sessions of both interpreters share: one run at a time, granted functions, limits."""

import builtins
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from keyword import iskeyword
from typing import Any

from promptgrad import aio
from promptgrad._error_text import error_message
from promptgrad.sandbox._execution import CodeFault, Execution, Halt
from promptgrad.sandbox._interpreter import CodeSession, Functions, Limits
from promptgrad.sandbox._plain_data import granted, received

MOST_CODE = 200_000
"""Characters of code in one run."""

RAISED = frozenset(
    {
        *("ArithmeticError", "AssertionError", "AttributeError", "Exception", "FileExistsError", "FileNotFoundError"),
        *("ImportError", "IndexError", "IsADirectoryError", "KeyError", "LookupError", "MemoryError"),
        *("ModuleNotFoundError", "NameError", "NotADirectoryError", "NotImplementedError", "OSError", "OverflowError"),
        *("PermissionError", "RecursionError", "RuntimeError", "StopIteration", "TimeoutError", "TypeError"),
        *("UnboundLocalError", "ValueError", "ZeroDivisionError"),
    }
)
"""The exceptions of granted functions that the code gets by their name; any other is a `RuntimeError` there."""


@dataclass(frozen=True, slots=True)
class Called:
    """The code calls a function, and waits.

    Attributes:
        name: The function.
        args: Its arguments by position, as they came.
        kwargs: Its arguments by name.
    """

    name: str
    args: Any
    kwargs: Any


@dataclass(frozen=True, slots=True)
class Ended:
    """The code came to its end.

    Attributes:
        value: The value of its last line, as it came.
    """

    value: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """The code failed, or was ended.

    Attributes:
        fault: Why.
        lost: Whether its variables are gone.
    """

    fault: CodeFault
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """What the code is told of a call.

    Attributes:
        value: What the function returned.
        raised: The name of the exception that it raised; empty for none.
        message: What that says.
    """

    value: Any = None
    raised: str = ""
    message: str = ""


Event = Called | Ended | Failed


class Printed:
    """What code prints, up to a limit; more ends the run.

    Args:
        most: The most characters.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._pieces: list[str] = []
        self._size = 0
        self.is_full = False

    def add(self, text: str) -> None:
        """Add to the output.

        Raises:
            MemoryError: There is no room for it all.
        """
        room = self._most - self._size
        self._pieces.append(text[:room])
        self._size += min(len(text), room)
        if len(text) > room:
            self.is_full = True
            raise MemoryError("too much output")

    @property
    def text(self) -> str:
        """The output."""
        return "".join(self._pieces)

    @property
    def fault(self) -> CodeFault:
        """That there was too much of it."""
        return CodeFault("MemoryError", f"it printed more than {self._most} characters", limit="output")


class LimitedSession(CodeSession):
    """A session within limits. A class that extends it says how code begins, goes on after a call, and is dropped.

    Args:
        limits: What bounds a run.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._at_work = threading.Lock()  # held while the code computes
        self._running = self._closed = self._abandoned = False

    # ---- what differs; all of it may block

    def _begin(self, code: str, given: dict[str, Any], names: Collection[str], printed: Printed) -> Event:
        """Begin to run code, until it ends or calls one of the functions."""
        raise NotImplementedError

    def _resume(self, answer: Answered) -> Event:
        """Go on after a call."""
        raise NotImplementedError

    def _drop(self) -> None:
        """End the process, and with it all variables."""
        raise NotImplementedError

    def _interrupt(self) -> None:
        """Stop the code that computes, from another thread, where that is possible."""

    # ---- a run

    async def arun(
        self, code: str, inputs: Mapping[str, Any] | None = None, functions: Functions | None = None
    ) -> Execution:
        """Run code; see `CodeSession.arun`.

        Raises:
            RuntimeError: The session is closed, or another run is under way.
        """
        with self._lock:
            if self._closed or self._running:
                raise RuntimeError(f"the session {'is closed' if self._closed else 'runs other code already'}")
            self._running = True
        try:
            return await self._run(str.__str__(code), dict(inputs or {}), dict(functions or {}))
        finally:
            self._rest()

    def _rest(self) -> None:
        """What is left to do after a run."""
        with self._lock:
            self._running = False
        if self._abandoned:  # its thread may be at work
            self._interrupt()
            aio.start_in_thread(self._forget)
        elif self._closed:
            self._forget()

    async def _run(self, code: str, inputs: dict[str, Any], functions: dict[str, Any]) -> Execution:
        check_names(inputs, "inputs")
        check_names(functions, "functions")
        if own := [name for name in functions if hasattr(builtins, name)]:
            raise TypeError(
                f"the function {own[0]!r} has the name of one of Python, which the code would call: rename it"
            )
        given = {name: granted(value, f"the input {name!r}") for name, value in inputs.items()}
        limits, calls, printed = self._limits, 0, Printed(self._limits.output)
        too_long = len(code) > MOST_CODE  # then the inputs are bound all the same
        begin = partial(self._begin, "None" if too_long else code, given, functions.keys(), printed)
        event = await self._advance(begin)
        if too_long and isinstance(event, Ended):
            said = f"the code has {len(code)} characters; {MOST_CODE} are the most"
            return Execution(error=CodeFault("SyntaxError", said, limit="memory"))
        while isinstance(event, Called):
            if calls == limits.calls:
                fault = CodeFault("RuntimeError", f"more than {limits.calls} calls of functions", limit="calls")
                return self._lost(printed, calls, error=fault)
            calls += 1
            try:
                answer = await _answer(event, functions)
            except BaseException:
                self._closed = self._abandoned = True
                raise
            if isinstance(answer, Halt):
                return self._lost(printed, calls, halt=answer)
            event = await self._advance(partial(self._resume, answer))
        if isinstance(event, Failed):
            if event.lost:
                return self._lost(printed, calls, error=event.fault)
            return Execution(printed.text, error=event.fault, calls=calls)
        try:
            return Execution(printed.text, received(event.value), calls=calls)
        except (ValueError, RecursionError) as error:
            said = f"the value of the last line cannot be shown: {error}"
            return Execution(printed.text, error=CodeFault("ValueError", said, limit="value"), calls=calls)

    async def _advance(self, step: Callable[[], Event]) -> Event:
        """Let the code compute until it ends, fails or calls a function."""
        try:
            return await aio.in_thread(self._at_work_on, step)
        except BaseException:
            self._closed = self._abandoned = True
            raise

    def _at_work_on(self, step: Callable[[], Event]) -> Event:
        with self._at_work:
            try:
                if self._abandoned:  # before it began
                    raise RuntimeError("the session is closed")
                return step()
            finally:
                self._drop_abandoned()

    def _drop_abandoned(self) -> None:
        if self._abandoned:  # nobody waits for it any more
            self._drop()

    def _lost(
        self, printed: Printed, calls: int, error: CodeFault | None = None, halt: Halt | None = None
    ) -> Execution:
        """What a run gave that cannot go on; its variables are dropped."""
        self._forget()
        return Execution(printed.text, error=error, halt=halt, lost=True, calls=calls)

    def _forget(self) -> None:
        with self._at_work:
            self._drop()

    def close(self) -> None:
        """End the session; where a run is under way, when that ends."""
        with self._lock:
            self._closed = True
            running = self._running
        if not running:
            self._forget()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{', closed' if self._closed else ''}>"


def check_names(names: Mapping[str, Any], place: str) -> None:
    """Raise `TypeError` where a name cannot be that of a variable."""
    for name in names:
        if not isinstance(name, str) or not name.isidentifier() or iskeyword(name):
            raise TypeError(f"{place} have the names of variables, and {name!r} cannot be one")


async def _answer(call: Called, functions: Mapping[str, Any]) -> Answered | Halt:
    """What the code is told of a call: a value or an exception; a `Halt` where it is told nothing more."""
    name = call.name
    function = functions.get(name)
    if function is None:
        return Answered(raised="NameError", message=f"name '{name}' is not defined")
    try:
        value = await _call(function, received(list(call.args)), received(dict(call.kwargs)))
        return value if isinstance(value, Halt) else Answered(granted(value, f"the result of {name}"))
    except BaseException as error:
        if not aio.is_failure(error):
            raise
        kind, said = type(error).__name__, error_message(error) or ""
        if kind in RAISED:
            return Answered(raised=kind, message=said[:2000])
        return Answered(raised="RuntimeError", message=f"{kind}: {said}"[:2000])


async def _call(function: Any, args: Any, kwargs: Any) -> Any:
    """Call a granted function: a module or an `async` one here, a plain one where it may block."""
    if hasattr(function, "acall"):
        return await function.acall(*args, **kwargs)
    if aio.is_coroutine_function(function):
        return await aio.awaited(function(*args, **kwargs))
    found = await aio.in_thread(function, *args, **kwargs)
    return await aio.awaited(found) if isawaitable(found) else found
