"""Programs that tell what their calls write: over HTTP, through every layer, with nothing left when nobody reads."""

from __future__ import annotations

import asyncio
import gc
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import promptgrad as pg
from promptgrad import aio, lm, nn, run
from promptgrad.adapters import ChatAdapter, ReplyFeed, get_adapter, template
from promptgrad.errors import AsyncUsageError, InputError, LMReplyError, ParseError
from promptgrad.lm._thinking import _SIGNS
from promptgrad.nn._hearing import HeardCall
from promptgrad.nn._mailbox import Mailbox
from promptgrad.signature import make_signature
from promptgrad.testing import Cut, LoopbackLM, Reply, Status
from tests import waiting

from tests.adapters.test_feed import PIECES  # isort: skip

CHAT = "[[ ## reasoning ## ]]\nIt is well known.\n\n[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"


def slow(messages):
    """The first word comes, and then nothing."""
    return Reply("[[##reasoning##]]Well, that takes time.", pace=3600.0)


@pytest.fixture
def server():
    with LoopbackLM(CHAT) as server:
        yield server


def layered(server, **options):
    return pg.LM("openai/m", base_url=server.url, api_key="none", prices=(1.0, 2.0), **options)


def solver(model):
    return nn.ChainOfThought("question -> answer").to(model)


async def listen(program, *args, **inputs):
    return [event async for event in program.stream(*args, **inputs)]


def collect(program, *args, **inputs):
    return asyncio.run(listen(program, *args, **inputs))


def texts(events, call=0):
    """The text of each field of a call since what was void."""
    told = {}
    for event in events:
        if isinstance(event, nn.StreamEvent) and event.call == call:
            if isinstance(event, nn.Voided):
                told.clear()
            if isinstance(event, nn.FieldDelta):
                told[event.field] = told.get(event.field, "") + event.delta
    return told


def kinds(events):
    """The names of the events in their order, each once where several come in a row."""
    names = [type(event).__name__ for event in events]
    return [name for place, name in enumerate(names) if place == 0 or names[place - 1] != name]


# --- what is told ---


def test_the_text_of_each_field_comes_as_it_is_written(server):
    model = solver(layered(server))
    *events, last = collect(model, question="capital?")
    assert [(e.field, e.delta) for e in events if isinstance(e, nn.FieldDelta)] == [
        ("reasoning", "It"),
        ("reasoning", " is"),
        ("reasoning", " well"),
        ("reasoning", " known."),
        ("answer", "Paris"),
    ]
    assert kinds(events) == ["CallBegun", "FieldDelta", "FieldFinished", "FieldDelta", "FieldFinished", "CallEnded"]
    assert {(e.path, e.call) for e in events} == {("", 0)}
    assert events[0] == nn.CallBegun("", 0, "openai/m")
    assert [(e.field, e.value) for e in events if isinstance(e, nn.FieldFinished)] == list(last.items())
    assert events[-1].usage == last.usage
    assert last == nn.Prediction(reasoning="It is well known.", answer="Paris")
    assert repr(events[1]) == "FieldDelta(path='', call=0, field='reasoning', delta='It')"


def test_the_events_of_plain_code_are_the_same(server):
    model = solver(layered(server).transport)
    stream = model.stream_sync(question="capital?")
    assert repr(stream) == "<EventIterator of ChainOfThought, not begun>"
    with pytest.raises(AsyncUsageError, match="read it to its end"):
        _ = stream.output
    events = list(stream)
    assert [event for event in events if not isinstance(event, nn.CallEnded)] == [
        event for event in collect(model, question="capital?") if not isinstance(event, nn.CallEnded)
    ]
    assert stream.output is events[-1]
    assert list(stream) == []
    assert repr(stream) == "<EventIterator of ChainOfThought, over>"


def test_the_wrong_loop_is_told_the_right_one(server):
    program = solver(layered(server))

    async def awaited():
        return await program.stream(question="q")

    async def looped():
        return [event async for event in program.stream_sync(question="q")]

    with pytest.raises(AsyncUsageError, match=r"plain code reads program.stream_sync\(...\) by `for`"):
        list(program.stream(question="q"))
    with pytest.raises(AsyncUsageError, match=r"write `await program.acall\(...\)`"):
        asyncio.run(awaited())
    with pytest.raises(AsyncUsageError, match=r"a coroutine reads program.stream\(...\) by `async for`"):
        asyncio.run(looped())
    assert server.requests == []


def test_a_second_reader_is_told_and_the_first_one_reads_on(server):
    model = solver(layered(server))

    async def both():
        stream = model.stream(question="?")
        first, *others = await asyncio.gather(*[stream.__anext__() for _ in range(3)], return_exceptions=True)
        return [first, *[event async for event in stream]], others

    events, others = asyncio.run(both())
    assert [type(event) for event in events[:: len(events) - 1]] == [nn.CallBegun, nn.Prediction]
    assert texts(events) == {"reasoning": "It is well known.", "answer": "Paris"}
    for error in others:
        assert isinstance(error, AsyncUsageError)
        assert "make a stream for each" in str(error)


def test_plain_code_streams_where_a_loop_is_running(server):
    async def cell():  # of a notebook
        return list(solver(layered(server)).stream_sync("capital?"))

    assert asyncio.run(cell())[-1].answer == "Paris"


class Pair(nn.Module):
    """Two rows side by side, and then one call of what they gave."""

    def __init__(self):
        super().__init__()
        self.part = nn.ModuleDict({"solve": nn.Predict("question -> answer")})
        self.join = nn.Predict("answers: list[str] -> summary")

    def forward(self, questions):
        rows = self.part["solve"].map([{"question": question} for question in questions])
        return self.join(answers=[row.answer for row in rows]).summary


def by_words(messages):
    return "\n\n".join(f"[[ ## {name} ## ]]\n{name} of it" for name in ("answer", "summary")) + "\n"


def test_calls_side_by_side_are_told_apart():
    model = Pair().to(lm.FunctionLM(lambda messages: by_words(messages), name="f"))
    events = collect(model, questions=["a", "b", "c"])
    assert events[-1] == "summary of it"
    begun = {event.call: event.path for event in events if isinstance(event, nn.CallBegun)}
    assert begun == {0: "part.solve", 1: "part.solve", 2: "part.solve", 3: "join"}
    ended = [event for event in events if isinstance(event, nn.CallEnded)]
    assert sorted(event.call for event in ended) == [0, 1, 2, 3]
    assert {event.path for event in events[:-1] if event.call == 3} == {"join"}
    for call in range(3):
        assert texts(events, call) == {"answer": "answer of it"}
    assert texts(events, 3) == {"summary": "summary of it"}


def test_an_async_forward_runs_on_the_loop_of_its_reader():
    loops = []

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.solve = nn.Predict("question -> answer")

        async def forward(self, question):
            loops.append(asyncio.get_running_loop())
            both = [self.solve.acall(question=question), self.solve.acall(question=question)]
            return [reply.answer for reply in await asyncio.gather(*both)]

    async def answer(messages):
        loops.append(asyncio.get_running_loop())
        yield "[[ ## answer ## ]]\nyes "
        yield "and no\n"

    async def main():
        events = await listen(Twice().to(lm.FunctionLM(answer, name="f")), question="x")
        return events, asyncio.get_running_loop()

    events, loop = asyncio.run(main())
    assert set(loops) == {loop}
    assert events[-1] == ["yes and no"] * 2
    assert texts(events, 0) == texts(events, 1) == {"answer": "yes and no"}


def test_thoughts_are_apart(server):
    server.script(Reply(CHAT, reasoning="let me think"), f"<think>hm, [[ ## answer ## ]]\nno</think>\n{CHAT}")
    for thought in ("let me think", "hm, [[ ## answer ## ]]\nno"):
        events = collect(solver(layered(server).transport), question="capital?")
        assert "".join(e.delta for e in events if isinstance(e, nn.ThoughtDelta)) == thought
        assert texts(events) == {"reasoning": "It is well known.", "answer": "Paris"}
        assert not [event for event in events if isinstance(event, nn.Voided)]


def test_calls_of_tools_come_in_pieces(server):
    server.script(Reply(CHAT, tool_calls=[("look", {"place": "Paris"})]))
    pieces = [event for event in collect(solver(layered(server)), question="x") if isinstance(event, nn.ToolPiece)]
    assert (pieces[0].index, pieces[0].id, pieces[0].name) == (0, "call_0", "look")
    assert json.loads("".join(piece.arguments for piece in pieces)) == {"place": "Paris"}


def test_fields_in_the_arguments_of_a_call_come_as_they_are_written(server):
    said = {"reasoning": 'It is "well" known: caf\u00e9.', "answer": "Paris"}
    model = nn.ChainOfThought("question -> answer", adapter="tools").to(layered(server))
    server.script(Reply("I will reply. ", tool_calls=[("reply", said), ("reply", said)]), json.dumps(said))
    for whole in (False, True):  # by a call, and by an endpoint that takes no tools
        events = collect(model, question=f"capital? {whole}")
        assert texts(events) == said
        deltas = [event.field for event in events if isinstance(event, nn.FieldDelta)]
        assert deltas.count("reasoning") > 1
        assert not [event for event in events if isinstance(event, nn.Voided)]
        assert events[-1].answer == "Paris"


def test_lists_come_by_their_items_with_any_adapter_that_streams():
    reply = '{"note": "n", "tags": ["a", "b"], "answer": "x"}'
    model = nn.Predict("question -> note, tags: list[str], answer", adapter="json").to(
        lm.FunctionLM(lambda messages: reply, name="f")
    )
    events = collect(model, "x")
    assert [event.value for event in events if isinstance(event, nn.PartialValue)] == [["a"]]
    assert events[-1].tags == ["a", "b"]


class Plain(ChatAdapter):
    """An adapter that does not stream."""

    name = "plain"

    def make_format(self, signature):
        made = super().make_format(signature)
        made.feed = lambda: None
        return made


def test_of_an_adapter_that_does_not_stream_each_field_comes_whole(server):
    model = nn.ChainOfThought("question -> answer", adapter=Plain()).to(layered(server))
    events = collect(model, "x")
    assert [event.delta for event in events if isinstance(event, nn.FieldDelta)] == ["It is well known.", "Paris"]
    assert kinds(events)[-2:] == ["CallEnded", "Prediction"]


def test_an_adapter_that_fails_while_it_streams_fails_the_call(server):
    class Broken(ReplyFeed):
        def feed(self, text):
            raise LookupError("of the adapter")

    adapter = Plain()
    model = nn.ChainOfThought("question -> answer", adapter=adapter).to(layered(server))
    adapter.format(model.signature).feed = Broken
    adapter.format(model._signature).feed = Broken
    heard = []
    with pytest.raises(LookupError, match="of the adapter"):
        heard.extend(model.stream_sync("another"))  # than the test above asked, of a server that had the same port
    assert model("another").answer == "Paris"
    assert server.received == 1


# --- replies that are void ---


def test_what_was_told_of_a_reply_that_does_not_parse_is_void():
    replies = [
        "[[ ## count ## ]]\nmany\n\n[[ ## note ## ]]\nfirst\n\n[[ ## completed ## ]]",
        "[[ ## count ## ]]\n3\n\n[[ ## note ## ]]\nsecond\n",
    ]
    model = nn.Predict("question -> count: int, note").to(lm.FunctionLM(lambda messages: replies.pop(0), name="f"))
    events = collect(model, "x")
    assert kinds(events) == [
        *("CallBegun", "FieldDelta", "FieldFinished", "Voided", "FieldFinished", "FieldDelta", "FieldFinished"),
        *("CallEnded", "Prediction"),
    ]
    (void,) = [event for event in events if isinstance(event, nn.Voided)]
    assert "`count`" in void.reason
    assert texts(events) == {"note": "second"}
    assert (events[-1].count, events[-1].note, events[-1].reasks) == (3, "second", 1)
    assert events[-2].usage.calls == 2


def test_a_call_that_fails_says_so(server):
    server.respond = "[[ ## count ## ]]\nmany\n\n[[ ## note ## ]]\nfirst\n\n[[ ## completed ## ]]"
    model = nn.Predict("question -> count: int, note", retries=0).to(layered(server))
    events = []
    with pytest.raises(ParseError, match="count"):
        events.extend(model.stream_sync("x"))
    assert kinds(events) == ["CallBegun", "FieldDelta", "FieldFinished", "Voided", "CallEnded"]
    assert events[-1].error.startswith("ParseError: the reply of openai/m")
    assert events[-1].usage.calls == 1


def test_an_input_that_is_missing_is_told_as_in_a_call():
    model = nn.Predict("question -> answer").to(lm.FunctionLM(lambda messages: "x", name="f"))
    with pytest.raises(InputError, match="missing"):
        collect(model, text="x")


def heard(adapter, signature, pieces):
    """The events of a call whose reply comes in these pieces, and its outputs."""
    compiled = get_adapter(adapter).compile(signature)
    box = Mailbox(10_000)
    call = HeardCall([(box, "", 0)])
    call.begin(compiled, lm.FunctionLM(len, name="f").acall)
    call._feed = compiled.feed()
    listener = lm.Listener(call._hear)
    for piece in pieces:
        listener.put(lm.TextDelta(piece))
    completion = compiled.answer(lm.Completion("".join(pieces)))
    listener.finish(completion)
    try:
        outputs = compiled.parse(completion)
    except ParseError as error:
        call.fail(error, lm.Usage())
        outputs = None
    else:
        call.end(outputs, lm.Usage())
    box.close()

    async def all_of_it():
        return [event async for event in iter_box()]

    async def iter_box():
        while (event := await box.take()) is not None:
            yield event

    return aio.drive(all_of_it()), outputs


@settings(max_examples=30, deadline=None)
@given(
    reply=st.lists(
        st.sampled_from([*PIECES, "\n[[ ## answer ## ]]\n", "\n[[ ## completed ## ]]\n", "[[ ## note ## ]]\n"]),
        max_size=9,
    ).map("".join),
    adapter=st.sampled_from(["chat", "json", "xml"]),
)
def test_whatever_the_reply_and_wherever_it_is_cut_the_deltas_are_the_fields(reply, adapter):
    signature = make_signature("question -> note, answer")
    for at in (*range(len(reply)), None):
        pieces = tuple(reply) if at is None else (reply[:at], reply[at:])
        events, outputs = heard(adapter, signature, pieces)
        told = {name: text for name, text in texts(events).items() if text}
        if outputs is None:
            assert told == {}
        else:
            assert told == {name: text for name, text in outputs.items() if text}
            last = max((place for place, e in enumerate(events) if isinstance(e, nn.Voided)), default=0)
            assert {e.field: e.value for e in events[last:] if isinstance(e, nn.FieldFinished)} == outputs


DIALECTS = [
    *(
        "<think>hm</think>\n",
        "<think>hm <think>or not</think> so</think>\n",
        "hm\n</think>\n",
        "[THINK]hm[/THINK]",
        "<reasoning>a</reasoning>",
        "```thinking\nhm\n```\n",
    ),
    *(
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>",
        "analysishm assistantfinal",
    ),
    *(
        "<details><summary>Thoughts</summary>hm</details>",
        "<|im_start|>assistant\n",
        "Thinking...\nhm...done thinking.",
    ),
    *(f"{opens}hm{closes}" for opens, closes in _SIGNS.items()),
]
ENDS = ["", "\n", "<|im_end|>", "\n<|eot_id|>", "</s>", "<|im_end|>\n<|im_start|>user\nno"]
FORMS = {
    **{name: get_adapter(name) for name in ("chat", "json", "xml", "compact", "tools", "two_step")},
    "template": template("{question} =>", reply="Why: {note}\n=> {answer}"),
    "places": template("{question}", reply="{note} || {answer}"),
}


@settings(max_examples=10, deadline=None)
@given(
    note=st.lists(st.sampled_from([*PIECES, "word "]), max_size=4).map("".join),
    answer=st.lists(st.sampled_from([*PIECES, "word "]), max_size=4).map("".join),
    before=st.sampled_from(["", *DIALECTS]),
    end=st.sampled_from(ENDS),
)
@pytest.mark.parametrize("form", FORMS)
def test_of_a_reply_as_asked_for_nothing_is_taken_back_in_any_dialect_of_thoughts(form, note, answer, before, end):
    """Cut anywhere: the deltas are the fields, and no event says that those before it are void."""
    signature = make_signature("question -> note, answer")
    try:
        written = FORMS[form].format(signature).assistant({"note": note, "answer": answer})
    except InputError:  # a template whose words stand in a text
        return
    reply = before + (written if isinstance(written, str) else written[0].arguments) + end
    shows_late = form == "places" and before.startswith("hm")  # an end without a beginning, before a text
    for at in (*range(0, len(reply), 1 + len(reply) // 40), None):
        pieces = tuple(reply) if at is None else (reply[:at], reply[at:])
        events, outputs = heard(FORMS[form], signature, pieces)
        told = {name: text for name, text in texts(events).items() if text}
        assert told == {name: text for name, text in (outputs or {}).items() if text}
        if outputs is not None and not shows_late:
            assert not any(isinstance(event, nn.Voided) for event in events), (reply, pieces)


# --- the same call ---


def test_a_streamed_call_is_a_plain_call(server, tmp_path):
    def journal(name, call):
        with run.Journal(tmp_path / name) as journal, run.active(journal=journal) as session:
            made = call(solver(lm.Cache(layered(server).transport)))
            return made, session.ledger.spent, journal.canonical()

    plain, spent, written = journal("plain.jsonl", lambda model: model(question="capital?"))
    streamed, spent_too, written_too = journal("stream.jsonl", lambda model: collect(model, question="capital?")[-1])
    assert streamed == plain
    assert written_too == written
    assert (spent_too.calls, spent_too.tokens, spent_too.usd) == (spent.calls, spent.tokens, spent.usd)
    assert (streamed.usage.tokens, streamed.usage.usd) == (plain.usage.tokens, plain.usage.usd)
    sent, sent_too = (request.json for request in server.requests)
    assert {name: sent_too[name] for name in sent} == sent
    assert set(sent_too) - set(sent) == {"stream", "stream_options"}


def test_replies_from_cache_journal_and_cassette_come_in_pieces(server, tmp_path):
    model = solver(lm.Cache(layered(server).transport))
    with (
        lm.record(tmp_path / "cassette.jsonl"),
        run.Journal(tmp_path / "j.jsonl") as journal,
        run.active(journal=journal),
    ):
        first = collect(model, question="capital?")
    again = collect(model, question="capital?")
    fresh = solver(layered(server).transport)
    with run.Journal(tmp_path / "j.jsonl") as journal, run.active(journal=journal):
        resumed = collect(fresh, question="capital?")
    with lm.replay(tmp_path / "cassette.jsonl"):
        replayed = list(fresh.stream_sync(question="capital?"))
    assert server.received == 1
    for events in (again, resumed, replayed):
        assert [event for event in events if isinstance(event, (nn.FieldDelta, nn.FieldFinished))] == [
            event for event in first if isinstance(event, (nn.FieldDelta, nn.FieldFinished))
        ]
        assert events[-1] == first[-1]
    assert again[-2].usage.cached == 1


def test_what_fails_before_the_first_piece_is_tried_again_and_later_it_is_not(server):
    async def no_wait(seconds):
        return None

    model = solver(lm.Retry(layered(server).transport, 3, sleep=no_wait))
    server.script(Status(500), CHAT, Cut(0.5, CHAT))
    assert texts(collect(model, "x")) == {"reasoning": "It is well known.", "answer": "Paris"}
    events = []
    with pytest.raises(LMReplyError, match="cut"):
        events.extend(model.stream_sync("y"))
    assert server.received == 3
    assert kinds(events)[-2:] == ["Voided", "CallEnded"]
    assert texts(events) == {}


def test_a_streamed_prediction_has_its_gradient():
    model = nn.Predict("question -> answer").to(lm.FunctionLM(lambda messages: "[[ ## answer ## ]]\nno\n", name="f"))
    events = collect(model, question="x")
    last = events[-1]
    assert last.grad_fn.path == ""
    assert last.grad_fn.usage == last.usage
    example = pg.Example(question="x", answer="yes").with_inputs("question")
    loss = nn.MetricLoss(lambda example, output: pg.Score(0.0, "say yes"))([last], [example])
    loss.backward()
    assert "say yes" in str(model.instruction.grad)
    with pg.no_grad():
        assert collect(model, question="x")[-1].grad_fn is None


def test_a_plain_call_has_no_listener_and_history_keeps_none(server):
    seen = []

    def answer(request: lm.Request):
        seen.append(request.listener)
        return CHAT

    model = solver(lm.FunctionLM(answer, name="f"))
    model(question="x")
    collect(model, question="x")
    assert seen[0] is None
    assert isinstance(seen[1], lm.Listener)
    assert [call.request.listener for call in pg.inspect_history(2)] == [None, None]


def test_the_context_is_that_in_which_the_stream_was_made():
    model = nn.Predict("question -> answer")
    with pg.context(lm=lm.FunctionLM(lambda messages: "[[ ## answer ## ]]\nhere\n", name="here")):
        stream = model.stream_sync("x")
    assert list(stream)[-1].answer == "here"


def test_a_program_that_streams_a_part_of_itself_is_heard_in_both():
    inner = []

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Predict("question -> answer")

        async def forward(self, question):
            inner.extend([event async for event in self.part.stream(question=question)])
            return inner[-1]

    model = Outer().to(lm.FunctionLM(lambda messages: "[[ ## answer ## ]]\na b\n", name="f"))
    events = collect(model, question="x")
    assert texts(events) == texts(inner) == {"answer": "a b"}
    assert {event.path for event in inner[:-1]} == {""}
    assert {event.path for event in events[:-1]} == {"part"}
    assert events[-1].grad_fn.path == "part"


# --- readers that leave ---


async def until_it_writes(stream):
    async for event in stream:
        if isinstance(event, nn.FieldDelta):
            return event.delta


def test_leaving_the_loop_ends_the_request(server):
    server.respond = slow
    model = solver(layered(server))

    async def leave(how):
        stream = model.stream(question=how)
        if how == "break":
            async for event in stream:
                if isinstance(event, nn.FieldDelta):
                    assert server.in_flight == 1
                    break
        elif how == "aclose":
            while not isinstance(await anext(stream), nn.FieldDelta):
                pass
            await stream.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        elif how == "async with":
            async with stream:
                assert await until_it_writes(stream) == "Well,"
        elif how == "dropped":
            while not isinstance(await anext(stream), nn.FieldDelta):
                pass
            assert server.in_flight == 1
            del stream
        else:
            task = asyncio.ensure_future(listen(model, question=how))
            await asyncio.to_thread(server.wait_for, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await waiting.turns()
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    for how in ("break", "aclose", "async with", "dropped", "cancelled"):
        server.reset()
        assert asyncio.run(leave(how)) == [], how
        server.wait_idle()
        assert (server.received, model.lm.stats()["in_flight"]) == (1, 0), how


def test_a_plain_loop_that_is_left_ends_the_request(server):
    server.respond = slow

    class Program(nn.Module):
        def __init__(self):
            super().__init__()
            self.solve = nn.ChainOfThought("question -> answer")

        def forward(self, question):
            return self.solve(question=question)

    for model in (solver(layered(server)), Program().to(layered(server))):
        server.reset()
        for event in model.stream_sync(question="break"):
            if isinstance(event, nn.FieldDelta):
                assert server.in_flight == 1
                break
        server.wait_idle()
        with model.stream_sync(question="with") as stream:
            while not isinstance(next(stream), nn.FieldDelta):
                pass
            assert server.in_flight == 1
        server.wait_idle()
        waiting.until(lambda model=model: model.lm.stats()["in_flight"] == 0)
        assert server.received == 2
        assert list(stream) == []


def test_ctrl_c_in_the_reader_ends_the_program():
    ended = []

    async def answer(messages):
        try:
            yield "[[ ## answer ## ]]\nParis "
            await waiting.interrupted()
        finally:
            ended.append(True)

    stream = nn.Predict("question -> answer").to(lm.FunctionLM(answer, name="f")).stream_sync(question="x")
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    waiting.until(lambda: ended)
    assert list(stream) == []


def test_a_stream_that_is_garbage_ends_its_program_in_order():
    ended = []

    async def answer(messages):
        try:
            yield "[[ ## answer ## ]]\nParis "
            await asyncio.Event().wait()
        except BaseException as error:
            ended.append(type(error))
            raise

    stream = nn.Predict("question -> answer").to(lm.FunctionLM(answer, name="f")).stream_sync(question="x")
    while not isinstance(next(stream), nn.FieldDelta):
        pass
    ring = [stream]
    ring.append(ring)
    del stream, ring
    gc.collect()
    waiting.until(lambda: ended)
    assert ended == [asyncio.CancelledError]


class Gathered(nn.Module):
    def __init__(self):
        super().__init__()
        self.solve = nn.ChainOfThought("question -> answer")

    async def forward(self, question):
        return await asyncio.gather(*[self.solve.acall(question=f"{question} {n}") for n in range(3)])


class Mapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.solve = nn.ChainOfThought("question -> answer")

    def forward(self, question):
        return self.solve.map([{"question": f"{question} {n}"} for n in range(3)])


@pytest.mark.parametrize("program", [Gathered, Mapped])
def test_leaving_the_loop_ends_all_calls_of_a_program(server, program):
    server.respond = slow
    model = program().to(layered(server))

    async def leave():
        async with model.stream(question="x") as stream:
            async for event in stream:
                if isinstance(event, nn.FieldDelta):
                    await asyncio.to_thread(server.wait_for, 3)
                    break
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert asyncio.run(leave()) == []
    server.wait_idle()
    waiting.until(lambda: model.lm.stats()["in_flight"] == 0)
    assert server.in_flight_high_water == 3


def test_a_stream_that_is_left_is_a_lost_call_of_its_run(server):
    server.respond = slow

    async def leave(model):
        async with model.stream(question="x") as stream:
            assert await until_it_writes(stream) == "Well,"

    with run.active() as session:
        asyncio.run(leave(solver(layered(server))))
        (failure,) = [event for event in session.journal.events() if event["kind"] == "fail"]
        assert failure["lost"]
        assert session.ledger.spent.calls == 0


def test_many_streams_at_once(server):
    server.respond = lambda messages: CHAT.replace("Paris", messages[-1]["content"].splitlines()[1])
    model = solver(layered(server, concurrency=64))

    async def main():
        return await asyncio.gather(*[listen(model, question=f"place {n}") for n in range(64)])

    for n, events in enumerate(asyncio.run(main())):
        assert texts(events) == {"reasoning": "It is well known.", "answer": f"place {n}"}
        assert events[-1].answer == f"place {n}"
    assert server.received == 64


def test_64_readers_that_leave_end_64_requests(server):
    server.respond = slow
    model = solver(layered(server, concurrency=64))

    async def leave(number):
        async for event in model.stream(question=f"place {number}"):
            if isinstance(event, nn.FieldDelta):
                break

    async def main():
        await asyncio.gather(*map(leave, range(64)))
        await waiting.turns()
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert asyncio.run(main()) == []
    server.wait_idle()
    assert (server.received, model.lm.stats()["in_flight"]) == (64, 0)


def test_what_64_streams_hold_does_not_grow_with_the_pieces_that_have_passed():
    """Counted in objects: of a piece nothing stays but its text, and of a stream that is over or left nothing."""
    told, counts, marks = 0, [], (300, 1_000)

    async def answer(messages):
        yield "[[ ## answer ## ]]\n"
        for n in range(1_100):
            yield f"word{n} "
            await asyncio.sleep(0)

    model = nn.Predict("question -> answer").to(lm.FunctionLM(answer, name="f"))

    def held():
        gc.collect()
        return len(gc.get_objects())

    async def listen_and_count(number, leaves=0):
        nonlocal told
        seen = 0
        async for event in model.stream(question=f"place {number}"):
            if isinstance(event, nn.FieldDelta):
                seen, told = seen + 1, told + 1
                if told in [64 * mark for mark in marks]:
                    counts.append(held())
                if seen == leaves:
                    break
        return seen

    async def main():
        await listen_and_count("before")
        at_rest, tasks = held(), len(asyncio.all_tasks())
        for leaves in (0, 20):
            seen = await asyncio.gather(*[listen_and_count(f"{n}, {leaves}", leaves) for n in range(64)])
            assert set(seen) == {leaves or 1_100}
            await waiting.turns()
            assert len(asyncio.all_tasks()) == tasks
            history = 64 * 8  # of each call, what `inspect_history` shows; more calls push it out
            assert held() - at_rest < history

    asyncio.run(main())
    assert counts[1] - counts[0] < 64  # 44,800 pieces passed between them


# --- readers that are behind ---


def test_texts_are_joined_where_the_reader_is_behind():
    words = [f"word{n} " for n in range(5_000)]

    async def answer(messages):
        yield "[[ ## answer ## ]]\n"
        for word in words:
            yield word

    async def main():
        stream = nn.Predict("question -> answer").to(lm.FunctionLM(answer, name="f")).stream(question="x")
        events = [await anext(stream)]
        await waiting.turns()
        waits = len(stream._streamed.mailbox)
        return [*events, *[event async for event in stream]], waits

    events, waits = asyncio.run(main())
    assert waits <= 260
    assert len(events) <= 270
    assert texts(events) == {"answer": "".join(words).strip()}


def test_a_program_that_is_ahead_waits_before_its_next_call():
    asked = []

    def answer(messages):
        asked.append(messages)
        return "[[ ## answer ## ]]\n" + "word " * 50

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.solve = nn.Predict("question -> answer")

        def forward(self, times):
            return [self.solve(question=str(n)).answer for n in range(times)]

    stream = Loop().to(lm.FunctionLM(answer, name="f")).stream_sync(times=60)
    next(stream)
    box = stream._streamed.mailbox
    waiting.until(lambda: box._writers)
    ahead = len(asked)
    assert ahead <= 6
    assert len(box) <= 260 + 60
    rest = list(stream)
    assert len(asked) == len(rest[-1]) == 60


def test_the_mailbox_keeps_events_of_different_fields_apart():
    box = Mailbox(2)
    for event in (
        nn.FieldDelta("", 0, "a", "1"),
        nn.FieldDelta("", 0, "a", "2"),
        nn.FieldDelta("", 0, "a", "3"),
        nn.FieldDelta("", 1, "a", "x"),
        nn.FieldDelta("", 0, "a", "4"),
        nn.PartialValue("", 0, "b", [1]),
        nn.PartialValue("", 0, "b", [1, 2]),
        nn.ThoughtDelta("", 1, "hm"),
        nn.ToolPiece("", 2, 0, "id", "go", "{"),
        nn.ToolPiece("", 2, 0, arguments="}"),
        nn.ToolPiece("", 2, 1, "id", "go", "{"),
        nn.FieldFinished("", 0, "a", "1234"),
        nn.FieldDelta("", 0, "a", "5"),
    ):
        box.put(event)
    box.close()
    box.put(nn.ThoughtDelta("", 0, "too late"))

    async def all_of_it():
        taken = []
        while (event := await box.take()) is not None:
            taken.append(event)
        return taken

    assert aio.drive(all_of_it()) == [
        nn.FieldDelta("", 0, "a", "1"),
        nn.FieldDelta("", 0, "a", "234"),
        nn.FieldDelta("", 1, "a", "x"),
        nn.PartialValue("", 0, "b", [1, 2]),
        nn.ThoughtDelta("", 1, "hm"),
        nn.ToolPiece("", 2, 0, "id", "go", "{}"),
        nn.ToolPiece("", 2, 1, "id", "go", "{"),
        nn.FieldFinished("", 0, "a", "1234"),
        nn.FieldDelta("", 0, "a", "5"),
    ]


def test_a_blocking_stream_inside_a_coroutine_of_ours_is_refused():
    class Wrong(nn.Module):
        def __init__(self):
            super().__init__()
            self.solve = nn.Predict("question -> answer")

        async def forward(self, question):
            return list(self.solve.stream_sync(question=question))

    with pytest.raises(AsyncUsageError, match=r"async for event in module\.stream"):
        Wrong().to(lm.FunctionLM(lambda messages: "x", name="f"))(question="x")


def test_a_slip_from_dspy_is_pointed_to_the_right_name():
    with pytest.raises(AttributeError, match=r"module\.stream"):
        _ = nn.Predict("question -> answer").streamify
