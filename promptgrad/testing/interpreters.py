"""A contract suite for interpreters: what the modules that write code ask of where it runs, as tests for your own.

```python
from promptgrad.testing.interpreters import InterpreterContract

class TestMine(InterpreterContract):
    def make(self, **limits):
        return Mine(sandbox.Limits(**limits))
```

It needs pytest, which is not a dependency of promptgrad; nothing else in the package imports this module.
"""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from promptgrad import nn
from promptgrad.autograd import Text
from promptgrad.errors import MissingExtraError
from promptgrad.sandbox import CodeSession, Execution, Halt, Interpreter
from promptgrad.testing._promise import must, raised

try:
    import pytest
except ImportError as error:
    raise MissingExtraError(
        "promptgrad.testing.interpreters is a suite of pytest, which is not installed: pip install pytest", extra="dev"
    ) from error

__all__ = ["InterpreterContract"]

PLAIN: tuple[Any, ...] = (
    None,
    True,
    3,
    -(2**100),
    1.5,
    "ä\n\x00",
    b"\x00\xff",
    [1, [2]],
    (1, (2,)),
    {1, 2},
    {"a": {1: None}},
    {},
    (),
)


class InterpreterContract:
    """The promises of every interpreter. Subclass it in a test file, as a class `Test...` with `make`.

    Each test method is one promise, stated in its docstring. That code cannot reach what it must not is no part of it:
    try the programs of `tests/sandbox/escapes.py` on yours.

    Cost: no call of a language model; a few seconds where a session is a process.
    """

    def make(self, **limits: Any) -> Interpreter:
        """Make an interpreter with these limits, the arguments of `sandbox.Limits`; all others by their default."""
        raise NotImplementedError(f"{type(self).__name__} does not define make(), which gives the interpreter")

    # ---- runs

    def test_a_run_has_its_output_and_the_value_of_its_last_line(self) -> None:
        """What is printed is `stdout`, and a last line that is an expression is `value`."""
        found = self.make().run("x = 20\nprint('hello', x)\nx + 1")
        must(
            found == Execution("hello 20\n", 21), f"it returns {found!r}, and Execution('hello 20\\n', 21) is expected"
        )
        found = self.make().run("x = 1")
        must(found == Execution(), f"code that prints nothing and ends in no expression gives {found!r}")

    def test_awaited_it_does_the_same(self) -> None:
        """`await interpreter.arun(...)` returns what `run` returns."""
        interpreter, code = self.make(), "print(n)\n[n, n * 2]"
        called, awaited = interpreter.run(code, {"n": 4}), asyncio.run(interpreter.arun(code, {"n": 4}))
        must(called == awaited, f"called it returns {called!r}, and awaited {awaited!r}")

    @pytest.mark.parametrize("value", PLAIN, ids=repr)
    def test_plain_data_passes_both_ways(self, value: Any) -> None:
        """Inputs, arguments, results and values are plain data, and come through with their types."""
        found = self.make().run("f(x)", {"x": value}, {"f": lambda given: [given, value]})
        must(found.error is None, f"{value!r} as an input and an argument gives the error {found.error}")
        passed = found.value == [value, value] and {type(part) for part in found.value} == {type(value)}
        must(passed, f"{value!r} comes back as {found.value!r}")

    def test_texts_of_a_graph_are_plain_texts_there(self) -> None:
        """A `Text` is a plain text for the code."""
        interpreter = self.make()
        for found in (interpreter.run("x", {"x": Text("hi")}), interpreter.run("f()", None, {"f": lambda: Text("hi")})):
            must(found.value == "hi", f"a Text comes back as {found.value!r}, with the error {found.error}")

    def test_what_is_no_plain_data_is_refused_before_the_code_runs(self) -> None:
        """An input that is no plain data, or a name that no variable can have, is a `TypeError` of the caller."""
        made: list[Any] = []
        functions = {"note": made.append}
        for inputs in ({"x": [object()]}, {"not a name": 1}):
            call = partial(self.make().run, "note(1)", inputs, functions)
            raised(call, TypeError, f"the input {inputs!r}")
        must(made == [], "the code ran before its inputs were refused")

    def test_equal_code_gives_equal_results(self) -> None:
        """A run does not depend on the clock, on chance or on hash seeds: a resumed training finds what it found."""
        code = "import random\nprint({'b', 'a', 'ccc', 'dd'}, random.random(), hash('x'))"
        found = {self.make().run(code).stdout for _ in range(3)}
        must(len(found) == 1, f"three runs of the same code print {sorted(found)!r}")

    # ---- errors

    def test_an_error_has_its_kind_and_its_line(self) -> None:
        """What goes wrong in the code is the `error` of what is returned, with its kind, message and line."""
        error = self.make().run("print('a')\nx = 1\nx / 0").error
        must(error is not None, "1 / 0 gives no error")
        found = error and (error.kind, error.line, error.source, error.limit)
        expected = ("ZeroDivisionError", 3, "x / 0", "")
        must(
            found == expected, f"the kind, line, source and limit of 1 / 0 are {found!r}, and {expected!r} is expected"
        )

    def test_code_that_is_none_is_an_error_too(self) -> None:
        """Text that is no code raises nothing at the caller."""
        error = self.make().run("x = (").error
        must(error is not None and error.kind == "SyntaxError", f"'x = (' gives {error!r}")

    # ---- sessions

    def test_inputs_are_bound_by_code_that_is_none(self) -> None:
        """The inputs of a run whose code does not parse, or is too long, are variables of the next run."""
        for code in ("def (", "#" * 1_000_000):
            with self.make().session() as session:
                must(session.run(code, {"x": [1, "a"]}).error is not None, f"the code {code[:5]!r}... ran")
                found = session.run("x")
                must(found.value == [1, "a"], f"behind code that did not run, an input is {found.value!r}")
                session.run("x = 3", {"x": 2})
                session.run(code, {"x": 4})
                found = session.run("x")
                must(found.value == 4, f"behind code that did not run, a new input is {found.value!r}")

    def test_half_characters_do_no_harm(self) -> None:
        """A text that holds half of a character passes, as it is or with a sign in the place of the half."""
        with self.make().session() as session:
            for half, sign in (("a\ud800b", "a\ufffdb"), (["\udfff"], ["\ufffd"]), ({"\ud83d": 1}, {"\ufffd": 1})):
                found = session.run("f(x)", {"x": half}, {"f": lambda value: value})
                must(found.error is None, f"a text with half of a character is an error: {found.error!r}")
                must(found.value in (half, sign), f"{half!r} is {found.value!r} there")
            must(session.run("x = '\ud800'\n1").value in (1, None), "code with half of a character breaks the session")

    def test_what_is_granted_is_called_whatever_was_assigned_before(self) -> None:
        """A variable of an earlier run does not hide a function that is granted to the next one."""
        with self.make().session() as session:
            for code in ("f = f(1)", "def f(x): return 0", "for f in [1, 2]: pass"):
                session.run(code, functions={"f": lambda x: x + 1})
                found = session.run("f(1)", functions={"f": lambda x: x + 5})
                must(found.value == 6, f"behind {code!r} the granted function gives {found!r}")

    def test_no_function_has_the_name_of_one_of_python(self) -> None:
        """A function called `print` is refused, as the code might call Python's."""
        raised(
            lambda: self.make().run("print(1)", functions={"print": print}),
            TypeError,
            "a granted function with the name of one of Python's",
        )

    def test_a_session_keeps_its_variables_and_functions(self) -> None:
        """Runs of a session share variables; another session has none of them."""
        interpreter = self.make()
        with interpreter.session() as session:
            session.run("x = y * 2\ndef f(n): return n + x", {"y": 4})
            found = session.run("f(1)")
            must(found.value == 9, f"the second run of a session gives {found!r}")
        with interpreter.session() as session:
            found = session.run("x")
            must(found.error is not None, f"a new session knows a variable of another one: {found!r}")

    def test_an_error_leaves_the_variables(self) -> None:
        """After an exception of the code its variables are there."""
        with self.make().session() as session:
            for inputs in ({}, {"x": 1}):
                must(not session.run("x = 2\n1 / 0", inputs).lost, "after an exception the variables are lost")
                found = session.run("x")
                must(found.value == 2, f"after an exception a variable is {found!r}")

    def test_a_closed_session_runs_nothing(self) -> None:
        """`close` may be called twice; then a run is a `RuntimeError`."""
        session = self.make().session()
        session.run("1")
        session.close()
        session.close()
        raised(lambda: session.run("1"), RuntimeError, "a run in a closed session")

    def test_sessions_side_by_side_know_nothing_of_one_another(self) -> None:
        """Several sessions of one interpreter run at a time."""
        interpreter = self.make()

        async def one(number: int) -> Any:
            with interpreter.session() as session:
                await session.arun(f"x = {number}")
                await session.arun("f()", functions={"f": pause})
                return (await session.arun("x")).value

        async def pause() -> None:
            await asyncio.sleep(0.001)

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*[one(number) for number in range(4)])

        found = asyncio.run(all_of_them())
        must(found == [0, 1, 2, 3], f"four sessions side by side find {found!r}")

    # ---- granted functions

    def test_plain_and_async_functions_and_modules_are_called_alike(self) -> None:
        """Granted functions may be plain, `async` or modules; for the code all of them are plain."""
        functions = {"a": lambda number: number + 1, "b": _tenfold, "c": _Doubler()}
        code = "[a(1), b(number=2), c(3)] + [a(n) for n in range(2)]"
        for found in (
            self.make().run(code, functions=functions),
            asyncio.run(self.make().arun(code, functions=functions)),
        ):
            must(found.value == [2, 20, 6, 1, 2], f"it returns {found!r}")
            must(found.calls == 5, f"it made five calls, and says {found.calls}")

    def test_what_a_function_raises_is_raised_in_the_code(self) -> None:
        """An exception of a granted function is one of the code, which may catch it."""

        def fail() -> None:
            raise KeyError("no such thing")

        found = self.make().run("try:\n  f()\nexcept KeyError as error:\n  print('caught')\nf()", None, {"f": fail})
        must(found.stdout == "caught\n", f"the code did not catch it: {found!r}")
        must(found.error is not None and found.error.kind == "KeyError", f"uncaught it is {found.error!r}")

    def test_a_halt_ends_the_run_whatever_the_code_catches(self) -> None:
        """A function that returns a `Halt` ends the run there."""
        made: list[Any] = []
        code = "try:\n  stop(3)\nexcept BaseException:\n  note('caught')\nfinally:\n  note('after')"
        found = self.make().run(code, functions={"stop": Halt, "note": made.append})
        must(found.halt == Halt(3), f"its halt is {found.halt!r}")
        must(made == [], f"after the halt the code called note({made!r})")

    def test_only_what_is_granted_is_called(self) -> None:
        """A function is granted for one run."""
        with self.make().session() as session:
            must(session.run("f('ab')", functions={"f": len}).value == 2, "a granted function is not called")
            found = session.run("f('ab')")
            must(found.error is not None, f"a function of an earlier run is called: {found!r}")

    def test_what_is_no_failure_is_raised_here(self) -> None:
        """A Ctrl-C in a granted function ends the caller, and not the code alone."""

        def stop() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.make().run("try:\n  f()\nexcept BaseException:\n  pass", functions={"f": stop})

    # ---- limits

    def test_code_without_end_is_ended_and_the_next_run_begins_anew(self) -> None:
        """Code that computes for longer than `seconds` is ended; the variables are gone, and the session goes on."""

        def check(seconds: float) -> None:
            with self.make(seconds=seconds).session() as session:
                session.run("x = 1")
                found = session.run("while True: pass")
                must(found.error is not None and found.error.limit == "seconds", f"an endless loop gives {found!r}")
                must(found.lost, "after an endless loop `lost` is False")
                must(session.run("x").error is not None, "after an endless loop a variable is still there")
                must(session.run("x", {"x": 5}).value == 5, "after an endless loop the session runs nothing more")

        _given_time(check)

    def test_the_time_of_a_granted_function_does_not_count(self) -> None:
        """`seconds` are those of the code: a granted function may wait for a language model."""

        def check(seconds: float) -> None:
            done = threading.Event()
            threading.Timer(2 * seconds, done.set).start()
            found = self.make(seconds=seconds).run("f()\n1", functions={"f": done.wait})
            must(found.value == 1, f"a function that takes longer than `seconds` gives {found!r}")

        _given_time(check)

    def test_output_is_cut_at_its_limit(self) -> None:
        """More output than `output` ends the run, and what is kept is as long as that."""
        found = self.make(output=10).run("for i in range(100): print('abcdef')")
        must(found.stdout == "abcdef\nabc", f"of 10 characters it keeps {found.stdout!r}")
        must(found.error is not None and found.error.limit == "output", f"its error is {found.error!r}")

    def test_calls_are_counted_by_run(self) -> None:
        """More calls of granted functions than `calls` end a run; the next run has as many again."""
        with self.make(calls=3).session() as session:
            for _ in range(2):
                found = session.run("for i in range(3): f()", functions={"f": int})
                must(found.error is None, f"three calls of three give {found.error!r}")
            made: list[Any] = []
            found = session.run("for i in range(4): f(i)", functions={"f": made.append})
            must(found.error is not None and found.error.limit == "calls", f"a fourth call of three gives {found!r}")
            must(made == [0, 1, 2], f"of four calls, three of which are allowed, {made!r} were made")

    # ---- what it is

    def test_it_is_a_value(self) -> None:
        """An interpreter is copied and pickled with the program that has it, and describes itself to a writer."""
        one = self.make(seconds=2)
        must(copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one, "a copy differs from the interpreter")
        must(one != self.make(seconds=3), "interpreters with other limits are equal")
        must(isinstance(one, Interpreter), "it is no sandbox.Interpreter: `session` or `about` is missing")
        with one.session() as session:
            must(isinstance(session, CodeSession), "its sessions are no sandbox.CodeSession")
        must(bool(one.about), "`about` is empty: it tells a model what its code may use")


async def _tenfold(number: int) -> int:
    await asyncio.sleep(0)
    return number * 10


class _Doubler(nn.Module):
    async def forward(self, number: int) -> int:
        await asyncio.sleep(0)
        return number * 2


def _given_time(check: Callable[[float], None]) -> None:
    """Check with a limit of .1 s; with ten and a hundred times as much where this machine is too busy for that."""
    for seconds in (0.1, 1.0):
        try:
            check(seconds)
        except AssertionError:
            continue
        return
    check(10.0)
