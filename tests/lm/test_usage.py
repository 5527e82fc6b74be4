import asyncio
import threading
from contextvars import copy_context

from promptgrad import aio, run
from promptgrad.lm import Cache, FunctionLM, Usage, track_usage


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


def test_a_hit_of_a_reply_that_the_run_paid_for_counts_with_its_cost_where_that_is_asked():
    cache = Cache(FunctionLM(lambda messages: "four letters"))
    with track_usage() as before:
        cache("q")
    with run.active(), track_usage() as usage:
        cache("q")  # from before the run: its cost is not known
        cache("new")
        cache("new")
    assert (usage.calls, usage.cached) == (1, 2)
    assert (usage.uncached.calls, usage.uncached.cached) == (2, 1)
    assert usage.uncached.tokens == 2 * usage.total.tokens > 0
    assert usage.uncached.seconds == 2 * usage.total.seconds
    assert before.uncached == before.total
