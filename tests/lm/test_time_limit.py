"""`deadline`: requests in flight end at the server, later ones are not sent."""

import asyncio
import threading

import pytest

import promptgrad as pg
from promptgrad import aio, nn, run
from promptgrad.errors import DeadlineError, LMError, is_outage
from promptgrad.lm import HTTP, Cache, Fallback, FunctionLM, Limit, Request, Retry, TextDelta
from promptgrad.testing import Hang, LoopbackLM, Reply, Status


class Bell:
    """A clock and a wait: nothing passes before it rings."""

    def __init__(self):
        self.now = 0.0
        self.rung = aio.Signal()
        self.waits = []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.waits.append(seconds)
        await self.rung

    def ring(self):
        self.now += 1000
        self.rung.set(None)


@pytest.fixture
def bell():
    return Bell()


def deadline(seconds, bell):
    return pg.deadline(seconds, clock=bell, sleep=bell.sleep)


@pytest.fixture
def silent():
    with LoopbackLM(lambda messages: Hang()) as running:
        yield running


def ring_after(server, requests, bell):
    def wait():
        server.wait_for(requests)
        bell.ring()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("awaited", [True, False])
def test_a_request_in_flight_ends_at_the_server(silent, bell, awaited):
    lm = HTTP("m", silent.url)
    thread = ring_after(silent, 1, bell)
    call = (lambda: asyncio.run(lm.acall("q"))) if awaited else (lambda: lm("q"))
    with pytest.raises(DeadlineError, match="5 seconds") as caught, deadline(5, bell):
        call()
    thread.join()
    silent.wait_idle()
    assert (caught.value.seconds, bell.waits, lm.stats()["in_flight"]) == (5, [5], 0)
    assert isinstance(caught.value, TimeoutError)
    assert not isinstance(caught.value, LMError)
    assert is_outage(caught.value)


def test_what_is_answered_in_time_is_returned_and_what_comes_later_is_not_sent(server, bell):
    lm = HTTP("m", server.url)
    with deadline(5, bell) as limit:
        assert lm("q").text == "echo q"
        assert limit.left == 5
        bell.now = 5
        with pytest.raises(DeadlineError):
            lm("r")
    assert server.received == 1
    assert lm("s").text == "echo s"


def test_all_calls_of_a_program_end_together(silent, bell):
    program = nn.Predict("question -> answer").to(Retry(Limit(HTTP("m", silent.url), 8)))
    thread = ring_after(silent, 3, bell)

    async def all_at_once():
        with deadline(5, bell):
            calls = [program.acall(question=word) for word in "abc"]
            return await asyncio.gather(*calls, return_exceptions=True)

    assert [type(error) for error in asyncio.run(all_at_once())] == [DeadlineError] * 3
    thread.join()
    silent.wait_idle()
    assert silent.received == 3


def test_a_wait_between_attempts_ends(server, bell):
    waiting = threading.Event()

    async def wait(seconds):
        waiting.set()
        await aio.Signal()

    server.script(Status(503))
    lm = Fallback(Cache(Retry(HTTP("m", server.url), sleep=wait)), HTTP("other", server.url))
    thread = threading.Thread(target=lambda: (waiting.wait(), bell.ring()))
    thread.start()
    with deadline(5, bell), pytest.raises(DeadlineError):
        lm("q")
    thread.join()
    assert server.received == 1  # and the other one is not asked


def test_a_stream_ends(server, bell):
    server.script(Reply("one two three four", pace=1000))

    async def read():
        with deadline(5, bell):
            async for piece in HTTP("m", server.url).stream("q"):
                pieces.append(piece)
                bell.ring()

    pieces = []
    with pytest.raises(DeadlineError):
        asyncio.run(read())
    assert pieces == [TextDelta("one ")]
    server.wait_idle()


def test_the_earliest_end_counts(bell):
    with deadline(5, bell):
        with deadline(50, bell) as inner:
            assert inner.seconds == 5
        with deadline(2, bell) as inner:
            assert inner.seconds == 2
    for seconds in (0, -1, True, "5"):
        with pytest.raises(ValueError, match="above 0"), pg.deadline(seconds):
            pass


def test_an_equal_request_of_another_caller_goes_on(server):
    server.hold()
    lm = Cache(HTTP("m", server.url))
    found = []
    other = threading.Thread(target=lambda: found.append(lm("q").text))
    other.start()
    server.wait_for(1)
    with pytest.raises(DeadlineError), pg.deadline(0.01):
        lm("q")
    server.release()
    other.join()
    assert found == ["echo q"]


def test_in_a_run_it_is_lost_and_sent_again_when_it_is_resumed(silent, bell, tmp_path):
    lm = HTTP("m", silent.url)
    thread = ring_after(silent, 1, bell)
    with run.Journal(tmp_path / "run.jsonl") as journal, run.active(journal=journal) as active:
        with pytest.raises(DeadlineError), deadline(5, bell):
            lm("q")
        assert (active.ledger.spent.calls, active.ledger.spent.failed) == (0, 1)
    thread.join()
    silent.respond = "there"
    with run.Journal(tmp_path / "run.jsonl") as journal, run.active(journal=journal) as active:
        assert active.journal.lost == 1
        assert lm("q").text == "there"


def test_an_embedder_keeps_it_too(silent, bell):
    silent.script(Hang())
    thread = ring_after(silent, 1, bell)
    with pytest.raises(DeadlineError), deadline(5, bell):
        pg.Embedder("m", base_url=silent.url)("text")
    thread.join()
    silent.wait_idle()


def test_a_request_is_the_same_with_and_without(server, bell):
    with deadline(5, bell):
        HTTP("m", server.url)(Request.of("q", temperature=0.5))
    HTTP("m", server.url)(Request.of("q", temperature=0.5))
    assert server.requests[0].body == server.requests[1].body


def test_plain_functions_may_ask_and_block(server, bell, monkeypatch):
    monkeypatch.setattr("promptgrad.lm._time_limit.GRACE", 0.01)
    other = HTTP("m", server.url)
    asking = FunctionLM(lambda messages: f"{other('inner').text}!", name="asking")
    with deadline(5, bell):
        assert asking("outer").text == "echo inner!"
    gate, begun = threading.Event(), threading.Event()

    def block(messages):
        begun.set()
        gate.wait()
        return "too late"

    thread = threading.Thread(target=lambda: (begun.wait(), bell.ring()))
    thread.start()
    with pytest.raises(DeadlineError), deadline(5, bell):
        FunctionLM(block, name="block")("q")
    gate.set()
    thread.join()


def test_it_is_the_same_with_async_with_and_over_a_function(silent, bell):
    lm = HTTP("m", silent.url)

    async def ask():
        async with deadline(5, bell) as limit:
            assert limit.seconds == 5
            await lm.acall("q")

    thread = ring_after(silent, 1, bell)
    with pytest.raises(DeadlineError, match="5 seconds"):
        asyncio.run(ask())
    thread.join()
    other = Bell()
    asked = deadline(7, other)(lambda: lm("q"))
    thread = ring_after(silent, 2, other)
    for _ in range(2):  # each call has its own time
        with pytest.raises(DeadlineError, match="7 seconds"):
            asked()
        other.rung = aio.Signal()
        other.rung.set(None)
    thread.join()
    silent.wait_idle()


def test_one_object_is_for_one_block():
    limit = pg.deadline(5)
    with limit, pytest.raises(RuntimeError, match="has a block already"), limit:
        pass
