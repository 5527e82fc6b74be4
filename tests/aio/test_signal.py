import asyncio
import os
import subprocess
import sys
import threading

import pytest

from promptgrad import aio
from promptgrad.errors import AsyncUsageError


async def wait(signal):
    return await signal


def test_the_first_result_counts():
    signal = aio.Signal()
    assert not signal.done
    signal.set(1)
    signal.set(2)
    signal.fail(ValueError())
    assert signal.done
    assert signal.result() == 1
    assert repr(signal) == "<Signal 1>"


def test_a_result_that_is_not_there_is_an_error():
    with pytest.raises(AsyncUsageError, match="await it"):
        aio.Signal().result()


def test_a_failure_is_raised_in_whoever_awaits():
    signal = aio.Signal()
    signal.fail(LookupError("gone"))
    with pytest.raises(LookupError, match="gone"):
        aio.drive(wait(signal))
    with pytest.raises(LookupError, match="gone"):
        aio.run(wait(signal))
    assert "gone" in repr(signal)


@pytest.mark.parametrize("mode", [aio.drive, aio.run, asyncio.run])
def test_it_wakes_a_waiter_of_every_mode_from_another_thread(mode):
    signal = aio.Signal()
    started = threading.Event()

    async def waiter():
        started.set()
        return await signal

    def giver():
        started.wait(60)
        signal.set("here")

    thread = threading.Thread(target=giver)
    thread.start()
    assert mode(waiter()) == "here"
    thread.join()


def test_one_result_wakes_waiters_on_different_loops_and_in_driven_code():
    signal = aio.Signal()
    waiting = threading.Barrier(4)
    results = []

    async def waiter():
        waiting.wait(60)
        return await signal

    threads = [
        threading.Thread(target=lambda mode=mode: results.append(mode(waiter())))
        for mode in (aio.drive, aio.run, asyncio.run)
    ]
    for thread in threads:
        thread.start()
    waiting.wait(60)
    signal.set(7)
    for thread in threads:
        thread.join(60)
    assert results == [7, 7, 7]


def test_a_cancelled_waiter_does_not_disturb_the_others():
    async def main():
        signal = aio.Signal()
        first = asyncio.create_task(wait(signal))
        second = asyncio.create_task(wait(signal))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        signal.set("ok")
        return await second

    assert asyncio.run(main()) == "ok"


def test_a_result_after_its_loop_was_closed_harms_nobody():
    signal = aio.Signal()

    async def main():
        task = asyncio.ensure_future(wait(signal))
        await asyncio.sleep(0)
        return task

    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(main())
    loop.close()
    signal.set(1)
    assert signal.result() == 1
    task._log_destroy_pending = False


def test_subscribing_after_the_fact_says_so():
    signal = aio.Signal()
    calls = []
    assert signal.subscribe(lambda: calls.append(1))
    signal.unsubscribe(print)  # unknown: ignored
    signal.set(None)
    assert calls == [1]
    assert not signal.subscribe(lambda: calls.append(2))
    assert calls == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_the_lock_of_all_signals_is_free_in_a_forked_child():
    script = """
import os, signal, threading
from promptgrad import aio
held, go = threading.Event(), threading.Event()

def hold():
    with aio.brief:
        held.set()
        go.wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(60)  # ends the child where it would wait for ever
    told = aio.Signal()
    told.set(3)
    os._exit(told.result())
go.set()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_who_holds_the_lock_of_all_signals_may_settle_one():
    with aio.brief:  # as the collector may, which comes at any step
        signal = aio.Signal()
        signal.set(1)
    assert signal.result() == 1
