"""Parts and streams over a real connection, with our transport and with litellm's."""

import asyncio
import json
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptgrad import run
from promptgrad.errors import LMReplyError, LMStatusError, LMTimeoutError, RateLimitError
from promptgrad.lm import (
    HTTP,
    AudioPart,
    Cache,
    Completion,
    FilePart,
    ImagePart,
    Limit,
    LiteLLM,
    Message,
    Prefix,
    ReasoningDelta,
    ReasoningPart,
    Request,
    Retry,
    TextDelta,
    TextPart,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    record,
    replay,
    track_usage,
)
from promptgrad.lm._dialect import read_message, write_messages
from promptgrad.lm._sse import Assembly, EventReader
from promptgrad.lm._stream import Listener
from promptgrad.testing import Cut, Drop, Garbage, Hang, Reply, Status

pytestmark = [  # what pydantic says of litellm
    pytest.mark.filterwarnings("ignore:Item.*ReadOnly:UserWarning"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_.*:DeprecationWarning"),
]

HI = Request.of("hi")
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "search",
            "parameters": {"type": "object", "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}}},
        },
    }
]
WAV = AudioPart(b"RIFF", "audio/x-wav")
PDF = FilePart(b"%PDF", "application/pdf", name="a.pdf")
PNG = ImagePart(b"\x89PNG", "image/png", detail="low")
RICH = Reply(
    "Let me see.",
    finish_reason="tool_calls",
    usage=(70, 9),
    reasoning="They ask for a cat.",
    tool_calls=[("search", {"query": "cat", "limit": 2}), ("search", {"query": "dog"})],
)
RICH_PARTS = (
    ReasoningPart("They ask for a cat."),
    TextPart("Let me see."),
    ToolCall("call_0", "search", '{"query": "cat", "limit": 2}'),
    ToolCall("call_1", "search", '{"query": "dog"}'),
)


def make_http(server, **more):
    return HTTP("tiny", server.url, **more)


def make_litellm(server, **more):
    return LiteLLM("openai/gpt-4o-mini", "sk-x", api_base=server.url, **more)


@pytest.fixture(params=[make_http, make_litellm], ids=["http", "litellm"])
def lm(request, server):
    made = request.param(server)
    yield made
    made.close()


@pytest.fixture
def http(server):
    made = make_http(server)
    yield made
    made.close()


async def no_wait(seconds):
    return None


def collect(lm, request=HI):
    async def listen():
        return [event async for event in lm.stream(request)]

    return asyncio.run(listen())


def collect_until_it_fails(lm, request=HI):
    events = []

    async def listen():
        async for event in lm.stream(request):
            events.append(event)

    with pytest.raises(Exception) as caught:  # noqa: PT011 - the callers look
        asyncio.run(listen())
    return events, caught.value


# --------------------------------------------------------------------------------------------------- what is sent


def test_media_go_over_as_the_dialect_has_them(server, lm):
    lm(Request.of([Message("system", "Look."), {"role": "user", "content": ["What?", PNG, WAV, PDF]}]))
    assert server.requests[-1].messages == [
        {"role": "system", "content": "Look."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw==", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}},
            ],
        },
    ]


def test_addresses_go_over_as_they_are(server, http):
    parts = [ImagePart(url="https://e.org/a.png"), AudioPart(url="https://e.org/a.wav"), FilePart(url="file-123")]
    http([{"role": "user", "content": parts}])
    assert server.requests[-1].messages[0]["content"] == [
        {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}},
        {"type": "audio_url", "audio_url": {"url": "https://e.org/a.wav"}},
        {"type": "file", "file": {"file_id": "file-123"}},
    ]


def test_a_turn_with_tools_goes_over_and_back(server, lm):
    server.script(RICH, "A cat.")
    first = lm("Find a cat.", tools=TOOLS, tool_choice="auto", parallel_tool_calls=True)
    sent = server.requests[-1].json
    assert (sent["tools"], sent["tool_choice"], sent["parallel_tool_calls"]) == (TOOLS, "auto", True)
    assert list(sent["tools"][0]["function"]["parameters"]["properties"]) == ["query", "limit"]  # in their own order
    assert first.content == RICH_PARTS
    assert (first.text, first.finish_reason, first.usage.input_tokens) == ("Let me see.", "tool_calls", 70)
    results = (ToolResult("call_0", "a cat"), ToolResult("call_1", "no dog here", is_error=True))
    second = lm([Message("user", "Find a cat."), first.message, Message("tool", results)], tools=TOOLS)
    assert second.text == "A cat."
    user, assistant, *answers = server.requests[-1].messages
    assert user == {"role": "user", "content": "Find a cat."}
    assert assistant["content"] == "Let me see."
    assert assistant["reasoning_content"] == "They ask for a cat."
    assert [(call["id"], call["function"]["name"]) for call in assistant["tool_calls"]] == [
        ("call_0", "search"),
        ("call_1", "search"),
    ]
    assert json.loads(assistant["tool_calls"][0]["function"]["arguments"]) == {"query": "cat", "limit": 2}
    assert answers == [
        {"role": "tool", "tool_call_id": "call_0", "content": "a cat"},
        {"role": "tool", "tool_call_id": "call_1", "content": "Error: no dog here"},
    ]


def test_a_prefix_with_parts_and_a_tail_of_text(server, http):
    prefix = Prefix([Message("user", (PNG,)), Message("assistant", "A cat.")])
    http(Request(prefix, (Message("user", "And now?"),)))
    sent = server.requests[-1].messages
    assert sent[0]["content"][0]["type"] == "image_url"
    assert sent[1:] == [{"role": "assistant", "content": "A cat."}, {"role": "user", "content": "And now?"}]


def test_results_come_before_what_else_a_message_holds():
    talk = [Message("user", (TextPart("and?"), ToolResult("c", (TextPart("x"), PNG))))]
    result, rest = write_messages(talk)
    assert (result["role"], result["tool_call_id"], len(result["content"])) == ("tool", "c", 2)
    assert rest == {"role": "user", "content": [{"type": "text", "text": "and?"}]}


@pytest.mark.parametrize(
    ("message", "match"),
    [
        (Message("tool", (TextPart("x"),)), "holds ToolResult parts alone"),
        (Message("user", (ToolCall("c", "f"),)), "stands in the message of an assistant"),
        (Message("user", (ReasoningPart("hm"),)), "stands in the message of an assistant"),
    ],
)
def test_parts_that_cannot_stand_there_are_refused_before_anything_is_sent(server, http, message, match):
    with pytest.raises(ValueError, match=match):
        http([message])
    assert server.received == 0


# ------------------------------------------------------------------------------------------------ what comes back


def test_a_call_of_a_tool_without_text_is_not_lost(server, lm):
    server.script(Reply(tool_calls=[("search", {"query": "cat"})], finish_reason="tool_calls"))
    completion = lm("hi")
    assert completion.text == ""
    assert [call.kwargs for call in completion.tool_calls] == [{"query": "cat"}]


def test_refusals_and_log_probabilities(server, lm):
    server.script(Reply(refusal="I cannot."), Reply("a b", logprobs=[("a", -0.5), (" b", -0.25)]))
    refused = lm("hi")
    assert (refused.text, refused.refusal) == ("", "I cannot.")
    assert lm("hi", logprobs=True).logprobs == (TokenLogprob("a", -0.5), TokenLogprob(" b", -0.25))
    assert server.requests[-1].json["logprobs"] is True


def test_everything_that_came_goes_back_as_it_came():
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "sealed"},
        {"type": "redacted_thinking", "data": "xyz"},
    ]
    details = [{"type": "reasoning.text", "text": "hm", "index": 0, "signature": "s"}]
    call = {
        "id": "c",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
        "extra_content": {"google": {"thought_signature": "t"}},
    }
    for message in (
        {"role": "assistant", "content": "x", "reasoning_content": "hm", "thinking_blocks": blocks},
        {"role": "assistant", "content": "x", "reasoning_content": "hm", "reasoning_details": details},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ):
        content, refusal = read_message(message)
        assert (write_messages([Message("assistant", content)]), refusal) == ([message], "")
        plain = json.loads(json.dumps(Completion(content).to_dict()))
        assert Completion.from_dict(plain).content == content


def test_other_ways_to_say_it():
    assert read_message({"content": "x", "reasoning": "hm"})[0] == (ReasoningPart("hm"), TextPart("x"))
    magistral = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "x"}]
    assert read_message({"content": magistral})[0] == (ReasoningPart("hm"), TextPart("x"))
    spoken = {"content": None, "audio": {"id": "a", "data": "UklGRg==", "transcript": "hello"}}
    assert read_message(spoken)[0] == (TextPart("hello"), AudioPart(b"RIFF", "audio/wav"))
    drawn = {"content": "", "images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}}]}
    assert read_message(drawn)[0] == (ImagePart(b"\x89PNG", "image/png"),)
    assert read_message({"content": [{"type": "refusal", "refusal": "no"}]}) == ("", "no")
    assert read_message({"role": "assistant", "text": "x"}) == ("x", "")
    assert read_message({"content": "x", "tool_calls": [], "reasoning_content": None, "refusal": None}) == ("x", "")
    with pytest.raises(KeyError, match="content"):
        read_message({"role": "assistant"})


# ----------------------------------------------------------------------------------------------------- streaming


def test_a_stream_over_the_wire(server, lm):
    server.script(RICH, RICH)
    *deltas, last = collect(lm)
    sent = server.requests[-1].json
    assert (sent["stream"], sent["stream_options"]) == (True, {"include_usage": True})
    assert [delta.text for delta in deltas if isinstance(delta, TextDelta)] == ["Let ", "me ", "see."]
    assert "".join(delta.text for delta in deltas if isinstance(delta, ReasoningDelta)) == "They ask for a cat."
    calls = [delta for delta in deltas if isinstance(delta, ToolCallDelta)]
    assert [(call.index, call.id, call.name) for call in calls if call.name] == [
        (0, "call_0", "search"),
        (1, "call_1", "search"),
    ]
    assert "".join(call.arguments for call in calls if call.index == 1) == '{"query": "dog"}'
    whole = lm("hi")
    assert last.content == whole.content == RICH_PARTS
    assert (last.finish_reason, last.model) == (whole.finish_reason, whole.model)
    assert (last.usage.input_tokens, last.usage.output_tokens, last.usage.usd) == (70, 9, whole.usage.usd)


def test_the_pieces_come_while_the_server_is_still_writing(server, lm):
    server.script(Reply("one two three", pace=60))
    first = asyncio.run(_first(lm))
    assert first == [TextDelta("one ")]
    server.wait_idle()  # the server has noticed that the client has left


async def _first(lm):
    stream = lm.stream(HI)
    try:
        return [await asyncio.wait_for(anext(stream), 30)]
    except asyncio.TimeoutError:
        return []
    finally:
        await stream.aclose()


def test_refusals_and_log_probabilities_of_a_stream(server, http):
    server.script(Reply(refusal="I cannot."), Reply("a b", logprobs=[("a", -0.5), (" b", -0.25)]))
    *deltas, last = collect(http)
    assert (deltas, last.text, last.refusal) == ([], "", "I cannot.")
    assert collect(http, HI.replace(logprobs=True))[-1].logprobs == (TokenLogprob("a", -0.5), TokenLogprob(" b", -0.25))


def test_a_cancelled_task_closes_the_connection(server, http):
    server.script(Reply("one two three", pace=60))

    async def cancel():
        heard = asyncio.Event()

        async def listen():
            async for _ in http.stream(HI):
                heard.set()

        task = asyncio.create_task(listen())
        await heard.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    server.wait_idle()


@pytest.mark.parametrize(
    "fault",
    [Status(503), Drop(), Cut(0.0), Garbage(b'data: {"error":{"code":503}}\n\n', 200, "text/event-stream")],
    ids=["503", "drop", "cut", "an error as an event"],
)
def test_what_fails_before_the_first_piece_is_tried_again(server, http, fault):
    server.script(fault, "one two")
    events = collect(Retry(http, sleep=no_wait))
    assert [event.text for event in events] == ["one ", "two", "one two"]
    assert server.received == 2


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Cut(0.6, "one two three"), LMReplyError),
        (Cut(0.6, Reply("", tool_calls=[("f", {})])), LMReplyError),
        (Garbage(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n', 200, "text/event-stream"), LMReplyError),
        (
            Garbage(
                b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: {"error":{"code":429,"message":"slow"}}\n\n',
                200,
                "text/event-stream",
            ),
            RateLimitError,
        ),
        (Garbage(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: {x', 200, "text/event-stream"), LMReplyError),
        (
            Garbage(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: 3\n\n', 200, "text/event-stream"),
            LMReplyError,
        ),
        *(
            (
                Garbage(
                    b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: {"choices":[{"delta":%s}]}\n\n' % odd,
                    200,
                    "text/event-stream",
                ),
                LMReplyError,
            )
            for odd in (b'{"reasoning_details":["x"]}', b'{"tool_calls":[{"index":-9}]}')
        ),
    ],
    ids=[
        "cut",
        "cut in a call",
        "ends without an end",
        "an error as an event",
        "half an event",
        "no chunk",
        "detail",
        "call",
    ],
)
def test_what_fails_after_the_first_piece_is_raised(server, http, fault, error):
    server.script(fault, "one two")
    events, raised = collect_until_it_fails(Retry(http, sleep=no_wait))
    assert type(raised) is error
    assert events
    assert not any(isinstance(event, Completion) for event in events)
    assert server.received == 1


def test_a_cut_stream_of_litellm_is_raised(server):
    server.script(Cut(0.5, "one two three four"), "one two")
    events, raised = collect_until_it_fails(Retry(make_litellm(server), sleep=no_wait))
    assert isinstance(raised, (LMReplyError, LMStatusError)) or "Connection" in type(raised).__name__
    assert "one two three four" not in "".join(event.text for event in events if isinstance(event, TextDelta))
    assert server.received == 1


def test_a_stream_that_says_nothing_times_out(server):
    server.script(Hang())
    events, raised = collect_until_it_fails(make_http(server, timeout=0.2))
    assert (events, type(raised)) == ([], LMTimeoutError)


def test_a_server_that_does_not_stream_answers_at_once(server, http):
    body = {"choices": [{"message": {"content": "one two"}, "finish_reason": "stop"}]}
    server.script(Garbage(json.dumps(body).encode()))
    assert [event.text for event in collect(http)] == ["one ", "two", "one two"]


def test_a_status_is_an_error_as_ever(server, http):
    server.script(Status(400, message="no such option"))
    events, raised = collect_until_it_fails(http)
    assert events == []
    assert isinstance(raised, LMStatusError)
    assert "no such option" in str(raised)


def test_stream_options_of_the_request_win(server, http):
    server.script("one two")
    last = collect(http, HI.replace(stream_options={"include_usage": False}))[-1]
    assert server.requests[-1].json["stream_options"] == {"include_usage": False}
    assert last.usage.output_tokens == len("one two") // 4 + 1  # estimated, as the server did not say


def test_layers_journal_and_cassette_hold_for_a_real_stream(server, tmp_path):
    server.script(Status(503), RICH)
    lm = Cache(Retry(Limit(make_http(server, prices=(1.0, 1.0)), 2), sleep=no_wait), path=tmp_path / "lm.db")
    with run.Journal(tmp_path / "journal.jsonl") as journal, run.active(journal=journal) as session:
        with record(tmp_path / "cassette.jsonl"), track_usage() as usage:
            first = collect(lm)
        assert (usage.calls, usage.tokens, usage.usd) == (1, 79, pytest.approx(79e-6))
        assert (session.ledger.spent.calls, session.ledger.spent.tokens) == (1, 79)
    assert server.received == 2
    lm.close()
    again = Cache(make_http(server), path=tmp_path / "lm.db")
    with track_usage() as usage:
        second = collect(again)
    assert (usage.calls, usage.cached) == (0, 1)
    bare = make_http(server)
    with run.Journal(tmp_path / "journal.jsonl") as journal, run.active(journal=journal):
        third = collect(bare)
    with replay(tmp_path / "cassette.jsonl"):
        fourth = collect(bare)
    assert server.received == 2
    for events in (first, second, third, fourth):
        assert [event.text for event in events if isinstance(event, TextDelta)] == ["Let ", "me ", "see."]
        assert events[-1].content == RICH_PARTS


def test_a_budget_counts_a_stream_and_refuses_the_next(server, http):
    with run.active(ledger=run.Ledger(run.Budget(calls=1))):
        collect(http)
        events, raised = collect_until_it_fails(http, Request.of("more"))
    assert (events, type(raised).__name__, server.received) == ([], "BudgetExceeded", 1)


def events_in(pieces):
    reader = EventReader()
    return [event for piece in pieces for event in reader.feed(piece)] + [*reader.rest()]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n")), max_size=5), st.data())
def test_events_are_read_however_their_bytes_are_cut(texts, data):
    end = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    body = b"".join(b": note%sdata: %s%s%s" % (end, text.encode(), end, end) for text in texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=6)))
    pieces = [body[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(body)], strict=True)]

    assert events_in(pieces) == texts


def test_an_event_may_have_several_lines_and_end_with_the_stream():
    assert events_in([b"event: x\ndata: a\ndata: b\n\ndata: c"]) == ["a\nb", "c"]


def assemble(*deltas):
    assembly = Assembly(Listener())
    for delta in deltas:
        assembly.add({"choices": [{"index": 0, "delta": delta}]})
    return read_message(assembly.reply()["choices"][0]["message"])[0]


def call(index, id_=None, name=None, arguments=None, **more):
    found = {"index": index, "id": id_, "function": {"name": name, "arguments": arguments}, **more}
    return {"tool_calls": [{key: value for key, value in found.items() if value is not None}]}


def test_calls_are_told_apart_as_servers_tell_them():
    two = (ToolCall("a", "f", "{}"), ToolCall("b", "g", "[]"))
    assert assemble(call(0, "a", "f", ""), call(0, arguments="{}"), call(1, "b", "g", "[]")) == two
    assert assemble(call(0, "a", "f", "{}"), call(0, "b", "g", "[]")) == two  # every call has the index 0
    assert assemble(call(None, "a", "f", "{"), call(None, arguments="}"), call(None, "b", "g", "[]")) == two
    sealed = assemble(call(0, "a", "f", "{}", extra_content={"x": 1}))
    assert json.loads(sealed[0].data) == {"extra_content": {"x": 1}}


def test_thoughts_come_in_pieces_and_with_their_seal():
    blocks = [
        {"thinking_blocks": [{"type": "thinking", "thinking": "h"}]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "m", "signature": "s"}]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "so", "signature": "t"}]},
        {"thinking_blocks": [{"type": "redacted_thinking", "data": "z"}], "content": "x"},
    ]
    hidden = ReasoningPart(data='{"type":"redacted_thinking","data":"z"}')
    assert assemble(*blocks) == (ReasoningPart("hm", "s"), ReasoningPart("so", "t"), hidden, TextPart("x"))
    details = [
        {"reasoning": piece, "reasoning_details": [{"type": "reasoning.text", "index": 0, "text": piece}]}
        for piece in ("h", "m")
    ]
    whole = [{"type": "reasoning.text", "index": 0, "text": "hm"}]
    assert assemble(*details) == (ReasoningPart("hm", data=json.dumps(whole, separators=(",", ":"))),)


@given(
    st.lists(st.sampled_from(["content", "reasoning_content"]).flatmap(lambda n: st.fixed_dictionaries({n: st.text()})))
)
def test_the_pieces_are_the_whole(deltas):
    content = assemble(*deltas)
    parts = content if isinstance(content, tuple) else (TextPart(content),)
    for name, kind in (("content", TextPart), ("reasoning_content", ReasoningPart)):
        whole = "".join(chain.from_iterable(delta.values() for delta in deltas if name in delta))
        assert "".join(part.text for part in parts if isinstance(part, kind)) == whole
