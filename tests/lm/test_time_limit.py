"""`deadline`: requests in flight end at the server, later ones are not sent."""

import asyncio
import threading
from functools import partial

import pytest

import promptgrad as pg
from promptgrad import aio, nn, run
from promptgrad.errors import BudgetExceeded, DeadlineError, LMError, is_outage
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


def test_what_was_cancelled_counts_against_a_budget_of_calls(silent):
    """It has reached the server, which may charge for it: 40 requests do not fit a budget of 25."""
    lm = HTTP("m", silent.url)

    async def ask(question):
        try:
            return await lm.acall(question)
        except (DeadlineError, BudgetExceeded) as error:
            return type(error)

    def block(number):
        bell = Bell()
        thread = ring_after(silent, min(25, 5 * number + 5), bell)
        with deadline(5, bell):
            found = aio.run(aio.gather([partial(ask, f"{number} {place}") for place in range(5)]))
        bell.ring()
        thread.join()
        return found

    with run.active(ledger=run.Ledger(run.Budget(calls=25))) as active:
        ended = [block(number) for number in range(8)]
        spent = active.ledger.spent
    assert silent.received == 25
    assert [set(found) for found in ended] == [{DeadlineError}] * 5 + [{BudgetExceeded}] * 3
    assert (spent.calls, spent.failed, spent.failed_calls) == (0, 25, 25)
    assert (spent.failed_tokens, spent.failed_usd) == (0, None)  # nobody knows


def test_a_resumed_run_goes_on_without_the_same_calls_and_counts_them(silent, bell, tmp_path):
    lm, path = HTTP("m", silent.url), tmp_path / "run.jsonl"

    def process(*questions):
        found = []
        with run.Journal(path) as journal, run.active(journal=journal, ledger=run.Ledger(BUDGET, journal)) as active:
            for question in questions:
                try:
                    with deadline(5, bell):
                        found.append(lm(question).text)
                except DeadlineError as error:
                    found.append((str(error), error.seconds))
                if question != "open":
                    journal.append("decided", on=question)
            return found, active.ledger.spent, active.journal.lost

    thread = ring_after(silent, 1, bell)
    first, spent, lost = process("late")
    thread.join()
    late = ("the 5 seconds of deadline() are over", 5)
    assert (first, spent.calls, spent.failed_calls, lost) == ([late], 0, 1, 0)

    bell.rung = aio.Signal()
    thread = ring_after(silent, 2, bell)
    again, spent, lost = process("late", "open")  # and ends while it waits, before anything is decided
    thread.join()
    assert (again, spent.failed_calls, lost) == ([late, late], 2, 1)

    silent.respond = "there"
    bell.rung = aio.Signal()
    found, spent, lost = process("late", "open", "another", "third")
    assert found == [late, "there", "there", "there"]  # what was open is asked again
    assert silent.received == 5
    assert (spent.calls, spent.failed_calls, lost) == (3, 1, 1)
    with run.Journal(path) as journal, run.active(journal=journal, ledger=run.Ledger(BUDGET, journal)):
        assert (journal.billed, journal.paid) == ((1, 0, 0, 1), 3)
        with pytest.raises(BudgetExceeded):
            lm("fourth")


BUDGET = run.Budget(calls=4)


def test_a_resumed_run_has_its_replies_however_slow_it_is(server, bell, tmp_path):
    lm = HTTP("m", server.url)
    for _ in range(2):
        with run.Journal(tmp_path / "run.jsonl") as journal, run.active(journal=journal), deadline(5, bell):
            assert lm("q").text == "echo q"
            bell.now += 1000  # in the first process behind the reply, in the second one before it
            if journal.resumed:
                assert lm("q").text == "echo q"
    assert server.received == 1


def test_a_reply_of_the_last_moment_is_not_thrown_away(bell):
    """It is paid, and a run has it in its journal."""

    async def answer(messages):
        bell.ring()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "there"

    with deadline(5, bell):
        assert asyncio.run(FunctionLM(answer, name="f").acall("q")).text == "there"


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
