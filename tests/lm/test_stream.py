import asyncio
import threading

import pytest
from hypothesis import given

from promptgrad import aio, run
from promptgrad.errors import BudgetExceeded, LMConnectionError, LMError
from promptgrad.lm import (
    Cache,
    Completion,
    FunctionLM,
    Limit,
    ReasoningDelta,
    ReasoningPart,
    Request,
    Retry,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallDelta,
    Transport,
    Usage,
    record,
    replay,
    track_usage,
)
from tests.lm.test_parts import contents

HI = Request.of("hi")


async def listen(lm, request=HI):
    return [event async for event in lm.stream(request)]


def collect(lm, request=HI):
    return asyncio.run(listen(lm, request))


def text_of(events):
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_an_lm_that_only_completes_streams_its_reply_in_pieces():
    events = collect(FunctionLM(lambda messages: "one  two\nthree", name="f"))
    assert events[:-1] == [TextDelta("one  "), TextDelta("two\n"), TextDelta("three")]
    assert events[-1].text == "one  two\nthree"


def test_a_prompt_is_streamed_as_it_is_completed():
    lm = FunctionLM(lambda request: f"{request.temperature} {request.messages[-1].text}", name="f")

    async def text(prompt, **options):
        return [event async for event in lm.stream(prompt, **options)][-1].text

    assert asyncio.run(text("hi")) == "None hi"
    assert asyncio.run(text([{"role": "user", "content": "hi"}], temperature=0.5)) == "0.5 hi"
    assert asyncio.run(text(HI, temperature=0.5)) == "0.5 hi"
    with pytest.raises(TypeError, match="a prompt is a str"):
        asyncio.run(text(7))


@given(contents)
def test_the_pieces_are_the_reply(content):
    lm = FunctionLM(lambda messages: Completion(content), name="f")
    reply = asyncio.run(lm.complete(HI))  # what a text begins with may be a thought
    *deltas, last = collect(lm)
    assert last == reply
    assert text_of(deltas) == reply.text
    assert "".join(delta.text for delta in deltas if isinstance(delta, ReasoningDelta)) == reply.reasoning
    calls = [delta for delta in deltas if isinstance(delta, ToolCallDelta)]
    assert [(call.id, call.name, call.arguments) for call in calls] == [
        (call.id, call.name, call.arguments) for call in reply.tool_calls
    ]
    assert [call.index for call in calls] == list(range(len(calls)))


def test_what_a_driven_coroutine_streams():
    assert aio.is_driven() is False
    events = aio.drive(listen(FunctionLM(lambda messages: "one two", name="f")))
    assert text_of(events) == "one two"


def test_every_layer_holds(tmp_path):
    asked = []

    def answer(messages):
        asked.append(messages)
        if len(asked) == 1:
            raise LMConnectionError("not yet")
        return "one two"

    async def no_wait(seconds):
        return None

    lm = Cache(Retry(Limit(FunctionLM(answer, name="f"), 1), sleep=no_wait), path=tmp_path / "lm.db")
    with run.Journal(tmp_path / "journal.jsonl") as journal, run.active(journal=journal) as session:
        with track_usage() as usage, record(tmp_path / "cassette.jsonl"):
            first = collect(lm)
        assert (usage.calls, session.ledger.spent.calls, len(asked)) == (1, 1, 2)
    with track_usage() as usage:
        second = collect(lm)
    assert (usage.calls, usage.cached, len(asked)) == (0, 1, 2)
    fresh = FunctionLM(answer, name="f")
    with run.Journal(tmp_path / "journal.jsonl") as journal, run.active(journal=journal):
        third = collect(fresh)
    with replay(tmp_path / "cassette.jsonl"):
        fourth = collect(fresh)
    assert len(asked) == 2
    assert [events[:-1] for events in (first, second, third, fourth)] == [[TextDelta("one "), TextDelta("two")]] * 4
    assert {events[-1].text for events in (first, second, third, fourth)} == {"one two"}


class Fast(Transport):
    """Writes all pieces of a reply before its reader takes the first one."""

    in_place = True

    def __init__(self, deltas):
        super().__init__("fast")
        self.deltas = deltas
        self.most = 0

    async def _send(self, request, key):
        for delta in self.deltas:
            request.listener.put(delta)
            self.most = max(self.most, len(request.listener._waiting))
        return Completion("all", Usage(1))


def test_a_reader_that_is_behind_gets_longer_pieces_and_no_more_of_them_wait():
    words = [f"w{number} " for number in range(5_000)]
    calls = [ToolCallDelta(0, "a", "look", "["), *[ToolCallDelta(0, arguments=f"{n},") for n in range(1_000)]]
    calls += [ToolCallDelta(1, "b", "look"), ToolCallDelta(1, arguments="{}")]
    lm = Fast([*map(TextDelta, words), ReasoningDelta("so "), ReasoningDelta("on"), *calls])
    events = collect(lm)
    assert lm.most == 256 + 3  # the thought and two calls begin pieces of their own
    assert len(events) == lm.most + 1
    assert events[:3] == [TextDelta("w0 "), TextDelta("w1 "), TextDelta("w2 ")]
    assert text_of(events) == "".join(words)
    assert events[256] == ReasoningDelta("so on")
    assert events[257] == ToolCallDelta(0, "a", "look", "[" + "".join(f"{n}," for n in range(1_000)))
    assert events[258] == ToolCallDelta(1, "b", "look", "{}")


def test_a_reader_that_keeps_up_gets_the_pieces_as_they_come():
    deltas = [TextDelta(f"w{number} ") for number in range(200)]
    assert collect(Fast(deltas))[:-1] == deltas


def test_a_budget_refuses_before_the_first_piece():
    lm = FunctionLM(lambda messages: "x", name="f")
    with run.active(ledger=run.Ledger(run.Budget(calls=1))):
        collect(lm, Request.of("a"))
        with pytest.raises(BudgetExceeded):
            collect(lm, Request.of("b"))


def test_a_reply_of_parts_streams_all_of_them():
    parts = (ReasoningPart("hm"), TextPart("ok"), ToolCall("c", "go", '{"x":1}'))
    *deltas, last = collect(FunctionLM(lambda messages: Completion(parts), name="f"))
    assert deltas == [ReasoningDelta("hm"), TextDelta("ok"), ToolCallDelta(0, "c", "go", '{"x":1}')]
    assert last.content == parts


def put_and_fail(pieces, error):
    """A function that hands pieces to the listener, from another thread, and then fails."""

    def answer(request: Request):
        if request.listener is not None:
            threads = [threading.Thread(target=request.listener.put, args=(TextDelta(piece),)) for piece in pieces]
            for thread in threads:
                thread.start()
                thread.join()
        raise error

    return answer


@pytest.mark.parametrize(("pieces", "attempts"), [([], 3), (["a", "b"], 1)])
def test_what_fails_after_the_first_piece_is_not_tried_again(pieces, attempts):
    tries = []

    def answer(request: Request):
        tries.append(request)
        return put_and_fail(pieces, LMConnectionError("cut"))(request)

    async def no_wait(seconds):
        return None

    heard = []

    async def listen_to_all():
        async for event in Retry(FunctionLM(answer, name="f"), 3, sleep=no_wait).stream(HI):
            heard.append(event.text)

    with pytest.raises(LMConnectionError, match="cut"):
        asyncio.run(listen_to_all())
    assert heard == pieces
    assert len(tries) == attempts


def test_a_stream_that_breaks_off_is_no_answer_to_another_caller():
    begun, over = aio.Signal(), aio.Signal()
    tries = []

    async def answer(messages):
        tries.append(messages)
        if len(tries) == 1:
            yield "half "
            begun.set(None)
            await over
            raise LMConnectionError("cut")
        yield "all of it"

    lm = Cache(Retry(FunctionLM(answer, name="f")))

    async def main():
        broken = asyncio.ensure_future(listen(lm))
        await begun
        other, third = asyncio.ensure_future(lm.acall("hi")), asyncio.ensure_future(listen(lm))
        for _ in range(5):
            await asyncio.sleep(0)
        over.set(None)
        return await asyncio.gather(broken, other, third, return_exceptions=True)

    broken, other, third = asyncio.run(main())
    assert isinstance(broken, LMConnectionError)
    assert other.text == "all of it" == text_of(third)
    assert len(tries) == 2


def test_leaving_early_ends_the_request():
    ended = []

    async def answer(request: Request):
        request.listener.put(TextDelta("a"))
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(True)
            raise

    async def leave():
        stream = FunctionLM(answer, name="f").stream(HI)
        assert await anext(stream) == TextDelta("a")
        await stream.aclose()

    asyncio.run(leave())
    assert ended == [True]


def test_a_stream_that_is_left_is_a_lost_call_of_its_run():
    async def answer(request: Request):
        request.listener.put(TextDelta("a"))
        await asyncio.sleep(60)

    async def leave():
        stream = FunctionLM(answer, name="f").stream(HI)
        assert await anext(stream) == TextDelta("a")
        await stream.aclose()

    with run.active() as session:
        asyncio.run(leave())
        (failure,) = [event for event in session.journal.events() if event["kind"] == "fail"]
        assert (failure["error"], failure["lost"]) == ("CancelledError", True)
        spent = session.ledger.spent
        assert (spent.failed, spent.failed_calls, spent.calls) == (1, 1, 0)
        assert spent.failed_usd == 0.0  # it is free


def test_streams_that_are_left_count_against_a_budget_of_calls():
    asked = []

    async def answer(request: Request):
        asked.append(request)
        request.listener.put(TextDelta("a"))
        await asyncio.sleep(60)

    async def leave():
        stream = FunctionLM(answer, name="f").stream(HI)
        assert await anext(stream) == TextDelta("a")
        await stream.aclose()

    with run.active(ledger=run.Ledger(run.Budget(calls=2))):
        for _ in range(2):
            asyncio.run(leave())
        with pytest.raises(BudgetExceeded, match="2 spent or in flight"):
            asyncio.run(leave())
    assert len(asked) == 2


def test_a_listener_is_no_part_of_a_request():
    from promptgrad.lm import Listener

    heard = HI.replace(listener=Listener())
    assert heard == HI
    assert heard.digest() == HI.digest()
    assert heard.to_dict() == HI.to_dict()
    assert heard.options() == {}
    assert heard.replace(seed=1).listener is heard.listener
    assert heard.with_defaults({"temperature": 1.0}).listener is heard.listener


def test_an_async_generator_streams_what_it_yields():
    async def answer(messages):
        for piece in ("one ", "two"):
            yield piece

    lm = FunctionLM(answer, name="f")
    assert [event.text for event in collect(lm)] == ["one ", "two", "one two"]
    assert lm("hi").text == "one two"
    assert lm("hi").usage.calls == 1


def test_an_async_generator_that_yields_no_text_is_told_so():
    async def numbers(messages):
        yield 3

    with pytest.raises(LMError, match="the function of LM 'f' must yield texts, not int"):
        collect(FunctionLM(numbers, name="f"))


def test_an_async_generator_is_closed_where_its_listener_leaves():
    closed = []

    async def answer(messages):
        try:
            yield "one "
            await asyncio.sleep(60)
        finally:
            closed.append(True)

    async def leave():
        stream = FunctionLM(answer, name="f").stream(HI)
        assert await anext(stream) == TextDelta("one ")
        await stream.aclose()

    asyncio.run(leave())
    assert closed == [True]
