import asyncio
import threading
from contextvars import copy_context

from promptgrad import aio
from promptgrad.lm import FunctionLM, Usage, track_usage


def test_it_counts_calls_below_in_threads_and_tasks_and_nested_blocks():
    lm = FunctionLM(lambda messages: "four letters")

    async def many():
        await asyncio.gather(*[lm.acall("q") for _ in range(5)])

    with track_usage() as outer:
        lm("q")
        with track_usage() as inner:
            aio.run(many())
            thread = threading.Thread(target=copy_context().run, args=(lm, "q"))
            thread.start()
            thread.join()
    lm("not counted")
    assert inner.calls == 6
    assert outer.calls == 7
    assert outer.total.calls == 7
    assert outer.tokens == outer.input_tokens + outer.output_tokens > 0
    assert outer.usd == 0.0
    assert outer.cached == 0
    assert outer.seconds > inner.seconds > 0
    assert "calls=7" in repr(outer)


def test_a_bare_thread_does_not_carry_the_block():
    lm = FunctionLM(lambda messages: "x")
    with track_usage() as usage:
        thread = threading.Thread(target=lm, args=("q",))
        thread.start()
        thread.join()
    assert usage.total == Usage()
