"""`elsewhere`: a method of a test class, called in another process, under another hash seed."""

from __future__ import annotations

import atexit
import inspect
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_SERVER = """
import importlib.util, json, os, sys, traceback
path, module_name = sys.argv[1:]
spec = importlib.util.spec_from_file_location(module_name, path)
module = importlib.util.module_from_spec(spec)
sys.modules[module_name] = module
spec.loader.exec_module(module)

def work(job):
    case = module
    for part in job["name"].split("."):
        case = getattr(case, part)
    found = getattr(case(), job["method"])(*job["arguments"])
    with open(job["found"], "w", encoding="utf-8") as file:
        json.dump(found, file)

for line in sys.stdin:
    job, code = json.loads(line), 1
    pid = os.fork()
    if not pid:
        try:
            with open(job["said"], "w", encoding="utf-8") as said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                try:
                    work(job)
                    code = 0
                except BaseException:
                    traceback.print_exc()
                sys.stdout.flush()
                sys.stderr.flush()
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class CalledElsewhere:
    """How a call in another process ended.

    Attributes:
        code: The exit status of its process: 0 if it returned, the negative number of a signal that killed it.
        found: What it returned, in JSON types; None unless `code` is 0.
        said: What it wrote, with the traceback of its error.
    """

    code: int
    found: Any
    said: str


class _Server:
    """A process in which a test file is imported once, and which forks for each call: the import costs a second."""

    def __init__(self, path: str, module: str, hash_seed: int) -> None:
        paths = [str(Path(__file__).parents[2]), *filter(None, sys.path)]
        self._said: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - until `close`
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, path, module],
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )

    def call(self, name: str, method: str, *arguments: Any) -> CalledElsewhere:
        sent, got = self._process.stdin, self._process.stdout
        if sent is None or got is None:
            raise RuntimeError("the process has no pipes")
        with tempfile.TemporaryDirectory() as folder:
            found, said = Path(folder, "found"), Path(folder, "said")
            job = {"name": name, "method": method, "arguments": arguments, "found": str(found), "said": str(said)}
            try:
                print(json.dumps(job), file=sent, flush=True)
                code = got.readline()
            except BrokenPipeError:
                code = ""
            if not code:  # it ended while it imported the file
                self._said.seek(0)
                return CalledElsewhere(self._process.wait() or 1, None, self._said.read())
            whole = int(code) == 0
            return CalledElsewhere(
                int(code), json.loads(found.read_text("utf-8")) if whole else None, said.read_text("utf-8")
            )

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:  # it has ended already
                    continue
        self._process.wait()
        self._said.close()


_servers: dict[tuple[str, str, int], _Server] = {}


def _close(*, but: str = "") -> None:
    """End the processes of all test files, but that of one."""
    for key in [key for key in _servers if key[0] != but]:
        _servers.pop(key).close()


atexit.register(_close)


def elsewhere(kind: type, method: str, *arguments: Any, hash_seed: int) -> CalledElsewhere:
    """Call a method of a test class, made without arguments, in a process of its own.

    Args:
        kind: The class, at the top of a file.
        method: Name of the method; what it returns is JSON.
        arguments: Its arguments, in JSON types.
        hash_seed: The hash seed of that process.
    """
    path = inspect.getfile(kind)
    _close(but=path)
    key = (path, kind.__module__, hash_seed)
    if key not in _servers:
        _servers[key] = _Server(*key)
    ended = _servers[key].call(kind.__qualname__, method, *arguments)
    if _servers[key]._process.poll() is not None:
        _servers.pop(key).close()
    return ended
