"""`Monty`: code in an interpreter of its own, which knows no files, no network and no processes."""

import atexit
import os
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from typing import Any

from promptgrad._patterns import late_pattern
from promptgrad.errors import MissingExtraError, SandboxError
from promptgrad.sandbox._execution import CodeFault, first_line
from promptgrad.sandbox._interpreter import Interpreter, Limits
from promptgrad.sandbox._plain_data import whole
from promptgrad.sandbox._session import Answered, Called, Ended, Event, Failed, LimitedSession, Printed

_EPOCH = datetime(2000, 1, 1, tzinfo=timezone.utc)

_ASSIGNED = late_pattern(r"\b(?:def|class)\s+(\w+)|\b(\w+)\b(?!\s*\()")  # and more: each name that is not called
_MARK = "_inputs_of_run_"  # a variable beside the inputs, which tells whether they are bound
_AGAIN = "_granted_"  # before the name of a function that is granted again

_ABOUT = """\
Python without files, network, processes, packages and clock. There are the modules math, re, json, datetime, \
collections, itertools, functools, random, dataclasses, bisect, decimal, copy, csv, hashlib, base64, typing and \
unicodedata. There is no `yield`, no `del`, no inheritance and no decorator of methods."""


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


class MontySession(LimitedSession):
    """A session of `Monty`.

    Args:
        interpreter: The interpreter.
    """

    def __init__(self, interpreter: Monty) -> None:
        super().__init__(interpreter.limits)
        self.interpreter = interpreter
        self._held: Any = None  # the process, while there are variables
        self._waiting: Any = None  # what waits for the answer to a call
        self._printed: Printed | None = None
        self._runs = 0
        self._assigned: set[str] = set()  # names that the code may have given a value

    def _begin(self, code: str, given: dict[str, Any], names: Collection[str], printed: Printed) -> Event:
        if self._held is None:
            self._held = self.interpreter._checkout()
        self._printed = printed
        granted = dict.fromkeys(names, _never)
        feed = self._held.feed_start
        if hidden := sorted(self._assigned.intersection(names)):  # a variable of the code has the name of a function
            again = "\n".join(f"{name} = {_AGAIN}{name}" for name in hidden)
            found = dict.fromkeys((f"{_AGAIN}{name}" for name in hidden), _never)
            bound = self._next(lambda: feed(again, external_lookup=found))
            if isinstance(bound, Failed):
                return bound
        self._assigned.update(word for pair in _ASSIGNED.findall(code) for word in pair if word)
        told = {**whole(given), _MARK: self._runs} if given else {}
        self._runs += 1
        event = self._next(
            lambda: feed(
                whole(code), inputs=told, external_lookup=granted, print_callback=lambda _, text: printed.add(text)
            )
        )
        if told and isinstance(event, Failed) and not event.lost and self._value_of(_MARK) != told[_MARK]:
            self._next(lambda: feed("None", inputs=told))  # the code was not begun, as it does not parse
        return event

    def _value_of(self, name: str) -> Any:
        event = self._next(lambda: self._held.feed_start(name))
        return event.value if isinstance(event, Ended) else None

    def _resume(self, answer: Answered) -> Event:
        told: dict[str, Any] = {"return_value": whole(answer.value)}
        if answer.raised:
            told = {"exc_type": answer.raised, "message": whole(answer.message)}
        return self._next(partial(self._waiting.resume, told))

    def _next(self, step: Callable[[], Any]) -> Event:
        """What comes next, when all is answered that is not for the program around the code."""
        monty = _monty()
        while True:
            try:
                state = step()
            except monty.MontyError as error:
                return self._failed(error)
            if isinstance(state, monty.MontyComplete):
                return Ended(state.output)
            if isinstance(state, monty.NameLookupSnapshot):
                step = state.resume_auto
            elif not isinstance(state, monty.FunctionSnapshot):
                return Failed(CodeFault("RuntimeError", "it waits for what nothing will answer"), lost=True)
            elif state.is_os_function:
                step = state.resume_not_handled
            else:
                self._waiting = state
                return Called(state.function_name.removeprefix(_AGAIN), state.args, state.kwargs)

    def _failed(self, error: Any) -> Failed:
        limits, printed = self._limits, self._printed
        if printed is not None and printed.is_full:
            return Failed(printed.fault, lost=True)
        overtime = CodeFault("TimeoutError", f"it computed for more than {limits.seconds:g} s", limit="seconds")
        if isinstance(error, _monty().MontyCrashedError):
            dead = CodeFault("MemoryError", "the process of the code died, as of too much memory", limit="crash")
            return Failed(overtime if error.timed_out else dead, lost=True)
        frames = error.traceback() if hasattr(error, "traceback") else []
        kind, message = _parts(error)
        if kind == "TimeoutError" and not frames:
            return Failed(overtime, lost=True)
        limit = ""
        if kind == "MemoryError" and "exceeded" in message:
            limit, message = "memory", f"it needed more than {limits.memory} bytes"
        elif kind == "RecursionError":
            limit, message = "depth", f"more than {limits.depth} calls of functions inside one another"
        newest = max((frame.filename for frame in frames), key=_number, default="")
        here = [frame for frame in frames if frame.filename == newest]
        if not here:
            return Failed(CodeFault(kind, message[:2000], limit=limit), lost=limit == "memory")
        frame = here[-1]
        return Failed(CodeFault(kind, message[:2000], frame.line, first_line(frame.source_line), limit))

    def _drop(self) -> None:
        held, self._held, self._waiting = self._held, None, None
        self._assigned.clear()
        if held is not None:
            held.__exit__(None, None, None)


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

    def stop(self, patience: float = 5.0) -> None:
        """End the processes; those that take longer end with this one, whose pipes they read."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is None:
            return
        ending = threading.Thread(target=pool.__exit__, args=(None, None, None), daemon=True)
        with suppress(RuntimeError):  # too late for a thread
            ending.start()
            ending.join(patience)


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
