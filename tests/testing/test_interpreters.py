"""`InterpreterContract`: ours pass it, and it notices what is broken."""

import re

import pytest

from promptgrad import sandbox
from promptgrad.testing.interpreters import InterpreterContract
from tests.sandbox.conftest import CONFINED

pytest.importorskip("pydantic_monty")


class TestMonty(InterpreterContract):
    def make(self, **limits):
        return sandbox.Monty(sandbox.Limits(**limits))


@pytest.mark.skipif(not CONFINED, reason="a process cannot be confined here")
class TestSubprocess(InterpreterContract):
    def make(self, **limits):
        return sandbox.Subprocess(sandbox.Limits(**limits))


class Around(sandbox.Interpreter):
    """Sessions of `Monty`, each call of which goes through `through`."""

    about = "Python"

    def __init__(self, limits):
        self.limits = limits

    def __eq__(self, other):
        return type(self) is type(other) and self.limits == other.limits

    def __hash__(self):
        return hash(self.limits)

    def session(self):
        return AroundSession(self)

    async def through(self, inner, code, inputs, functions):
        return await inner.arun(code, inputs, functions)


class AroundSession(sandbox.CodeSession):
    def __init__(self, outer):
        self.outer, self.functions = outer, {}
        self.inner = sandbox.Monty(outer.limits).session()

    async def arun(self, code, inputs=None, functions=None):
        self.functions.update(functions or {})
        return await self.outer.through(self, code, inputs, functions)

    def close(self):
        self.inner.close()


class Whole(Around):
    async def through(self, session, code, inputs, functions):
        return await session.inner.arun(code, inputs, functions)


class Forgets(Around):
    async def through(self, session, code, inputs, functions):
        return await sandbox.Monty(self.limits).arun(code, inputs, functions)


class KeepsFunctions(Around):
    async def through(self, session, code, inputs, functions):
        return await session.inner.arun(code, inputs, session.functions)


class Raises(Around):
    async def through(self, session, code, inputs, functions):
        found = await session.inner.arun(code, inputs, functions)
        if found.error is not None:
            raise RuntimeError(found.error.message)
        return found


class Swallows(Around):
    async def through(self, session, code, inputs, functions):
        found = await session.inner.arun(code, inputs, functions)
        return sandbox.Execution(found.stdout, found.value)


class WithoutLimits(Whole):
    def __init__(self, limits):
        super().__init__(sandbox.Limits(seconds=limits.seconds))


class Strange(Whole):
    __hash__ = None

    def __eq__(self, other):
        return self is other


class Silent(Whole):
    about = ""


class TestAround(InterpreterContract):
    def make(self, **limits):
        return Whole(sandbox.Limits(**limits))


@pytest.mark.parametrize(
    ("kind", "promise", "said"),
    [
        (Forgets, "test_a_session_keeps_its_variables_and_functions", "the second run of a session gives"),
        (Forgets, "test_an_error_leaves_the_variables", "after an exception a variable is Execution"),
        (Forgets, "test_a_closed_session_runs_nothing", "RuntimeError is expected"),
        (KeepsFunctions, "test_only_what_is_granted_is_called", "a function of an earlier run is called"),
        (Raises, "test_an_error_has_its_kind_and_its_line", "division by zero"),
        (Swallows, "test_an_error_has_its_kind_and_its_line", "1 / 0 gives no error"),
        (Swallows, "test_code_that_is_none_is_an_error_too", "'x = (' gives None"),
        (Swallows, "test_a_halt_ends_the_run_whatever_the_code_catches", "its halt is None"),
        (Swallows, "test_plain_and_async_functions_and_modules_are_called_alike", "says 0"),
        (WithoutLimits, "test_output_is_cut_at_its_limit", "of 10 characters it keeps"),
        (WithoutLimits, "test_calls_are_counted_by_run", "a fourth call of three gives"),
        (Strange, "test_it_is_a_value", "a copy differs"),
        (Silent, "test_it_is_a_value", "`about` is empty"),
    ],
)
def test_a_broken_promise_is_noticed(kind, promise, said):
    suite = InterpreterContract()
    suite.make = lambda **limits: kind(sandbox.Limits(**limits))
    with pytest.raises((AssertionError, RuntimeError), match=re.escape(said)):
        getattr(suite, promise)()


def test_a_suite_without_an_interpreter_says_what_lacks():
    with pytest.raises(NotImplementedError, match=r"does not define make\(\)"):
        InterpreterContract().make()
