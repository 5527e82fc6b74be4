import asyncio
import threading
from contextvars import ContextVar

import pytest

from promptgrad import aio
from promptgrad.aio import _threads

var = ContextVar("var", default="unset")


def test_it_runs_elsewhere_in_a_copy_of_the_context():
    def work(a, *, b):
        seen = (threading.get_ident(), var.get(), a, b)
        var.set("changed")
        return seen

    async def main():
        var.set("mine")
        seen = await aio.in_thread(work, 1, b=2)
        return seen, var.get()

    (ident, value, a, b), after = asyncio.run(main())
    assert ident != threading.get_ident()
    assert (value, a, b, after) == ("mine", 1, 2, "mine")


def test_in_a_driven_coroutine_without_a_loop_it_is_called_in_place():
    assert aio.drive(aio.in_thread(threading.get_ident)) == threading.get_ident()


def test_in_a_driven_coroutine_on_a_running_loop_it_gets_a_thread_where_a_loop_can_be_started():
    async def one():
        return 1

    async def cell():
        return aio.drive(aio.in_thread(lambda: asyncio.run(one())))

    assert asyncio.run(cell()) == 1


def test_errors_come_back():
    def fail():
        raise LookupError("there")

    with pytest.raises(LookupError, match="there"):
        aio.run(aio.in_thread(fail))


def test_waiting_functions_may_need_one_another_in_any_number():
    """Forty functions, each of which can only end when all have begun: a bounded pool would hang."""
    barrier = threading.Barrier(40)
    assert aio.run(aio.gather([lambda: aio.in_thread(barrier.wait, 20)] * 40))
    nested = aio.run(aio.gather([lambda: aio.in_thread(aio.run, aio.in_thread(int, "7"))] * 20))
    assert nested == [7] * 20


def test_idle_threads_are_reused():
    async def main():
        return {await aio.in_thread(threading.get_ident) for _ in range(20)}

    assert len(aio.run(main())) == 1


def test_an_idle_thread_ends_after_a_while(monkeypatch):
    monkeypatch.setattr(_threads, "IDLE_SECONDS", 0.01)
    found = aio.run(aio.in_thread(threading.current_thread))
    found.join(60)
    assert not found.is_alive()
    assert aio.run(aio.in_thread(int, "1")) == 1


@pytest.mark.parametrize("blocked", [aio.drive, aio.run])
def test_cancelling_reaches_a_thread_that_waits_for_us(blocked):
    started, ended = threading.Event(), []

    async def wait_for_ever():
        started.set()
        await aio.Signal()

    def work():
        try:
            blocked(wait_for_ever())
        except asyncio.CancelledError:
            ended.append(aio.drive(aio.on_transport(_cleaned)))
            raise
        finally:
            over.set()

    async def _cleaned():
        return "cleaned up"

    over = threading.Event()

    async def main():
        task = asyncio.ensure_future(aio.in_thread(work))
        await asyncio.get_running_loop().run_in_executor(None, started.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert over.wait(60)
    assert ended == ["cleaned up"]


def test_cancelling_before_the_wait_is_delivered_at_the_wait():
    began, cancelled, result = threading.Event(), threading.Event(), []

    def work():
        began.set()
        cancelled.wait(60)
        try:
            aio.drive(_wait_for_ever())
        except asyncio.CancelledError:
            result.append("cancelled")
        over.set()

    async def _wait_for_ever():
        await aio.Signal()

    over = threading.Event()

    async def main():
        task = asyncio.ensure_future(aio.in_thread(work))
        await asyncio.get_running_loop().run_in_executor(None, began.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cancelled.set()

    asyncio.run(main())
    assert over.wait(60)
    assert result == ["cancelled"]
