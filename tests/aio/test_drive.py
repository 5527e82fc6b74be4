import asyncio
import signal
import sys
import threading
import time

import pytest

from promptgrad import aio
from promptgrad.errors import AsyncUsageError


async def identity(value):
    return value


def interrupt_when(event):
    """Send Ctrl-C to the main thread once the event is set and the main thread is blocked."""
    main = threading.main_thread().ident

    def press():
        event.wait(60)
        while sys._current_frames()[main].f_code.co_name != "block":
            time.sleep(0.001)
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


def test_it_returns_and_raises_what_the_coroutine_does():
    assert aio.drive(identity(3)) == 3

    async def fail():
        raise LookupError("no")

    with pytest.raises(LookupError):
        aio.drive(fail())


def test_it_runs_in_this_thread_and_in_this_context():
    async def where():
        return threading.get_ident(), aio.is_driven()

    assert aio.drive(where()) == (threading.get_ident(), True)
    assert not aio.is_driven()


def test_it_needs_no_asyncio():
    code = (
        "import sys\nfrom promptgrad import aio\n"
        "async def f(): return 1\n"
        "assert aio.drive(f()) == 1\n"
        "assert 'asyncio' not in sys.modules, 'asyncio was imported'\n"
    )
    import subprocess

    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


def test_it_works_in_a_thread_that_has_a_running_loop():
    async def cell():
        assert not aio.is_driven()
        value = aio.drive(aio.on_transport(identity, 5))
        assert not aio.is_driven()
        return value

    assert asyncio.run(cell()) == 5


def test_drives_nest():
    async def outer():
        return aio.drive(identity(aio.drive(aio.on_transport(identity, 2)))), aio.is_driven()

    assert aio.drive(outer()) == (2, True)


def test_a_loop_started_by_driven_code_is_not_mistaken_for_driven():
    async def inner():
        return await aio.on_transport(identity, 1), aio.is_driven()

    async def outer():
        return asyncio.run(inner())

    assert aio.drive(outer()) == (1, False)


def test_a_bare_future_is_refused_and_names_run():
    async def awaits_a_future(loop):
        await loop.create_future()

    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(AsyncUsageError, match=r"run it with `promptgrad\.aio\.run"):
            aio.drive(awaits_a_future(loop))
    finally:
        loop.close()


def test_ctrl_c_during_a_wait_is_raised_inside_and_cleanup_may_wait_again():
    waiting = threading.Event()
    seen = []

    async def work():
        try:
            waiting.set()
            await aio.Signal()
        except KeyboardInterrupt:
            seen.append(await aio.on_transport(identity, "cleaned up"))
            raise

    thread = interrupt_when(waiting)
    with pytest.raises(KeyboardInterrupt):
        aio.drive(work())
    thread.join()
    assert seen == ["cleaned up"]
    assert not aio.is_driven()


def test_blocking_on_our_own_loops_is_refused_and_names_acall():
    async def on_loop():
        return aio.drive(aio.on_transport(identity, 1))

    with pytest.raises(AsyncUsageError, match=r"await module\.acall"):
        aio.run(on_loop())


def test_driving_on_our_own_loop_is_fine_while_nothing_waits():
    async def on_loop():
        return aio.drive(identity(1))

    assert aio.run(on_loop()) == 1
