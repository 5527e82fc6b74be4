"""Tools of local models: what the chat template is given, and what a reply with calls is read as."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

import promptgrad as pg
from promptgrad import aio, lm, nn
from promptgrad.errors import InputError
from promptgrad.lm import Listener, Message, Request, TextDelta, TextPart, ToolCall, ToolResult
from promptgrad.lm._local_tools import CallFeed, of_message, read_calls

pytest.importorskip("torch")
pytest.importorskip("transformers")

TEMPLATE = (
    "{% if tools %}<s>system\nTools:{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}\n"
    "Answer with <tool_call>{...}</tool_call><|end|>\n{% endif %}"
    "{% for m in messages %}<s>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}"
    "{% if m.name %} ({{ m.name }}){% endif %}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def random_schemas() -> Any:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
    try:
        import random_schemas
    finally:
        sys.path.pop(0)
    return random_schemas


@pytest.fixture(scope="module")
def pieces(random_schemas: Any) -> Any:
    """A model that writes at random, and the tokenizer of one that knows tools."""
    tokenizer = random_schemas.byte_tokenizer(500)
    tokenizer.chat_template = TEMPLATE
    return random_schemas.byte_model(tokenizer), tokenizer


@pytest.fixture
def local(pieces: Any) -> Any:
    made = lm.Local(*pieces, name="bytes", temperature=1.0, max_tokens=80, threads=1)
    yield made
    made.close()


def weather(city: str, days: Literal[1, 2, 3] = 1) -> str:
    """The weather in a city."""
    return f"sunny in {city} for {days}"


WEATHER = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]


def prompt(model: lm.Local, request: Request) -> str:
    return str(model.tokenizer.decode(model.encode(request)))


def test_the_template_declares_the_tools_and_writes_calls_and_results(local: lm.Local) -> None:
    request = Request.of(
        [
            Message("user", "and?"),
            Message(
                "assistant", (lm.ReasoningPart("hm"), TextPart("Let me see."), ToolCall("1", "weather", '{"a": 1}'))
            ),
            Message("tool", (ToolResult("1", "sunny"),)),
            Message("tool", (ToolResult("2", (TextPart("no "), TextPart("wind")), is_error=True),)),
        ],
        tools=WEATHER,
    )
    told = prompt(local, request)
    assert told.startswith(f"<s>system\nTools:{json.dumps(WEATHER[0])}")
    assert '<think>hm</think>Let me see.<tool_call>{"name": "weather", "arguments": {"a": 1}}</tool_call>' in told
    assert "<s>tool\nsunny (weather)<|end|>" in told
    assert "<s>tool\nError: no wind<|end|>" in told
    assert told.endswith("<s>assistant\n")
    assert "Tools:" not in prompt(local, request.replace(tool_choice="none"))
    text, offsets = local.offsets(request)
    assert text == told
    assert len(offsets) == len(local.encode(request))


def test_tools_count_in_the_shared_beginning_of_prompts(local: lm.Local) -> None:
    prefix = lm.Prefix([Message("system", "Be brief.")])
    asked = [Request(prefix, (Message("user", text),), max_tokens=3, temperature=0.0) for text in ("a", "b", "c")]
    with_tools = [request.replace(tools=WEATHER) for request in asked]
    alone = lm.Local(local.model, local.tokenizer, name="alone", threads=1)
    for request in (*asked, *with_tools, *asked):
        fresh = lm.Local(local.model, local.tokenizer, name="fresh", threads=1)
        assert alone(request).text == fresh(request).text
        fresh.close()
    alone.close()


def test_calls_are_read_as_the_model_writes_them() -> None:
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome", "deep": {"a": [1]}}}\n</tool_call>'
    assert read_calls("plain text", "c") == "plain text"
    assert read_calls(call, "c") == (ToolCall("c_0", "weather", '{"city": "Rome", "deep": {"a": [1]}}'),)
    exact = '<tool_call>\n{"name": "pay", "arguments": {"sum":0.10, "most": 1e999}}\n</tool_call>'
    assert read_calls(exact, "c") == (ToolCall("c_0", "pay", '{"sum":0.10, "most": 1e999}'),)  # its very digits
    found = read_calls(f"Let me see.\n{call}\n{call} done", "c")
    assert [str(part) for part in found] == [
        "Let me see.",
        "done",
        *['<call weather({"city": "Rome", "deep": {"a": [1]}})>'] * 2,
    ]
    assert len({part.id for part in found if isinstance(part, ToolCall)}) == 2
    (cut,) = read_calls('<tool_call>{"name": "weather", "parameters": {}}', "c")
    assert cut == ToolCall("c_0", "weather", "{}")
    for bad in ("<tool_call>{no json}</tool_call>", '<tool_call>{"name": 3}</tool_call>', "<tool_call>[1]</tool_call>"):
        assert read_calls(bad, "c") == bad


CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome", "at": [1]}}\n</tool_call>'


@pytest.mark.parametrize(
    "text",
    [
        "plain text",
        CALL,
        f"Let me see.\n{CALL}\n{CALL} done ",
        f" a <b> <tool {CALL}",
        f"x {CALL[:-12]}",
        f"x {CALL[:30]}",
        "x <tool_call>{no json}</tool_call> y <tool_call>[1]</tool_call>",
        f"<tool_call>3</tool_call>\n\n{CALL}<tool",
        "",
    ],
)
def test_a_stream_of_calls_is_what_is_read_of_the_whole_wherever_it_is_cut(text: str) -> None:
    whole = read_calls(text, "c")
    parts = (TextPart(whole),) if isinstance(whole, str) else whole
    calls = [part for part in parts if isinstance(part, ToolCall)]
    said = "".join(part.text for part in parts if isinstance(part, TextPart))
    for cut in range(len(text) + 1):
        heard: list[lm.Delta] = []
        feed = CallFeed(Listener(heard.append), "c")
        for piece in (text[:cut], *text[cut:]):  # and then sign by sign
            feed.put(TextDelta(piece))
        feed.close()
        told = [delta for delta in heard if isinstance(delta, lm.ToolCallDelta)]
        assert [(one.id, one.name, one.arguments) for one in told] == [(c.id, c.name, c.arguments) for c in calls]
        assert [one.index for one in told] == list(range(len(calls)))
        spoken = "".join(delta.text for delta in heard if isinstance(delta, TextDelta))
        assert spoken == (said.strip() if isinstance(whole, str) else said)


def test_a_local_model_streams_its_calls(local: lm.Local) -> None:
    request = Request.of("and?", tools=WEATHER, tool_choice="required", max_tokens=60, temperature=1.0)

    async def collect() -> list[lm.Event]:
        return [event async for event in local.stream(request)]

    *deltas, completion = aio.run(collect())
    assert isinstance(completion, lm.Completion)
    told = [delta for delta in deltas if isinstance(delta, lm.ToolCallDelta)]
    assert [(one.id, one.name, one.arguments) for one in told] == [
        (call.id, call.name, call.arguments) for call in completion.tool_calls
    ]
    assert "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)).strip() == completion.text.strip()


def test_a_message_of_transformers_becomes_parts() -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
    found = of_message({"reasoning_content": "hm", "content": "so", "tool_calls": [call]}, "c")
    assert found == (lm.ReasoningPart("hm"), TextPart("so"), ToolCall("c_0", "weather", '{"city": "Rome"}'))
    (most,) = of_message({"tool_calls": [{"function": {"name": "pay", "arguments": {"most": float("inf")}}}]}, "c")
    assert most.arguments == '{"most": Infinity}'  # a reply that is read and refused, no error of ours
    assert of_message({"content": "so"}, "c") == "so"
    assert of_message({}, "c") == ""


def test_a_call_that_has_to_be_made_is_made(local: lm.Local) -> None:
    pytest.importorskip("llguidance")
    model = nn.Predict(
        "text -> kind: Kind, sure: bool", types={"Kind": Literal["ham", "spam"]}, adapter="tools", retries=0
    ).to(local)
    batch = model.map([{"text": "a"}, {"text": "b"}], n=3)
    assert not batch.errors
    assert {type(output.sure) for output in batch} == {bool}
    assert {output.kind for output in batch} <= {"ham", "spam"}
    node = batch.rows[0].tape.nodes[0]
    assert node.reply == ""
    asked = Request.of("a", tools=[*WEATHER, tool("other")], tool_choice="required")
    names = {local(asked, replicate=number).tool_calls[0].name for number in range(8)}
    assert names <= {"weather", "other"}
    found = local(asked.replace(tool_choice={"type": "function", "function": {"name": "other"}}))
    assert ([call.name for call in found.tool_calls], found.text) == (["other"], "")
    (event,) = [event for event in stream(local, asked) if isinstance(event, lm.ToolCallDelta)]
    assert event.name in names | {"weather", "other"}


def tool(name: str) -> Any:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}


def stream(model: lm.LM, request: Request) -> list[Any]:
    from promptgrad import aio

    async def events() -> list[Any]:
        return [event async for event in model.stream(request)]

    return aio.run(events())


def test_a_tool_of_a_signature_is_called_and_its_result_goes_back(local: lm.Local) -> None:
    pytest.importorskip("llguidance")
    step = nn.Predict("question, tools: list[Tool] -> call: ToolCall", retries=0).to(local)
    found = step(question="a", tools=[pg.Tool(weather)])
    assert found.call.name == "weather"
    assert found.call.kwargs.get("days", 1) in (1, 2, 3)
    again = [Message("assistant", (found.call,)), Message("tool", (ToolResult(found.call.id, "sunny"),))]
    assert "sunny (weather)" in prompt(local, Request.of(again, tools=WEATHER))


def test_a_template_without_a_place_for_tools_refuses_them(pieces: Any) -> None:
    model, tokenizer = pieces
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    for template in (plain.chat_template, None):
        plain.chat_template = template
        local = lm.Local(model, plain, name="plain", threads=1, max_tokens=2)
        with pytest.raises(InputError, match="'plain' has no place for tools"):
            local(Request.of("a", tools=WEATHER))
        with pytest.raises(InputError, match="'plain' has no place for tools"):
            local(Request.of([Message("tool", (ToolResult("1", "x"),))]))
        assert local("a", tools=WEATHER, tool_choice="none").usage.calls == 1
        local.close()


def test_a_response_template_of_the_tokenizer_reads_the_reply(pieces: Any) -> None:
    utils = pytest.importorskip("transformers.utils.chat_parsing")
    assert utils.parse_response
    model, tokenizer = pieces

    class Parsing:
        """A tokenizer with a response template, as transformers 5.13 and later have it."""

        response_template = {"fields": {}}  # noqa: RUF012

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return tokenizer(*args, **kwargs)

        def parse_response(self, ids: list[int], *, prefix: list[int], tools: list[Any]) -> dict[str, Any]:
            assert prefix[: len(ids)] != ids
            assert tools == WEATHER
            return {"content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {"n": len(ids)}}}]}

    local = lm.Local(model, Parsing(), name="parsing", threads=1, constrain=False, max_tokens=4)
    found = local(Request.of("a", tools=WEATHER))
    assert found.tool_calls[0].kwargs == {"n": found.usage.output_tokens}
    local.close()
