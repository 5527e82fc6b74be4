import asyncio
import subprocess
import sys
import threading
from contextvars import Context, ContextVar, copy_context

import pytest

from promptgrad import aio
from promptgrad.aio._loops import transport
from promptgrad.aio.sequence import begin
from promptgrad.errors import AsyncUsageError
from tests.aio.test_drive import identity, interrupt_when

var = ContextVar("var", default="unset")


async def read_var():
    return var.get()


async def thread_name():
    return threading.current_thread().name


def test_run_uses_the_program_loop_and_the_transport_loop_is_another():
    async def main():
        assert aio.is_program_loop()
        return await thread_name(), await aio.on_program(thread_name), await aio.on_transport(thread_name)

    assert aio.run(main()) == ("promptgrad-program", "promptgrad-program", "promptgrad-transport")
    assert not aio.is_program_loop()


def test_the_context_travels_but_does_not_come_back():
    async def change():
        var.set("changed there")
        return var.get()

    token = var.set("mine")
    try:
        assert aio.run(read_var()) == "mine"
        assert aio.drive(aio.on_transport(read_var)) != "mine"  # I/O keeps nothing of the caller
        assert aio.drive(aio.on_program(change)) == "changed there"
        assert aio.run(change()) == "changed there"
        assert var.get() == "mine"
    finally:
        var.reset(token)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="create_task(context=...) came with Python 3.11")
@pytest.mark.parametrize("runner", [aio.run, asyncio.run])
def test_a_task_runs_in_the_context_that_it_is_given(runner):
    async def change():
        seen = var.get()
        var.set("child")
        return seen

    async def parent(own):
        begin()  # as every recorded forward does
        var.set("parent")
        loop = asyncio.get_running_loop()
        empty, copied = Context(), copy_context()
        found = [await loop.create_task(change(), context=context) for context in (empty, copied)]
        assert (empty[var], copied[var], var.get()) == ("child", "child", "parent")
        return [*found, await loop.create_task(change(), context=own), var.get()]

    async def main():
        own = copy_context()
        return await asyncio.get_running_loop().create_task(parent(own), context=own)

    assert runner(main()) == ["unset", "parent", "parent", "child"]


@pytest.mark.parametrize("mode", [aio.drive, aio.run, asyncio.run])
def test_what_a_users_function_returned_is_awaited_in_every_mode(mode):
    async def answer():
        await asyncio.sleep(0)  # needs a loop
        return threading.current_thread().name

    async def main():
        return await aio.awaited(answer())

    name = threading.current_thread().name if mode is asyncio.run else "promptgrad-program"
    assert mode(main()) == name


def test_run_from_a_foreign_running_loop_blocks_and_works():
    async def cell():
        return aio.run(identity("ok")), not aio.is_program_loop()

    assert asyncio.run(cell()) == ("ok", True)


def test_awaiting_from_a_foreign_loop():
    async def handler():
        return await aio.on_transport(identity, 1), await aio.on_program(thread_name)

    assert asyncio.run(handler()) == (1, "promptgrad-program")


@pytest.mark.parametrize("there", [aio.on_program, aio.on_transport])
def test_run_on_our_own_loops_is_refused_and_names_acall(there):
    async def blocked():
        return aio.run(identity(1))

    with pytest.raises(AsyncUsageError, match=r"await module\.acall"):
        aio.drive(there(blocked))


@pytest.mark.parametrize("error", [LookupError("x"), SystemExit(3), KeyboardInterrupt()])
def test_errors_come_back_and_the_loop_lives_on(error):
    async def fail():
        raise error

    with pytest.raises(type(error)):
        aio.run(fail())
    with pytest.raises(type(error)):
        aio.run(aio.gather([fail, fail]))
    assert aio.run(identity(1)) == 1


@pytest.mark.parametrize("there", [aio.on_program, aio.on_transport])
def test_cancelling_the_waiter_cancels_the_function_and_waits_for_its_cleanup(there):
    events = []

    async def work():
        events.append("started")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            events.append("cancelled")
            raise

    async def main():
        task = asyncio.ensure_future(there(work))
        while not events:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return list(events)

    assert asyncio.run(main()) == ["started", "cancelled"]


def test_ctrl_c_in_run_cancels_the_task_and_waits_for_its_cleanup():
    waiting, cleaned = threading.Event(), []

    async def work():
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(True)

    thread = interrupt_when(waiting)
    with pytest.raises(KeyboardInterrupt):
        aio.run(work())
    thread.join()
    assert cleaned == [True]
    assert aio.run(identity(1)) == 1


def test_many_threads_post_at_once():
    results = []

    def caller(number):
        results.extend(aio.drive(aio.on_transport(identity, (number, i))) for i in range(50))

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == [(number, i) for number in range(16) for i in range(50)]


def test_a_posted_callback_that_raises_does_not_hold_up_the_next_one(caplog):
    posted, ran = threading.Event(), threading.Event()

    def fail():
        raise LookupError("a fault of a callback")

    def both():
        transport.post(fail)
        transport.post(ran.set)
        posted.set()

    transport.post(both)
    assert posted.wait(60)
    assert ran.wait(60)
    assert "a fault of a callback" in caplog.text
    assert "transport loop" in caplog.text


FORK = """
import os, sys, warnings
warnings.simplefilter("ignore")
from promptgrad import aio

async def f():
    return os.getpid()

async def both():
    return await aio.on_transport(f), await aio.on_program(f), await aio.in_thread(os.getpid)

first = aio.run(both())
assert set(first) == {os.getpid()}
child = os.fork()
if child == 0:
    ok = set(aio.run(both())) == {os.getpid()} and set(aio.drive(both())) == {os.getpid()}
    os._exit(0 if ok else 1)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert set(aio.run(both())) == {os.getpid()}
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork on this system")
def test_a_forked_child_gets_loops_of_its_own():
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=600)


def test_the_interpreter_exits_quietly_while_something_still_runs():
    code = (
        "import asyncio, threading\nfrom promptgrad import aio\n"
        "async def forever(): await asyncio.Event().wait()\n"
        "async def f(): return 1\n"
        "def serve():\n"
        "    try: aio.run(forever())\n"
        "    except asyncio.CancelledError: pass\n"
        "threading.Thread(target=serve, daemon=True).start()\n"
        "assert aio.run(aio.on_transport(f)) == 1\n"
    )
    done = subprocess.run([sys.executable, "-X", "dev", "-c", code], check=True, timeout=600, capture_output=True)
    assert done.stderr == b""


def test_a_prepared_task_that_is_stopped_before_it_is_launched_never_runs():
    ran = []

    async def work():
        ran.append(True)

    async def driven():
        remote = aio.prepare(work)
        await remote.stop()
        remote.launch()
        with pytest.raises(asyncio.CancelledError):
            await remote

    aio.drive(driven())
    asyncio.run(driven())
    assert ran == []
