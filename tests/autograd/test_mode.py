import asyncio
import threading

import pytest

from promptgrad import aio
from promptgrad.autograd import (
    Loss,
    Tape,
    current_tape,
    enable_grad,
    inference_mode,
    is_grad_enabled,
    no_grad,
)
from tests.autograd.programs import Call, ScriptedCritic, row, texts


def test_they_nest_and_restore():
    assert is_grad_enabled()
    with no_grad():
        assert not is_grad_enabled()
        with enable_grad():
            assert is_grad_enabled()
            with no_grad():
                assert not is_grad_enabled()
            assert is_grad_enabled()
        assert not is_grad_enabled()
    assert is_grad_enabled()


def test_inference_mode_cannot_be_switched_off_inside():
    with inference_mode(), enable_grad():
        assert not is_grad_enabled()
    with inference_mode(), no_grad(), enable_grad():
        assert not is_grad_enabled()
    assert is_grad_enabled()


def test_an_exception_restores():
    with pytest.raises(LookupError), no_grad():
        raise LookupError
    assert is_grad_enabled()


def test_they_decorate_functions_and_coroutine_functions():
    @no_grad()
    def plain(a, *, b=2):
        return is_grad_enabled(), a, b

    @inference_mode()
    async def later():
        before = is_grad_enabled()
        await asyncio.sleep(0)
        return before, is_grad_enabled()

    assert plain(1, b=3) == (False, 1, 3)
    assert plain.__name__ == "plain"
    assert asyncio.run(later()) == (False, False)
    assert is_grad_enabled()


def test_a_decorated_function_may_call_itself():
    @no_grad()
    def countdown(n):
        assert not is_grad_enabled()
        return 0 if n == 0 else countdown(n - 1)

    assert countdown(5) == 0
    assert is_grad_enabled()


def test_a_generator_function_is_refused_since_it_would_leak():
    with pytest.raises(TypeError, match="`with` form"):

        @no_grad()
        def generate():
            yield 1


def test_the_mode_belongs_to_the_context():
    seen = {}

    async def other():
        return is_grad_enabled()

    with no_grad():
        thread = threading.Thread(target=lambda: seen.update(bare_thread=is_grad_enabled()))
        thread.start()
        thread.join()
        seen.update(run=aio.run(other()), worker=aio.run(aio.in_thread(is_grad_enabled)))
    assert seen == {"bare_thread": True, "run": False, "worker": False}


def test_nothing_is_recorded_in_a_tape_under_no_grad():
    tape = Tape()
    assert current_tape() is None
    with tape.active():
        assert current_tape() is tape
        with no_grad():
            assert current_tape() is None
        with inference_mode():
            assert current_tape() is None
        assert current_tape() is tape
    assert current_tape() is None


@pytest.mark.parametrize("how", [lambda text: text, lambda text: f"Given {text}, what?"], ids=["as it is", "f-string"])
def test_no_blame_passes_through_a_detached_text(how):
    a, b = Call("a", lambda: "the town hall stands beside the river"), Call("b", lambda x: "fine")
    for detached in (False, True):
        text = (lambda text: text.detach()) if detached else (lambda text: text)
        Loss([row(lambda text=text: b(x=how(text(a().out))).out, None)], ScriptedCritic()).backward()
    assert len(texts(a.instruction)) == 1
    assert len(texts(b.instruction)) == 2


def test_modes_of_tasks_and_of_executors_are_their_own():
    async def one(mode):
        with mode():
            await asyncio.sleep(0)
            return is_grad_enabled()

    async def both():
        return await asyncio.gather(one(no_grad), one(enable_grad), one(inference_mode)), is_grad_enabled()

    assert asyncio.run(both()) == ([False, True, False], True)
    with aio.Executor(1) as pool, no_grad():
        assert pool.submit(is_grad_enabled).result() is False
        assert pool.submit(enable_grad()(is_grad_enabled)).result() is True
        assert pool.submit(is_grad_enabled).result() is False
