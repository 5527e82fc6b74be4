"""`Subprocess`: code in a Python of its own, from which files, network and other processes are taken."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from promptgrad.errors import SandboxError
from promptgrad.sandbox._execution import CodeFault, first_line
from promptgrad.sandbox._interpreter import Interpreter, Limits
from promptgrad.sandbox._plain_data import pack, unpack
from promptgrad.sandbox._session import Answered, Called, Ended, Event, Failed, LimitedSession, Printed

CHILD = Path(__file__).with_name("_child.py")
START_SECONDS = 30.0
MOST_LINE = 64 * 2**20
"""Bytes of one message of the process."""

_LOOK = 0.01
"""Seconds between two looks at how long a process has computed."""

_PROCESSOR = 2
"""The clock of the processor's time of a process, as Linux numbers it behind the complement of its number."""

_ONE_THREAD = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "RAYON_NUM_THREADS"), "1"
)
"""What packages are told that would start threads."""

_ABOUT = """\
Python {version}, with its standard library{packages}, without files, network, threads and other processes."""


class Subprocess(Interpreter):
    """Run code in Python itself, in a process that can do nothing but compute.

    For code that needs the whole language, or packages. Before any code runs, the process gives up for good: all files
    but those of Python, which it may read; network; other processes, threads and signals; its environment, its
    descriptors, its privileges. Its memory and descriptors are limited, and it is killed at the end of its time: that
    of the processor (`Limits.seconds`, "seconds"), or by the clock where it waits or gets no processor (`Limits.wall`).

    This takes Linux 6.2 or newer, on x86_64 or aarch64, with Landlock and seccomp, and no privilege. Elsewhere a run is
    a `SandboxError`; `strict=False` runs the code with those limits that there are, where code may read what your user
    may read, and reach what your machine can reach. `Subprocess().missing()` tells what is missing here.

    What it does not stop: code sees which files there are, their names, sizes and times; how busy the machine is; and a
    flaw of the kernel is one of this sandbox. `Monty` shares none of these.

    Equal code gives equal results, with `random` and hashes that begin with `seed`, but for the clock, which is real.

    Cost: some 60 ms to start a session, then 0.2 ms a run. No LM call.

    Args:
        limits: What bounds a run; `memory` is that of the process beyond Python's own, and `depth` about it.
        seed: Where `random` and hashes begin.
        packages: Whether the code may import, and so read, what is installed beside promptgrad, such as numpy; what
            computes in threads is told to use one.
        strict: Whether to refuse where the process cannot give up all of it.

    Raises:
        SandboxError: When used: the process does not start, or cannot be confined.
    """

    def __init__(
        self, limits: Limits | None = None, *, seed: int = 0, packages: bool = False, strict: bool = True
    ) -> None:
        self.limits = limits or Limits()
        self.seed = seed
        self.packages = packages
        self.strict = strict

    @property
    def about(self) -> str:
        """What the code may use."""
        version = ".".join(map(str, sys.version_info[:2]))
        return _ABOUT.format(version=version, packages=" and installed packages" if self.packages else "")

    def session(self) -> "SubprocessSession":
        """Begin a session; its process starts on the first run."""
        return SubprocessSession(self)

    def missing(self) -> list[str]:
        """What a process cannot give up on this machine, of "files", "network" and "processes"; empty where it can.

        Cost: the start of a process.
        """
        process = Process(self)
        process.end()
        return [part for part in ("files", "network", "processes") if part not in process.gone]

    def _key(self) -> tuple[Any, ...]:
        return self.limits, self.seed, self.packages, self.strict

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Subprocess) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        more = "".join(f", {name}={getattr(self, name)}" for name in ("packages", "strict"))
        return f"Subprocess({self.limits!r}{more})"


class SubprocessSession(LimitedSession):
    """A session of `Subprocess`.

    Args:
        interpreter: The interpreter.
    """

    def __init__(self, interpreter: Subprocess) -> None:
        super().__init__(interpreter.limits)
        self.interpreter = interpreter
        self._process: Process | None = None
        self._printed: Printed | None = None
        self._left = 0.0  # seconds of this run by the clock
        self._computed = 0.0  # seconds of the processor before this run

    def _begin(self, code: str, given: dict[str, Any], names: Collection[str], printed: Printed) -> Event:
        if self._process is None:
            self._process = self._started()
        self._printed = printed
        self._left = _wall(self._limits)
        self._computed = self._process.computed() or 0.0
        inputs = {name: pack(value) for name, value in given.items()}
        return self._next({"code": code, "inputs": inputs, "functions": sorted(names)})

    def _started(self) -> "Process":
        process = Process(self.interpreter)
        missing = [part for part in ("files", "network", "processes") if part not in process.gone]
        if missing and self.interpreter.strict:
            process.end()
            raise SandboxError(
                f"a process cannot give up {', '.join(missing)} on this machine, which takes Linux 6.2 with Landlock "
                "and seccomp on x86_64 or aarch64: use sandbox.Monty(), or Subprocess(strict=False) for code that you "
                "trust"
            )
        return process

    def _resume(self, answer: Answered) -> Event:
        if answer.raised:
            return self._next({"raised": answer.raised, "message": answer.message})
        return self._next({"value": pack(answer.value)})

    def _next(self, request: dict[str, Any]) -> Event:
        process, printed = self._process, self._printed
        if process is None or printed is None:
            return self._dead()
        until = Until(monotonic() + self._left, partial(self._spare, process))
        try:
            process.write(request, until)
            while True:
                reply = process.read(until)
                if "out" not in reply:
                    self._left = until.end - monotonic()
                    return self._event(reply)
                try:
                    printed.add(str(reply["out"]))
                except MemoryError:
                    return Failed(printed.fault, lost=True)
        except TimeoutError:
            return self._late(process)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return self._dead()

    def _spare(self, process: "Process") -> float | None:
        """The seconds of the processor that are left to this run; None where the system does not tell."""
        computed = process.computed()
        return None if computed is None else self._limits.seconds - (computed - self._computed)

    def _late(self, process: "Process") -> Failed:
        spare, wall = self._spare(process), _wall(self._limits)
        if spare is None or spare <= 0:
            said, limit = f"it computed for more than {self._limits.seconds:g} s", "seconds"
        else:
            said, limit = f"it took more than {wall:g} s by the clock, and computed for less of it", "wall"
        return Failed(CodeFault("TimeoutError", said, limit=limit), lost=True)

    def _event(self, reply: dict[str, Any]) -> Event:
        if "call" in reply:
            return Called(str(reply["call"]), unpack(reply["args"]), unpack(reply["kwargs"]))
        if "value" in reply:
            return Ended(unpack(reply["value"]))
        fault = reply["fault"]
        kind, message, limit = str(fault["kind"])[:200], str(fault["message"])[:2000], str(fault["limit"])
        line = fault["line"] if isinstance(fault["line"], int) else None
        if limit == "memory":
            message = f"it needed more than {self._limits.memory} bytes"
        elif limit == "depth":
            message = f"more than about {self._limits.depth} calls of functions inside one another"
        elif limit == "value":
            message = f"the value of the last line cannot be shown: {message}"
        return Failed(CodeFault(kind, message, line, first_line(str(fault["source"])), limit))

    def _dead(self) -> Failed:
        return Failed(CodeFault("RuntimeError", "the process of the code died", limit="crash"), lost=True)

    def _interrupt(self) -> None:
        process = self._process
        if process is not None:
            process.kill()

    def _drop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end()


class Until:
    """How long a process may compute, and how long it may take.

    Args:
        end: When its time by the clock ends.
        spare: Tells the seconds of the processor that are left to it; None where that is not known.
    """

    def __init__(self, end: float, spare: Callable[[], float | None] = lambda: None) -> None:
        self.end = end
        self._spare = spare

    def ready(self, reading: list[int], writing: list[int]) -> bool:
        """Wait until one of the pipes is ready; False once the process may wait no longer.

        It cannot compute faster than the clock goes, so nobody looks before it could have used what is left.
        """
        while True:
            left = self.end - monotonic()
            spare = self._spare()
            pause = left if spare is None else min(left, max(spare, _LOOK))
            if any(select.select(reading, writing, [], max(pause, 0))[:2]):
                return True
            if self.end <= monotonic() or (spare is not None and (self._spare() or 0.0) <= 0):
                return False


class Process:
    """A process that runs code, with an empty folder of its own.

    Args:
        interpreter: What it is started for.

    Attributes:
        gone: What it has given up.
    """

    def __init__(self, interpreter: Subprocess) -> None:
        if os.name != "posix":
            raise SandboxError("Subprocess needs Linux, or another system like it: use sandbox.Monty()")
        self._folder = tempfile.mkdtemp(prefix="promptgrad-")
        self._rest = bytearray()
        flags = ["-s", "-B", *([] if interpreter.packages else ["-S"])]
        try:
            self._process = subprocess.Popen(
                [sys.executable, *flags, str(CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=self._folder,
                env={"PYTHONHASHSEED": str(interpreter.seed % 2**32), **(_ONE_THREAD if interpreter.packages else {})},
                close_fds=True,
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise SandboxError(f"Python does not start for code in a sandbox: {error}") from error
        self._in, self._out = _pipe(self._process.stdin), _pipe(self._process.stdout)
        os.set_blocking(self._in, False)
        limits = interpreter.limits
        begin = {
            "limits": {
                **{name: getattr(limits, name) for name in ("seconds", "memory", "depth")},
                "wall": _wall(limits),
            },
            "readable": _readable(packages=interpreter.packages),
            "seed": interpreter.seed,
        }
        try:
            self.write(begin, Until(monotonic() + START_SECONDS))
            found = self.read(Until(monotonic() + START_SECONDS))
            self.gone: list[str] = list(found["gone"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.end()
            raise SandboxError(f"the process for code does not start: {type(error).__name__}: {error}") from error

    def computed(self) -> float | None:
        """The seconds of the processor that it has had; None where the system does not tell."""
        try:
            return time.clock_gettime(~self._process.pid << 3 | _PROCESSOR)
        except (AttributeError, OSError):
            return None

    def write(self, message: dict[str, Any], until: Until) -> None:
        """Send a message.

        Raises:
            TimeoutError: It is not read in time.
            OSError: The process is gone.
        """
        left = memoryview(json.dumps(message).encode() + b"\n")
        while left:
            if not until.ready([], [self._in]):
                raise TimeoutError("the process does not read")
            left = left[os.write(self._in, left[: 2**16]) :]

    def read(self, until: Until) -> dict[str, Any]:
        """The next message.

        Raises:
            TimeoutError: None comes in time.
            OSError: The process is gone, or writes what is no message.
            ValueError: It is no JSON.
        """
        searched = 0
        while (end := self._rest.find(b"\n", searched)) < 0:
            searched = len(self._rest)
            if searched > MOST_LINE:
                raise OSError("its message is too long")
            if not until.ready([self._out], []):
                raise TimeoutError("the process does not answer")
            piece = os.read(self._out, 2**16)
            if not piece:
                raise OSError("the process is gone")
            self._rest += piece
        line = bytes(self._rest[:end])
        del self._rest[: end + 1]
        found = json.loads(line)
        if not isinstance(found, dict):
            raise OSError("what it sent is not a message")
        return found

    def kill(self) -> None:
        """Kill the process, and what is left in its session."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except OSError:
            self._process.kill()

    def end(self) -> None:
        """Kill the process, and remove its folder."""
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _wall(limits: Limits) -> float:
    """The seconds that a run may take by the clock; those that it computes, where the system does not count them."""
    if not sys.platform.startswith("linux"):
        return limits.seconds
    return 10 * (limits.seconds + 1) if limits.wall is None else limits.wall


def _pipe(file: Any) -> int:
    number: int = file.fileno()
    return number


def _readable(*, packages: bool) -> list[str]:
    """What a Python reads of its own: modules, and the libraries of the system that they use."""
    base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    found = [sysconfig.get_path(name, vars=base) for name in ("stdlib", "platstdlib")]
    if packages:
        found += [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    found += ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/dev/null"]
    found.append(sysconfig.get_config_var("LIBDIR") or "")
    return [os.path.realpath(folder) for folder in dict.fromkeys(found) if folder and os.path.exists(folder)]
