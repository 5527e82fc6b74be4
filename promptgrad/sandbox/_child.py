"""The program of the process in which `Subprocess` runs code. It is executed, and not imported by the package.

It reads requests as lines of JSON from its standard input, and writes replies to its standard output, both of which it
takes away from the code. It imports the standard library alone.
"""

import ast
import contextlib
import json
import linecache
import os
import random
import resource
import runpy
import signal
import sys
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
MODULE = "code_of_the_sandbox"
PIECE = 8192
"""Characters of output that are kept back."""


class Wire:
    """The two pipes to the program around this one."""

    def __init__(self) -> None:
        self.seconds = 60.0  # that may pass before the next request is read
        self._requests = os.fdopen(os.dup(0), "rb")
        self._replies = os.fdopen(os.dup(1), "wb")
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        os.close(nothing)

    def read(self) -> Any:
        """The next request; the process ends where there is none, or where what follows takes too long.

        A run is ended from outside before that, unless what is outside was killed.
        """
        signal.setitimer(signal.ITIMER_REAL, 0)
        line = self._requests.readline()
        if not line:
            os._exit(0)
        signal.setitimer(signal.ITIMER_REAL, self.seconds)
        return json.loads(line)

    def write(self, **reply: Any) -> None:
        """Send a reply."""
        self._replies.write(json.dumps(reply).encode() + b"\n")
        self._replies.flush()


class Output:
    """Standard output and standard error of the code."""

    encoding = "utf-8"
    errors = "strict"

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._kept = ""

    def write(self, text: str) -> int:
        """Print."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._kept += str.__str__(text)
        if len(self._kept) > PIECE:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Send what is kept back."""
        text, self._kept = self._kept, ""
        if text:
            self._wire.write(out=text)

    def isatty(self) -> bool:
        """Whether a person reads it."""
        return False

    def writable(self) -> bool:
        """Whether it can be written to."""
        return True


def bound(limits: dict[str, Any]) -> None:
    """Set the limits of the process."""
    size = 200 * 2**20  # of the interpreter itself, where the system does not tell
    with contextlib.suppress(OSError), open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    most = size + limits["memory"]
    seconds = int(limits["seconds"] * 100) + 60  # of a whole session; a run is ended from outside
    wanted = {"AS": most, "DATA": most, "CPU": seconds, "FSIZE": 0, "CORE": 0, "NOFILE": 64, "NPROC": 0, "MEMLOCK": 0}
    for name, value in wanted.items():
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is not None:
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(kind, (value, value))
    sys.setrecursionlimit(limits["depth"] + 60)


def main() -> None:
    """Take all away, and run what is asked for."""
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != HERE]
    data = runpy.run_path(os.path.join(HERE, "_plain_data.py"))
    confine = runpy.run_path(os.path.join(HERE, "_confine.py"))["confine"]
    wire = Wire()
    begin = wire.read()
    random.seed(begin["seed"])
    bound(begin["limits"])
    wire.seconds = begin["limits"]["wall"] + 5
    wire.write(gone=confine(begin["readable"]))
    output: Any = Output(wire)
    sys.stdout = sys.stderr = output
    sys.stdin = open(os.devnull)  # noqa: SIM115 - for as long as the process
    Runs(wire, output, data).serve()


class Runs:
    """Runs of code that share their variables."""

    def __init__(self, wire: Wire, output: Output, data: dict[str, Any]) -> None:
        self._wire = wire
        self._output = output
        self._pack, self._unpack, self._received = data["pack"], data["unpack"], data["received"]
        self._variables: dict[str, Any] = {"__name__": MODULE, "__builtins__": __builtins__}
        self._granted: set[str] = set()
        self._count = 0

    def serve(self) -> None:
        """Run what is asked for, without end."""
        while True:
            request = self._wire.read()
            reserve = bytearray(2**20)
            try:
                reply = {"value": self._run(request)}
            except BaseException as error:  # noqa: BLE001 - it is the result
                del reserve
                reply = {"fault": self._fault(error, request["code"])}
            with contextlib.suppress(Exception):
                self._output.flush()
            self._wire.write(**reply)

    def _run(self, request: dict[str, Any]) -> Any:
        self._count += 1
        name = f"<code {self._count}>"
        code = request["code"]
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        for gone in self._granted - set(request["functions"]):
            if isinstance(self._variables.get(gone), Outside):
                del self._variables[gone]
        self._granted = set(request["functions"])
        self._variables.update({granted: Outside(granted, self.call) for granted in request["functions"]})
        self._variables.update({key: self._unpack(value) for key, value in request["inputs"].items()})
        tree = ast.parse(code, name)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = ast.Expression(tree.body.pop().value)
        value = None
        if tree.body:
            exec(compile(tree, name, "exec"), self._variables)
        if last is not None:
            value = eval(compile(last, name, "eval"), self._variables)
        try:
            return self._pack(self._received(value, MODULE))
        except (ValueError, RecursionError) as error:
            raise Unshown(str(error)) from None

    def call(self, name: str, args: Any, kwargs: Any) -> Any:
        """Call a function of the program around this one."""
        plain = [self._pack(self._received(part, MODULE)) for part in (list(args), dict(kwargs))]
        self._output.flush()
        self._wire.write(call=name, args=plain[0], kwargs=plain[1])
        answer = self._wire.read()
        if "raised" in answer:
            kind: Any = getattr(__import__("builtins"), answer["raised"], RuntimeError)
            raise kind(answer["message"])
        return self._unpack(answer["value"])

    def _fault(self, error: BaseException, code: str) -> dict[str, Any]:
        name = f"<code {self._count}>"
        line, trace = None, error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == name:
                line = trace.tb_lineno
            trace = trace.tb_next
        if isinstance(error, SyntaxError) and error.filename == name:
            line = error.lineno
        kind = "ValueError" if isinstance(error, Unshown) else type(error).__name__
        try:
            said = error.msg if isinstance(error, SyntaxError) else str(error)
        except BaseException:  # noqa: BLE001 - the message of an error of the code is code
            said = ""
        limit = "memory" if isinstance(error, MemoryError) else "depth" if isinstance(error, RecursionError) else ""
        lines = code.splitlines()
        source = lines[line - 1] if line is not None and 0 < line <= len(lines) else ""
        limit = "value" if isinstance(error, Unshown) else limit
        return {"kind": kind, "message": said[:2000], "line": line, "source": source[:500], "limit": limit}


class Unshown(Exception):
    """The value of the last line cannot be passed on."""


class Outside:
    """A function of the program around this one."""

    def __init__(self, name: str, call: Any) -> None:
        self.__name__ = name
        self.__qualname__ = name
        self._call = call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        return self._call(self.__name__, args, kwargs)

    def __repr__(self) -> str:
        return f"<function {self.__name__}>"


if __name__ == "__main__":
    main()
