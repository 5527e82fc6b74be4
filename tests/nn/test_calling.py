"""A module is called in plain code, threads, notebooks, async tests and web handlers, with either kind of forward."""

import asyncio
import functools
import threading

import pytest

import promptgrad as pg
from promptgrad import aio, nn
from promptgrad.autograd import current_tape
from promptgrad.errors import AsyncUsageError


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Predict("question -> fact")
        self.second = nn.Predict("question, fact -> answer")

    def forward(self, question):
        return self.second(question=question, fact=self.first(question=question).fact).answer


class Async(Plain):
    async def forward(self, question):
        await asyncio.sleep(0)  # a bare asyncio wait: needs a loop
        fact = (await self.first.acall(question=question)).fact
        return (await self.second.acall(question=question, fact=fact)).answer


class AsyncAroundPlain(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Plain()

    async def forward(self, question):
        return await self.inner.acall(question)


class PlainAroundAsync(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Async()

    def forward(self, question):
        return self.inner(question)


class Gathers(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleList([Plain(), Async()])

    async def forward(self, question):
        return "|".join(await asyncio.gather(*[inner.acall(question) for inner in self.inner]))


def chain():
    return nn.Sequential(PlainAroundAsync(), AsyncAroundPlain())


PROGRAMS = [Plain, Async, AsyncAroundPlain, PlainAroundAsync, chain, Gathers]


def respond(messages):
    text = messages[-1]["content"]
    return "[[ ## answer ## ]]\nyes" if "## fact ## ]]\n" in text else "[[ ## fact ## ]]\nit is so"


@pytest.fixture
def model(loopback):
    """A model on the wire: every call really waits."""
    return loopback(respond)[1]


def expected(program):
    return "yes|yes" if isinstance(program, Gathers) else "yes"


@pytest.mark.parametrize("make", PROGRAMS)
def test_from_plain_code_and_threads(model, make):
    program = make().to(model)
    assert program("really?") == expected(program)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(program("really?"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [expected(program)] * 4


@pytest.mark.parametrize("make", PROGRAMS)
def test_from_a_running_loop_as_in_a_notebook(model, make):
    program = make().to(model)

    async def cell():
        return program("really?"), await program.acall("really?"), program.map(["a", "b"])

    assert asyncio.run(cell()) == (expected(program), expected(program), [expected(program)] * 2)


@pytest.mark.asyncio
@pytest.mark.parametrize("make", PROGRAMS)
async def test_under_pytest_asyncio(model, make):
    program = make().to(model)
    assert await program.acall("really?") == expected(program)
    assert program("really?") == expected(program)
    assert await program.amap(["a", "b"]) == [expected(program)] * 2


@pytest.mark.asyncio
@pytest.mark.parametrize("make", PROGRAMS)
async def test_many_handlers_of_a_web_server_at_once(model, make):
    program = make().to(model)

    async def handler(question):
        return await program.acall(question)

    assert await asyncio.gather(*[handler(str(i)) for i in range(8)]) == [expected(program)] * 8


@pytest.mark.parametrize("make", PROGRAMS)
def test_from_a_coroutine_on_the_program_loop(model, make):
    program = make().to(model)
    assert aio.run(program.acall("really?")) == expected(program)


@pytest.mark.parametrize("make", [Plain, Async])
def test_a_blocking_call_on_the_program_loop_names_acall(model, make):
    class Wrong(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = make()

        async def forward(self, question):
            return self.inner(question)

    with pytest.raises(AsyncUsageError, match=r"Write `await module\.acall\(\.\.\.\)`"):
        Wrong().to(model)("really?")


def test_an_async_forward_behind_a_decorator(model):
    def logged(forward):
        @functools.wraps(forward)
        def wrapper(*args, **kwargs):
            return forward(*args, **kwargs)

        return wrapper

    class Wrapped(Async):
        forward = logged(Async.forward)

    program = Wrapped().to(model)
    assert program("really?") == "yes"
    assert aio.run(program.acall("really?")) == "yes"
    assert program.map(["a"]) == ["yes"]


def test_a_forward_of_ones_own_in_a_subclass_of_a_built_in_module(model):
    class Polite(nn.Predict):
        async def forward(self, question):
            await asyncio.sleep(0)
            return (await super().forward(question=question + ", please")).fact

    program = Polite("question -> fact").to(model)
    assert program("really?") == "it is so"
    assert program.map(["a"]) == ["it is so"]


@pytest.mark.parametrize("make", PROGRAMS)
def test_calls_within_a_forward_share_one_tape(model, make):
    program = make().to(model)
    tape = program.map(["really?"]).rows[0].tape
    modules = [m for m in program.modules() if isinstance(m, nn.Predict)]
    assert sorted(node.path for node in tape.nodes) == sorted(
        path for path, module in program.named_modules() if module in modules
    )
    assert all(node.index == 0 for node in tape.nodes)
    assert current_tape() is None


def test_every_top_level_call_has_a_tape_of_its_own(model):
    program = Plain().to(model)
    first, second = program("a"), program("b")
    assert first.grad_fn.tape is not second.grad_fn.tape
    assert first.grad_fn.tape.inputs == {"question": "a"}
    assert [node.path for node in first.grad_fn.tape.nodes] == ["first", "second"]
    assert first.grad_fn.tape.finished


def test_no_grad_inside_a_forward_records_nothing_there(model):
    class Partly(Plain):
        def forward(self, question):
            with pg.no_grad():
                fact = self.first(question=question).fact
            return self.second(question=question, fact=fact).answer

    answer = Partly().to(model)("a")
    assert [node.path for node in answer.grad_fn.tape.nodes] == ["second"]


def test_a_module_outside_the_program_is_called_by_its_class(model):
    outside = nn.Predict("question -> fact").to(model)

    class Program(nn.Module):
        def __init__(self):
            super().__init__()
            self.second = nn.Predict("question, fact -> answer")

        def forward(self, question):
            return self.second(question=question, fact=outside(question=question).fact).answer

    answer = Program().to(model)("a")
    assert [node.path for node in answer.grad_fn.tape.nodes] == ["(Predict)", "second"]


def test_modules_made_inside_a_forward_are_found(model):
    class Lazy(nn.Module):
        def forward(self, question):
            if not hasattr(self, "step"):
                self.step = nn.Predict("question -> fact").to(model)
            return self.step(question=question).fact

    program = Lazy()
    program("a")
    assert program("b").grad_fn.path == "step"


def test_a_failed_forward_leaves_no_tape_behind(model):
    class Broken(Plain):
        def forward(self, question):
            self.first(question=question)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        Broken().to(model)("a")
    assert current_tape() is None
    row = Broken().to(model).map(["a"]).rows[0]
    assert row.tape.finished
    assert row.tape.error is row.error
