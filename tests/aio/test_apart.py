"""`aio.apart`: a coroutine in a context of its own."""

import asyncio
import contextvars
import gc
import weakref

import pytest

from promptgrad import aio
from tests.waiting import until

held: contextvars.ContextVar[object] = contextvars.ContextVar("held", default=None)


class Record:
    pass


async def with_a_timer(wait=None):
    timer = asyncio.get_running_loop().call_later(600, print)
    await asyncio.sleep(0)
    if wait is not None:
        await wait.wait()
    timer.cancel()
    return held.get()


@pytest.mark.parametrize("apart", [True, False])
def test_a_timer_that_was_cancelled_keeps_nothing_of_the_caller(apart):
    async def main():
        earlier = contextvars.Context().run(asyncio.get_running_loop().call_later, 300, print)

        async def call():
            record = Record()
            held.set(record)
            seen = await (aio.apart(with_a_timer()) if apart else with_a_timer())
            assert seen is (None if apart else record)
            return weakref.ref(record)

        found = await asyncio.create_task(call())
        await asyncio.sleep(0)
        gc.collect()
        assert not earlier.cancelled()
        return found() is None  # while the loop still has the other timer

    assert asyncio.run(main()) is apart


def test_it_is_the_same_task_and_returns_and_raises_what_the_function_does():
    async def inner(value, *, fails=False):
        await asyncio.sleep(0)
        if fails:
            raise ValueError(value)
        return asyncio.current_task(), value

    async def main():
        assert await aio.apart(inner(3)) == (asyncio.current_task(), 3)
        with pytest.raises(ValueError, match="x"):
            await aio.apart(inner("x", fails=True))

    asyncio.run(main())


def test_a_cancellation_reaches_the_function_which_may_wait_again():
    cleaned = []

    async def inner():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(held.get())

    async def main():
        held.set("mine")
        task = asyncio.create_task(wrapped())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert held.get() == "mine"

    async def wrapped():
        await aio.apart(inner())

    asyncio.run(main())
    assert cleaned == [None]


def test_a_timeout_of_asyncio_works_inside():
    async def inner():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.001)
        return "late"

    async def main():
        return await aio.apart(inner())

    assert asyncio.run(main()) == "late"


def test_requests_keep_no_record_of_the_program():
    from promptgrad import lm, nn
    from promptgrad.autograd import Tape
    from promptgrad.testing import Fields, LoopbackLM

    with LoopbackLM(Fields(answer="x"), record=False) as server:
        model = nn.Predict("question -> answer").to(lm.HTTP("m", base_url=server.url))
        model.map([{"question": str(number)} for number in range(20)], concurrency=4)

        def is_given_back():
            gc.collect()
            return not any(type(one) is Tape and one.program is model for one in gc.get_objects())

        until(is_given_back)  # the loop's thread is still letting go
