"""What takes too long over HTTP ends, by one timer for all calls of a loop."""

import asyncio
import sys

import pytest

from promptgrad import errors
from promptgrad.lm import HTTP
from promptgrad.lm._overtime import Overtime
from tests.lm.test_faults import raw  # noqa: F401 - a fixture
from tests.waiting import given_time


def timers(loop, monkeypatch):
    """The times for which timers of a loop are set."""
    found = []
    call_at = loop.call_at

    def noted(when, *args, **options):
        found.append(when)
        return call_at(when, *args, **options)

    monkeypatch.setattr(loop, "call_at", noted)
    return found


async def held(overtime, event):
    with overtime:
        await event.wait()


def test_it_ends_what_takes_too_long_and_what_began_later_goes_on_until_its_time_is_over():
    async def main():
        overtime, never, order = Overtime(0.01), asyncio.Event(), []

        async def one(number):
            try:
                await held(overtime, never)
            except asyncio.TimeoutError:
                order.append(number)

        first = asyncio.create_task(one(1))
        await asyncio.sleep(0)
        second = asyncio.create_task(one(2))
        await asyncio.gather(first, second)
        return order, first.cancelled(), overtime._until, overtime._over

    assert asyncio.run(main()) == ([1, 2], False, {}, {})


def test_many_blocks_set_one_timer(monkeypatch):
    async def main():
        found = timers(asyncio.get_running_loop(), monkeypatch)
        overtime, go = Overtime(600), asyncio.Event()
        tasks = [asyncio.create_task(held(overtime, go)) for _ in range(50)]
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(*tasks)
        for _ in range(50):
            await held(overtime, go)
        return len(found)

    assert asyncio.run(main()) == 1


def test_the_timer_waits_for_those_that_are_left():
    async def main():
        overtime, go, never = Overtime(0.02), asyncio.Event(), asyncio.Event()
        go.set()
        await held(overtime, go)  # sets the timer, and is over long before
        await asyncio.sleep(0.01)
        with pytest.raises(asyncio.TimeoutError):
            await held(overtime, never)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_task_that_somebody_cancels_stays_cancelled():
    async def main():
        overtime, never = Overtime(600), asyncio.Event()
        task = asyncio.create_task(held(overtime, never))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return overtime._until

    assert asyncio.run(main()) == {}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 does not count the cancellations of a task")
def test_its_own_cancellation_is_taken_back_and_no_other():
    async def main():
        overtime, never = Overtime(600), asyncio.Event()

        async def late():
            with pytest.raises(asyncio.TimeoutError):
                await held(overtime, never)
            return asyncio.current_task().cancelling()

        ends, both = asyncio.create_task(late()), asyncio.create_task(held(overtime, never))
        await asyncio.sleep(0)
        both.cancel()
        overtime._until = dict.fromkeys(overtime._until, 0.0)
        overtime._end()
        with pytest.raises(asyncio.CancelledError):
            await both
        return await ends

    assert asyncio.run(main()) == 0


def test_a_timer_keeps_nothing_of_the_context_in_which_it_was_set(monkeypatch):
    async def main():
        found = []
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "call_at", lambda when, call, context=None: found.append(context))
        with Overtime(600):
            pass
        return [len(context) for context in found]

    assert asyncio.run(main()) == [0]


def test_a_reply_that_trickles_ends_after_six_times_the_silence(raw):  # noqa: F811
    """No pause is a silence, and the whole would take ten times as long."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"

    def check(seconds):
        raw.pieces, raw.pause = [head, *[b" "] * 50], seconds / 5
        said = rf"within {6 * seconds:g} s, which is six times timeout="
        with pytest.raises(errors.LMTimeoutError, match=said) as caught:
            HTTP("m", raw.url, timeout=seconds)("q")
        assert not caught.value.transient

    given_time(check, 0.1)


def test_a_trickle_ends_where_the_caller_has_a_loop_and_its_task_goes_on(raw):  # noqa: F811
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"

    async def call(seconds):
        with pytest.raises(errors.LMTimeoutError, match="which is six times timeout="):
            await HTTP("m", raw.url, timeout=seconds).acall("q")
        await asyncio.sleep(0)
        return True

    def check(seconds):
        raw.pieces, raw.pause = [head, *[b" "] * 50], seconds / 5
        assert asyncio.run(call(seconds))

    given_time(check, 0.1)
