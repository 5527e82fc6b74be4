import asyncio
import threading

import pytest

from promptgrad import aio
from promptgrad.errors import LMError
from promptgrad.lm import FunctionLM, Limit
from tests.waiting import turns


def test_it_holds_over_loops_and_threads():
    running, most, lock, full = 0, 0, threading.Lock(), threading.Event()

    async def busy(messages):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 3:
                full.set()
        await asyncio.to_thread(full.wait, 60)  # until three run side by side, in whichever threads
        await turns()
        with lock:
            running -= 1
        return "x"

    lm = Limit(FunctionLM(busy), 3)

    async def many():
        return await asyncio.gather(*[lm.acall("q") for _ in range(8)])

    threads = [threading.Thread(target=lm, args=("q",)) for _ in range(8)]
    threads.append(threading.Thread(target=lambda: asyncio.run(many())))
    threads.append(threading.Thread(target=lambda: aio.run(many())))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == 3
    assert running == 0


def test_a_failure_gives_the_place_back():
    def broken(messages):
        raise ZeroDivisionError

    lm = Limit(FunctionLM(broken), 1)
    for _ in range(3):
        with pytest.raises(LMError, match="raised ZeroDivisionError"):
            lm("q")


def test_at_least_one():
    with pytest.raises(ValueError, match="at least 1"):
        Limit(FunctionLM(str), 0)


def test_a_layer_wraps_an_lm():
    with pytest.raises(TypeError, match="wraps an LM"):
        Limit("openai/gpt-4o-mini", 3)


def test_a_layer_looks_like_what_it_wraps():
    inner = FunctionLM(str, name="f", adapter="json", temperature=0)
    lm = Limit(inner, 2)
    assert (lm.name, lm.adapter, lm.identity(), lm.transport) == ("f", "json", inner.identity(), inner)
    assert repr(lm) == "Limit(FunctionLM('f'), concurrency=2)"
