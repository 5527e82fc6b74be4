"""`Monty`: code in an interpreter of its own, which knows no files, no network and no processes."""

import atexit
import os
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import partial
from typing import Any

from promptgrad import aio
from promptgrad.errors import MissingExtraError, SandboxError
from promptgrad.sandbox._execution import CodeFault, Execution, Halt, first_line
from promptgrad.sandbox._interpreter import CodeSession, Functions, Interpreter, Limits, call_granted, check_names
from promptgrad.sandbox._plain_data import granted, received

MOST_CODE = 200_000
"""Characters of code in one run."""

_EPOCH = datetime(2000, 1, 1, tzinfo=timezone.utc)

_ABOUT = """\
Python without files, network, processes, packages and clock. There are the modules math, re, json, datetime, \
collections, itertools, functools, random, dataclasses, bisect, decimal, copy, csv, hashlib, base64, typing and \
unicodedata. There is no `yield`, no `del`, no inheritance and no decorator of methods."""

_RAISED = frozenset(
    {
        *("ArithmeticError", "AssertionError", "AttributeError", "Exception", "FileExistsError", "FileNotFoundError"),
        *("ImportError", "IndexError", "IsADirectoryError", "KeyError", "LookupError", "MemoryError"),
        *("ModuleNotFoundError", "NameError", "NotADirectoryError", "NotImplementedError", "OSError", "OverflowError"),
        *("PermissionError", "RecursionError", "RuntimeError", "StopIteration", "TimeoutError", "TypeError"),
        *("UnboundLocalError", "ValueError", "ZeroDivisionError"),
    }
)
"""The exceptions that the interpreter knows by name; any other is a `RuntimeError` there."""


class Monty(Interpreter):
    """Run code in pydantic-monty, an interpreter of Python written in Rust, in a process beside this one.

    The code has no files, network, environment, processes, imports of packages, and no way to the objects of this
    process: they do not exist there. Whatever it does is bounded by `limits`, and ended where it does not end itself.
    It may call what it is granted, with plain data. Equal code with equal inputs and functions gives equal results: the
    clock stands still, `sleep` returns at once, and `random` begins with `seed`.

    It knows the larger part of the language, see `about`; what it does not know is an error that says so.

    Cost: 10 ms for the first session and for each that runs beside others, then 0.1 ms. No LM call.

    Args:
        limits: What bounds a run.
        seed: Where the code's `random` begins.
        now: The time that the code reads; None for the real clock, which makes runs differ.

    Raises:
        MissingExtraError: When used: pydantic-monty is not installed.
        SandboxError: When used: its program is not there, or does not start.
    """

    def __init__(self, limits: Limits | None = None, *, seed: int = 0, now: datetime | None = _EPOCH) -> None:
        self.limits = limits or Limits()
        self.seed = seed
        self.now = now

    @property
    def about(self) -> str:
        """What the code may use."""
        return _ABOUT

    def session(self) -> "MontySession":
        """Begin a session; its process is taken on the first run."""
        return MontySession(self)

    def _checkout(self) -> Any:
        limits = self.limits
        session = _pool.get().checkout(
            limits={
                "max_feed_duration_secs": limits.seconds,
                "max_memory": limits.memory,
                "max_recursion_depth": limits.depth,
                "max_suspensions": 2**40,  # counted here, by run
            },
            os_policy={
                "sleep": "zero",
                "random_start": {"seed": self.seed},
                **({} if self.now is None else {"datetime": self.now}),
            },
            assert_message_annotations=False,
        )
        session.__enter__()
        return session

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Monty):
            return NotImplemented
        return (self.limits, self.seed, self.now) == (other.limits, other.seed, other.now)

    def __hash__(self) -> int:
        return hash((self.limits, self.seed, self.now))

    def __repr__(self) -> str:
        return f"Monty({self.limits!r})"


class MontySession(CodeSession):
    """A session of `Monty`: runs that share their variables.

    Args:
        interpreter: The interpreter.
    """

    def __init__(self, interpreter: Monty) -> None:
        self.interpreter = interpreter
        self._limits = interpreter.limits
        self._held: Any = None  # the process, while there are variables
        self._lock = threading.Lock()
        self._at_work = threading.Lock()  # held while the code computes
        self._running = self._closed = self._abandoned = False

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
        if self._abandoned:  # its thread may be at work, up to the limit of time
            aio.start_in_thread(self._forget)
        elif self._closed:
            self._forget()

    async def _run(self, code: str, inputs: dict[str, Any], functions: dict[str, Any]) -> Execution:
        check_names(inputs, "inputs")
        check_names(functions, "functions")
        given = {name: granted(value, f"the input {name!r}") for name, value in inputs.items()}
        if len(code) > MOST_CODE:
            said = f"the code has {len(code)} characters; {MOST_CODE} are the most"
            return Execution(error=CodeFault("SyntaxError", said, limit="memory"))
        monty = _monty()
        printed = _Printed(self._limits.output)
        names = dict.fromkeys(functions, _never)
        begin = partial(self._feed, code, given, names, printed)
        state = await self._advance(begin)
        calls = 0
        while isinstance(state, (monty.FunctionSnapshot, monty.NameLookupSnapshot)):
            if isinstance(state, monty.NameLookupSnapshot):
                state = await self._advance(state.resume_auto)
                continue
            if state.is_os_function:
                state = await self._advance(state.resume_not_handled)
                continue
            calls += 1
            if calls > self._limits.calls:
                fault = CodeFault("RuntimeError", f"more than {self._limits.calls} calls of functions", limit="calls")
                return self._ended(printed, calls - 1, error=fault)
            try:
                answer = await self._answer(state, functions)
            except BaseException:
                self._forget()
                raise
            if isinstance(answer, Halt):
                return self._ended(printed, calls, halt=answer)
            state = await self._advance(partial(state.resume, answer))
        if isinstance(state, monty.MontyError):
            fault = self._fault(state, printed)
            gone = fault.limit in ("seconds", "crash", "calls", "output")
            return (
                self._ended(printed, calls, error=fault) if gone else Execution(printed.text, error=fault, calls=calls)
            )
        if not isinstance(state, monty.MontyComplete):
            return self._ended(printed, calls, error=CodeFault("RuntimeError", "it waits for what nothing will answer"))
        try:
            return Execution(printed.text, received(state.output), calls=calls)
        except (ValueError, RecursionError) as error:
            said = f"the value of the last line cannot be shown: {error}"
            return Execution(printed.text, error=CodeFault("ValueError", said, limit="value"), calls=calls)

    def _feed(self, code: str, given: dict[str, Any], names: dict[str, Any], printed: "_Printed") -> Any:
        if self._held is None:
            self._held = self.interpreter._checkout()
        return self._held.feed_start(code, inputs=given, external_lookup=names, print_callback=printed)

    async def _advance(self, step: Callable[[], Any]) -> Any:
        """Let the code compute until it ends, fails or calls a function."""
        try:
            return await aio.in_thread(self._caught, step)
        except BaseException:
            self._closed = self._abandoned = True
            raise

    def _caught(self, step: Callable[[], Any]) -> Any:
        """The next state of a run; its end by an error is one."""
        with self._at_work:
            try:
                return step()
            except _monty().MontyError as error:
                return error

    async def _answer(self, state: Any, functions: dict[str, Any]) -> Any:
        """What the interpreter is told of a call: a value, an exception, or nothing more where it is a `Halt`."""
        name = state.function_name
        function = functions.get(name)
        if function is None:
            return {"exc_type": "NameError", "message": f"name '{name}' is not defined"}
        try:
            args = received(list(state.args))
            kwargs = received(dict(state.kwargs))
            value = await call_granted(function, args, kwargs)
            return value if isinstance(value, Halt) else {"return_value": granted(value, f"the result of {name}")}
        except BaseException as error:
            if not aio.is_failure(error):
                raise
            known = type(error).__name__ in _RAISED
            said = str(error) if known else f"{type(error).__name__}: {error}"
            return {"exc_type": type(error).__name__ if known else "RuntimeError", "message": said[:2000]}

    def _fault(self, error: Any, printed: "_Printed") -> CodeFault:
        limits = self._limits
        if printed.is_full:
            return CodeFault("MemoryError", f"it printed more than {limits.output} characters", limit="output")
        if isinstance(error, _monty().MontyCrashedError):
            if "time" in str(error).lower() or error.timed_out:
                return CodeFault("TimeoutError", f"it computed for more than {limits.seconds:g} s", limit="seconds")
            return CodeFault("MemoryError", "the process of the code died, as of too much memory", limit="crash")
        frames = error.traceback() if hasattr(error, "traceback") else []
        kind, message = _parts(error)
        if kind == "TimeoutError" and not frames:
            return CodeFault("TimeoutError", f"it computed for more than {limits.seconds:g} s", limit="seconds")
        limit = ""
        if kind == "MemoryError" and "exceeded" in message:
            limit, message = "memory", f"it needed more than {limits.memory} bytes"
        elif kind == "RecursionError":
            limit, message = "depth", f"more than {limits.depth} calls of functions inside one another"
        newest = max((frame.filename for frame in frames), key=_number, default="")
        here = [frame for frame in frames if frame.filename == newest]
        if not here:
            return CodeFault(kind, message[:2000], limit=limit)
        frame = here[-1]
        return CodeFault(kind, message[:2000], frame.line, first_line(frame.source_line), limit)

    def _ended(self, printed: "_Printed", calls: int, **facts: Any) -> Execution:
        """What a run gave that cannot go on, with its variables."""
        self._forget()
        return Execution(printed.text, lost=True, calls=calls, **facts)

    def _forget(self) -> None:
        with self._at_work:
            held, self._held = self._held, None
            if held is not None:
                held.__exit__(None, None, None)

    def close(self) -> None:
        """End the session; where a run is under way, when that ends."""
        with self._lock:
            self._closed = True
            running = self._running
        if not running:
            self._forget()

    def __repr__(self) -> str:
        return f"<session of {self.interpreter!r}{', closed' if self._closed else ''}>"


class _Printed:
    """What code prints, up to a limit; more ends the run."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._pieces: list[str] = []
        self._size = 0
        self.is_full = False

    def __call__(self, stream: str, text: str) -> None:
        room = self._most - self._size
        self._pieces.append(text[:room])
        self._size += min(len(text), room)
        if len(text) > room:
            self.is_full = True
            raise MemoryError("too much output")

    @property
    def text(self) -> str:
        return "".join(self._pieces)


class _Processes:
    """The processes that all sessions share, started on first use."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._lock = threading.Lock()
        self._pool: Any = None

    def get(self) -> Any:
        with self._lock:
            if self._pool is None:
                try:
                    self._pool = _started(None)
                except FileNotFoundError:
                    self._pool = _started(_installed())  # where packages are not in the environment that runs
                atexit.register(self.stop)
            return self._pool

    def stop(self) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.__exit__(None, None, None)


_pool = _Processes()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.reset)


def _started(program: str | None) -> Any:
    """The processes, made of the program at a path; None for where pydantic-monty looks for it."""
    pool = _monty().Monty(binary_path=program, max_processes=4096, max_checkouts_per_worker=1000)
    try:
        return pool.__enter__()
    except FileNotFoundError:
        if program is None:
            raise
        cause = f"there is no {program}"
    except (OSError, RuntimeError) as error:
        cause = str(error)
    raise SandboxError(
        f"the interpreter of pydantic-monty does not start: {cause}. Install it anew (pip install pydantic-monty), or "
        "name its program in the environment as MONTY_BIN"
    )


def _installed() -> str:
    """The program as the package that has it was installed."""
    from importlib.metadata import PackageNotFoundError, files

    try:
        found = [str(file.locate()) for file in files("pydantic-monty-runtime") or () if file.stem == "monty"]
    except PackageNotFoundError:
        found = []
    return os.path.realpath(found[0]) if found else "monty"


def _monty() -> Any:
    try:
        import pydantic_monty
    except ImportError as error:
        raise MissingExtraError(extra="sandbox", package="pydantic-monty") from error
    return pydantic_monty


def _parts(error: Any) -> tuple[str, str]:
    """The name of the exception of the code, and its message."""
    text = str(error)
    name, colon, message = text.partition(": ")
    if colon and name.replace(".", "").isidentifier() and isinstance(error, _monty().MontyRuntimeError):
        return name.rpartition(".")[2], message
    kind = type(error.exception()).__name__
    return kind, "" if text == kind else text


def _never(*args: Any, **kwargs: Any) -> None:
    raise RuntimeError("calls of functions are answered one by one")


def _number(filename: str) -> int:
    """Which run of a session a frame is of: `<python-input-3>`."""
    digits = "".join(letter for letter in filename if letter.isdigit())
    return int(digits) if digits else -1
