"""How much work a function does, counted rather than timed: the same on an idle machine and on a busy one."""

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import promptgrad
from promptgrad import aio

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = str(Path(promptgrad.__file__).parent)


def found_alone(module: str) -> Any:
    """What `main` of a file of tests prints as JSON, in a process of its own.

    What other tests have loaded and left there changes what is counted.
    """
    code = f"from {module} import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def functions(work: Callable[[], object]) -> int:
    """How many functions of the package are entered, each turn of a coroutine included."""
    entered = 0

    def profile(frame, event, argument):
        nonlocal entered
        entered += event == "call" and frame.f_code.co_filename.startswith(PACKAGE)

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return entered


def steps(work: Callable[[], object], *, loop: bool = False) -> int:
    """How many lines of Python `work` executes, each turn of a loop included, and calls of C functions.

    What a C function does inside is not seen: one `in` of a long list is one step. What suspends goes on in the thread
    of the program loop, which counts with `loop`, and then the turns of the event loop do too. The garbage collector
    waits, as it may come at any step, and what it ends (the sessions of other tests) would count.
    """
    count = 0

    def line(frame, event, argument):
        nonlocal count
        count += event == "line"
        return line

    def call(frame, event, argument):
        nonlocal count
        count += event == "c_call"

    async def observe(trace, profile):
        before = sys.gettrace(), sys.getprofile()
        sys.settrace(trace)
        sys.setprofile(profile)
        return before

    there = aio.run(observe(line, call)) if loop else (None, None)
    collects = gc.isenabled()
    gc.disable()
    here = aio.drive(observe(line, call))
    try:
        work()
    finally:
        aio.drive(observe(*here))
        if collects:
            gc.enable()
        if loop:
            aio.run(observe(*there))
    return count


def growth(work: Callable[[int], Callable[[], object]], size: int, times: int = 4) -> float:
    """How many times as many steps it takes for `times` the size: about `times` if linear, its square if quadratic.

    `work(size)` prepares, uncounted, and returns what is to be counted.
    """
    work(size)()  # what is loaded, compiled or cached once is no part of either
    small = steps(work(size), loop=True)
    assert small > size, "the work is done in another thread, or there is none"
    return steps(work(size * times), loop=True) / small
