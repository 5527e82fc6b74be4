"""What interpreters do beside the promises of `testing.interpreters`: values, errors, limits, sessions."""

import asyncio
import copy
import pickle
import threading

import pytest

from promptgrad import nn, sandbox
from promptgrad.autograd import Text
from promptgrad.errors import AsyncUsageError
from tests.waiting import given_time


class TestRuns:
    def test_texts_of_a_graph_are_plain_texts_there(self, interpreter):
        assert interpreter.run("x + '!'", {"x": Text("hi")}).value == "hi!"
        assert interpreter.run("f()", functions={"f": lambda: Text("hi")}).value == "hi"

    def test_what_is_no_plain_data_is_refused_before_the_code_runs(self, interpreter):
        with pytest.raises(TypeError, match="the input 'x' holds object"):
            interpreter.run("1", {"x": [object()]})
        own = []
        own.append(own)
        with pytest.raises(ValueError, match="holds itself"):
            interpreter.run("1", {"x": own})
        with pytest.raises(TypeError, match="names of variables"):
            interpreter.run("1", {"not a name": 1})
        with pytest.raises(TypeError, match="names of variables"):
            interpreter.run("1", functions={"class": print})

    def test_what_is_strange_comes_back_as_a_text(self, interpreter):
        assert isinstance(interpreter.run("lambda: 1").value, str)
        assert interpreter.run("import datetime\ndatetime.date(2020, 1, 2)").value == "2020-01-02"
        assert interpreter.run("class A: pass\na = A()\na.x = 3\na").value in ({"x": 3}, "A()")


class TestSessions:
    def test_an_error_leaves_the_variables_and_an_overrun_does_not(self, make):
        def check(seconds):
            with make(seconds=seconds).session() as session:
                session.run("x = 1")
                assert not session.run("x = 2\n1 / 0").lost
                assert session.run("x").value == 2
                found = session.run("while True: pass")
                assert found.lost
                assert found.error.limit == "seconds"
                assert "all variables of earlier runs are gone" in found.shown()
                assert session.run("x").error.kind == "NameError"
                assert session.run("x", {"x": 5}).value == 5

        given_time(check, 0.1)

    def test_a_session_runs_one_thing_at_a_time(self, interpreter):
        with interpreter.session() as session:
            found = session.run("f()", functions={"f": Reentrant(session)})
            assert found.error.message == "the session runs other code already"
            assert session.run("1").value == 1

    def test_a_cancelled_run_ends_its_session(self, make):
        ran = threading.Event()

        async def cancel():
            session = make(seconds=0.2).session()
            task = asyncio.create_task(session.arun("f()\nwhile True: pass", functions={"f": ran.set}))
            while not ran.is_set():
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(RuntimeError, match="closed"):
                await session.arun("1")

        asyncio.run(cancel())

    def test_interpreters_are_values(self, make):
        one = make(seconds=2)
        assert copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one != make(seconds=3)
        assert hash(copy.deepcopy(one)) == hash(one)
        assert "seconds=2" in repr(one)
        assert isinstance(one, sandbox.Interpreter)
        assert isinstance(one.session(), sandbox.CodeSession)
        assert one.about


class Reentrant:
    """A module, as far as a session knows, that uses the session that calls it."""

    def __init__(self, session):
        self.session = session

    async def acall(self):
        return (await self.session.arun("1")).value


class Doubler(nn.Module):
    async def forward(self, number):
        await asyncio.sleep(0)
        return number * 2


class TestFunctions:
    def test_plain_and_async_functions_and_modules_are_called_alike(self, interpreter):
        async def tenfold(number):
            await asyncio.sleep(0)
            return number * 10

        functions = {"a": lambda number: number + 1, "b": tenfold, "c": Doubler()}
        code = "[a(1), b(number=2), c(3)] + [a(n) for n in range(2)]"
        assert interpreter.run(code, functions=functions) == sandbox.Execution(value=[2, 20, 6, 1, 2], calls=5)
        assert asyncio.run(interpreter.arun(code, functions=functions)).value == [2, 20, 6, 1, 2]

    def test_what_a_function_raises_is_raised_in_the_code(self, interpreter):
        class Odd(Exception):
            pass

        def fail(kind):
            raise {"key": KeyError, "odd": Odd}[kind]("no such thing")

        caught = "try:\n  fail('key')\nexcept KeyError as error:\n  print('caught', error)\nfail('odd')"
        found = interpreter.run(caught, functions={"fail": fail})
        assert found.stdout.startswith("caught")
        assert found.error.kind == "RuntimeError"
        assert found.error.message == "Odd: no such thing"
        assert (found.error.line, found.error.source) == (5, "fail('odd')")

    def test_a_halt_ends_the_run_whatever_the_code_catches(self, interpreter):
        made = []
        code = "print('before')\ntry:\n  stop(3)\nexcept BaseException:\n  note('caught')\nfinally:\n  note('after')"
        found = interpreter.run(code, functions={"stop": sandbox.Halt, "note": made.append})
        assert found == sandbox.Execution("before\n", halt=sandbox.Halt(3), lost=True, calls=1)
        assert made == []

    def test_only_what_is_granted_is_called(self, interpreter):
        found = interpreter.run("g(1)", functions={"f": len})
        assert (found.error.kind, found.calls) == ("NameError", 0 if found.calls == 0 else 1)
        with interpreter.session() as session:
            assert session.run("f('ab')", functions={"f": len}).value == 2
            assert session.run("f('ab')").error.kind == "NameError"

    def test_a_result_that_is_no_plain_data_is_an_error_of_the_call(self, interpreter):
        assert "plain data" in interpreter.run("f()", functions={"f": object}).error.message

    def test_a_blocking_run_on_a_loop_of_ours_is_refused(self, interpreter):
        class Blocking(nn.Module):
            async def forward(self):
                await asyncio.sleep(0)
                return interpreter.run("1")

        with pytest.raises(AsyncUsageError):
            Blocking()()


class TestErrors:
    @pytest.mark.parametrize(
        ("code", "kind", "line"),
        [
            ("x = 1\nx / 0", "ZeroDivisionError", 2),
            ("def f(n):\n  return {}[n]\n\nf(1)", "KeyError", 2),
            ("x = (", "SyntaxError", 1),
            ("nothing", "NameError", 1),
            ("raise ValueError", "ValueError", 1),
            ("import nothing_like_it", "ModuleNotFoundError", 1),
        ],
    )
    def test_an_error_has_its_kind_and_its_line(self, interpreter, code, kind, line):
        error = interpreter.run(code).error
        assert (error.kind, error.line, error.limit) == (kind, line, "")
        assert error.source == code.splitlines()[line - 1].strip()
        assert str(error).startswith(kind)
        assert f"line {line}: {error.source}" in str(error)

    def test_the_line_is_one_of_the_code_that_ran(self, interpreter):
        with interpreter.session() as session:
            session.run("def f():\n\n\n  return 1 / 0")
            error = session.run("\nf()").error
            assert (error.line, error.source) == (2, "f()")

    def test_a_long_message_is_cut(self, interpreter):
        assert len(str(interpreter.run("raise ValueError('x' * 10**5)").error)) < 3000

    def test_output_before_an_error_is_kept(self, interpreter):
        found = interpreter.run("print('a')\n1 / 0")
        assert found.stdout == "a\n"
        assert found.shown() == "a\nZeroDivisionError: division by zero\n  line 2: 1 / 0"

    def test_what_is_shown_is_cut_so_that_all_parts_have_room(self):
        found = sandbox.Execution("o" * 50, "v" * 50, sandbox.CodeFault("E", "m" * 50))
        shown = found.shown(20)
        assert len(shown) < 160
        assert all(part in shown for part in ("ooooo", "'vvvv", "E: m", "characters more"))
        assert sandbox.Execution().shown() == "(no output)"


class TestLimits:
    def test_a_limit_is_positive(self):
        for name in ("seconds", "memory", "output", "calls", "depth", "wall"):
            for value in (0, -1, True, "3", float("nan")):
                with pytest.raises(ValueError, match=f"the limit {name} is a positive number"):
                    sandbox.Limits(**{name: value})
        with pytest.raises(ValueError, match="the limit wall is at least that of seconds, 5, not 4"):
            sandbox.Limits(wall=4)

    def test_output_is_cut_at_its_limit_to_the_character(self, make):
        found = make(output=10).run("for i in range(100): print('abcdef')")
        assert found.stdout == "abcdef\nabc"
        assert found.error.limit == "output"
        assert make(output=7).run("print('abcdef')").error is None


def test_a_program_ends_though_the_processes_of_its_code_do_not():
    """Seen once: at exit the end of a process was not noticed, and the program waited for it for ever."""
    from promptgrad.sandbox._monty import _Processes

    released, asked = threading.Event(), threading.Event()

    class Stuck:
        def __exit__(self, *error):
            asked.set()
            released.wait(60)

    processes = _Processes()
    processes._pool = Stuck()
    processes.stop(patience=0.01)
    assert asked.wait(60)
    processes.stop()  # there is nothing left to end
    released.set()
