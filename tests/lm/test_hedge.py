"""`Hedge`: the second request, what ends at the server, what is counted, journals, streams, failures."""

import asyncio
import json
import threading
from contextlib import contextmanager

import pytest

import promptgrad as pg
from promptgrad import aio, run
from promptgrad.errors import OverloadedError
from promptgrad.lm import (
    HTTP,
    Cache,
    Completion,
    FunctionLM,
    Hedge,
    Limit,
    Retry,
    TextDelta,
    record,
    replay,
    track_usage,
)
from promptgrad.testing import Delay, Garbage, Hang, Reply, Status


def once_there_are(requests, server):
    """The time after which a request is late: until the server has so many, however long that takes."""

    async def sleep(seconds):
        while server.received < requests:
            await aio.sleep(0.001)

    return sleep


@pytest.fixture
def hedged(server):
    def make(http=None, **settings):
        lm = http or HTTP("m", server.url, prices=(1.0, 10.0))
        return Hedge(lm, **{"after": 0.0, "sleep": once_there_are(1, server), **settings})

    return make


@contextmanager
def both_in_flight(server):
    """Neither request is answered before the server has the other one."""

    def release():
        server.wait_for(2)
        server.release()

    server.hold()
    thread = threading.Thread(target=release)
    thread.start()
    yield
    thread.join()


async def never(seconds):
    await aio.Signal()


def test_a_late_request_is_asked_again_and_ended_at_the_server(hedged, server):
    server.script(Hang(), "from the second")
    lm = hedged()
    with track_usage() as used:
        reply = lm("one two")
    assert reply.text == "from the second"
    server.wait_idle()
    assert (server.received, server.in_flight) == (2, 0)
    assert server.requests[0].body == server.requests[1].body
    assert (lm.stats()["hedged"], lm.stats()["hedges_won"]) == (1, 1)
    assert (used.calls, used.input_tokens, used.output_tokens) == (2, 4, 3)
    assert used.usd == pytest.approx((2 * 2 * 1.0 + 3 * 10.0) / 1e6)


def test_the_first_may_still_be_first(hedged, server):
    server.script("from the first", Hang())
    lm = hedged()
    with both_in_flight(server):
        assert asyncio.run(lm.acall("q")).text == "from the first"
    server.wait_idle()
    assert (lm.stats()["hedged"], lm.stats()["hedges_won"]) == (1, 0)


def test_what_is_not_late_is_asked_once(hedged, server):
    lm = hedged(sleep=never)
    with track_usage() as used:
        assert [lm(text).text for text in "ab"] == ["echo a", "echo b"]
    assert (used.calls, server.received, lm.stats()["hedged"]) == (2, 2, 0)


@pytest.mark.parametrize("answers", [(Status(503), Delay(0.1, "there")), (Delay(0.05, "there"), Status(503))])
def test_if_one_fails_the_other_is_waited_for(hedged, server, answers):
    server.script(*answers)
    with track_usage() as used, both_in_flight(server):
        assert hedged()("q").text == "there"
    assert used.calls == 1  # a failure is no call


def test_if_both_fail_it_is_a_failure(hedged, server):
    server.script(Status(503), Status(503))
    with both_in_flight(server), pytest.raises(OverloadedError):
        hedged()("q")
    assert server.received == 2


def test_a_failure_before_the_time_is_not_hedged(hedged, server):
    server.script(Status(503))
    with pytest.raises(OverloadedError):
        hedged(sleep=never)("q")
    assert server.received == 1


def test_it_is_below_the_layers(server):
    async def no_wait(seconds):
        pass

    server.script(Status(503), Hang(), "there")
    cached = Cache(Retry(Limit(HTTP("m", server.url), 1), sleep=no_wait))
    lm = Hedge(cached, after=0.05, sleep=once_there_are(2, server))  # the second hangs
    assert lm.identity() == cached.identity()
    assert lm("q").text == "there"
    assert lm("q").cached
    assert cached("q").cached  # the memory is one
    assert server.received == 3


def test_a_quantile_of_what_replies_took(server):
    lm = Hedge(HTTP("m", server.url), quantile=0.9)
    transport = lm.transport
    for _ in range(19):
        transport._seconds.append(0.5)
    assert transport._delay() is None
    transport._seconds.extend([9.0, 8.0, 7.0])
    assert transport._delay() == 7.0
    fresh = Hedge(HTTP("m", server.url), quantile=0.5)
    for number in range(25):
        fresh(f"q{number}")
    assert fresh.transport._delay() > 0


@pytest.mark.parametrize("arguments", [{}, {"after": 1, "quantile": 0.5}, {"after": -1}, {"quantile": 1.0}])
def test_arguments(server, arguments):
    with pytest.raises(ValueError, match=r"after|quantile"):
        Hedge(HTTP("m", server.url), **arguments)


def test_a_caller_that_leaves_ends_both(hedged, server, tmp_path):
    server.script(Hang(), Hang())

    async def leave():
        task = asyncio.ensure_future(hedged().acall("q"))
        await asyncio.to_thread(server.wait_for, 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with run.Journal(tmp_path / "run.jsonl") as journal, run.active(journal=journal) as active:
        asyncio.run(leave())
        server.wait_idle()
        spent = active.ledger.spent
        assert (spent.calls, spent.failed, spent.failed_calls) == (0, 2, 2)  # both may be charged for
        assert (journal.billed, journal.lost) == ((0, 0, 0, 0), 2)
        journal.append("decided")
        assert (journal.billed, journal.lost) == ((2, 0, 0, 2), 0)


class TestRuns:
    def test_both_are_in_the_budget(self, hedged, server):
        server.script(Hang(), "there")
        with run.active(ledger=run.Ledger(pg.Budget(calls=3, usd=1.0))) as active, track_usage() as used:
            assert hedged()("one two").text == "there"
            spent = active.ledger.spent
            assert (spent.calls, spent.tokens) == (2, 2 + 1 + 2)
            assert spent.usd == pytest.approx(used.usd)
            assert used.calls == 2

    def test_a_budget_without_room_for_it_sends_none(self, hedged, server):
        server.script(Delay(0.05, "there"))
        lm = hedged()
        with run.active(ledger=run.Ledger(pg.Budget(calls=1))) as active:
            assert lm("q").text == "there"
            assert active.ledger.spent.calls == 1
        assert (server.received, lm.stats()["hedged"]) == (1, 0)

    def test_a_resumed_run_has_the_reply_that_came_first(self, hedged, server, tmp_path):
        server.script(Hang(), "from the second")

        def once():
            with run.Journal(tmp_path / "run.jsonl") as journal:
                with run.active(journal=journal) as active, track_usage() as used:
                    text = hedged()("q").text
                    journal.append("decision", text=text)
                spent = active.ledger.spent
                return text, spent.calls, spent.tokens, used.calls, used.tokens, journal.canonical()

        assert once() == once()
        assert server.received == 2

    def test_a_failed_second_request_costs_what_its_server_says(self, hedged, server):
        used = {"prompt_tokens": 7, "completion_tokens": 3}
        failed = Garbage(json.dumps({"choices": [], "usage": used}).encode())
        server.script(Delay(0.05, "there"), failed)
        with run.active() as active, both_in_flight(server):
            assert hedged()("q").text == "there"
            assert (active.ledger.spent.calls, active.ledger.spent.tokens) == (2, 12)

    def test_a_failed_second_request_costs_nothing(self, hedged, server):
        server.script(Delay(0.05, "there"), Status(503))
        with run.active() as active, both_in_flight(server):
            assert hedged()("q").text == "there"
            assert active.ledger.spent.calls == 1

    def test_a_cassette_has_one_reply(self, hedged, server, tmp_path):
        server.script(Hang(), "there")
        with record(tmp_path / "tape.jsonl"):
            hedged()("q")
        with replay(tmp_path / "tape.jsonl"):
            assert hedged()("q").text == "there"
        assert server.received == 2


class TestStreams:
    def read(self, lm):
        async def collect():
            return [event async for event in lm.stream("q")]

        return asyncio.run(collect())

    def test_the_one_counts_whose_first_piece_comes_first(self, hedged, server):
        server.script(Hang(), Reply("one two three", pace=0.01))
        *pieces, completion = self.read(hedged())
        assert pieces == [TextDelta("one "), TextDelta("two "), TextDelta("three")]
        assert completion.text == "one two three"
        server.wait_idle()

    def test_a_stream_that_has_begun_is_not_hedged(self, server):
        async def later(seconds):
            await asyncio.to_thread(begun.wait)

        begun = threading.Event()
        server.script(Reply("one two three", pace=0.02))
        lm = Hedge(HTTP("m", server.url), after=1.0, sleep=later)

        async def collect():
            events = []
            async for event in lm.stream("q"):
                events.append(event)
                begun.set()
            return events

        assert isinstance(asyncio.run(collect())[-1], Completion)
        assert server.received == 1


def test_functions_are_hedged_too():
    calls = []

    async def late(messages):
        calls.append(1)
        if len(calls) == 1:
            await asyncio.sleep(1000)
        return f"call {len(calls)}"

    assert Hedge(FunctionLM(late), after=0.0)("q").text == "call 2"


def test_its_repr_says_when(server):
    assert repr(Hedge(HTTP("m", server.url), after=2)).startswith("Hedge(HTTP('m'")
    assert repr(Hedge(HTTP("m", server.url), quantile=0.9)).endswith("quantile=0.9)")
