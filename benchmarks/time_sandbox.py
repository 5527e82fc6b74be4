"""What a sandbox costs: to start a session with its first run, to run a small program in it, and to call a function.

`session` is the wall time of a session that begins, runs a program of three lines and ends, one after the other; the
first one of a process, which also starts what the others share, is before the clock. Its base is a bare Python that is
started for a program of the same three lines. `run` is a run in a session that is there, `call` one of a hundred calls
of a granted function in a run: CPU of this process, with the wall time beside it. DSPy's interpreter needs Deno, and is
skipped where that is not installed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from _side_by_side import Block, contest, header, options, report, serve_blocks

PROGRAM = "rows = [n * n for n in range(100)]\ntotal = sum(rows)\ntotal % 97"
ANSWER = sum(n * n for n in range(100)) % 97


def bare_python(params: dict[str, Any]) -> Block:
    """`python -c`, as one would start it by hand, with nothing around it and nothing taken from it."""
    *lines, last = PROGRAM.splitlines()
    code = "\n".join([*lines, f"print({last})"])

    def block() -> int:
        for _ in range(params["n"]):
            done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
            assert int(done.stdout) == ANSWER  # noqa: S101
        return int(params["n"])

    return block


def ours(kind: str) -> Callable[[dict[str, Any]], Block]:
    """One of our interpreters."""

    def prepare(params: dict[str, Any]) -> Block:
        from promptgrad import sandbox

        interpreter: Any = getattr(sandbox, kind)()
        assert interpreter.run(PROGRAM).value == ANSWER  # noqa: S101
        held = interpreter.session()
        functions = {"f": abs}

        def sessions() -> int:
            for _ in range(params["n"]):
                interpreter.run(PROGRAM)
            return int(params["n"])

        def runs() -> int:
            for _ in range(params["n"]):
                held.run(PROGRAM)
            return int(params["n"])

        def calls() -> int:
            for _ in range(params["n"]):
                held.run("for n in range(100): f(n)", functions=functions)
            return 100 * int(params["n"])

        block: Block = {"session": sessions, "run": runs, "call": calls}[params["case"]]
        return block

    return prepare


def dspy_interpreter(params: dict[str, Any]) -> Block:
    """DSPy's `PythonInterpreter`: Pyodide in Deno."""
    if shutil.which("deno") is None:
        raise ImportError("Deno is not installed, which DSPy's interpreter runs in")
    import dspy

    held: Any = dspy.PythonInterpreter()
    held.execute(PROGRAM)

    def block() -> int:
        for _ in range(params["n"]):
            interpreter: Any = held if params["case"] == "run" else dspy.PythonInterpreter()
            interpreter.execute(PROGRAM)
            if interpreter is not held:
                interpreter.shutdown()
        return int(params["n"])

    return block


CONTESTANTS: dict[str, Callable[[dict[str, Any]], Block]] = {
    "python -c": bare_python,
    "promptgrad Monty": ours("Monty"),
    "promptgrad Subprocess": ours("Subprocess"),
    "dspy": dspy_interpreter,
}
CASES = {
    "session": (list(CONTESTANTS), 10, "wall"),
    "run": (["promptgrad Monty", "promptgrad Subprocess", "dspy"], 200, "cpu"),
    "call": (["promptgrad Monty", "promptgrad Subprocess"], 10, "cpu"),
}
"""Who takes part, how often a block does it, and what is compared."""
TARGETS: dict[str, Any] = {
    "session": {
        "promptgrad Monty": ("<= .2 x python -c", lambda each, ratio: ratio <= 0.2),
        "promptgrad Subprocess": ("<= 8 x python -c", lambda each, ratio: ratio <= 8),
    },
    "run": {"promptgrad Monty": ("<= 100 us", lambda each, ratio: each <= 100)},
    "call": {"promptgrad Monty": ("<= 100 us", lambda each, ratio: each <= 100)},
}


def main() -> None:
    """Measure the three cases."""
    chosen = options(__doc__ or "", blocks=7)
    if chosen.child:
        serve_blocks(CONTESTANTS, chosen.child, json.loads(chosen.params))
        return
    header("sandbox")
    for case, (names, n, what) in CASES.items():
        wanted = [name for name in names if not chosen.quick or name != "dspy"]
        if chosen.quick and sys.platform != "linux":
            wanted = [name for name in wanted if "Subprocess" not in name]
        params = {"case": case, "n": 2 if chosen.quick else n}
        children = contest(__file__, wanted, params, chosen.blocks, chosen.only)
        report("sandbox", case, children, what=what, base="python -c", targets=TARGETS[case])


if __name__ == "__main__":
    main()
