"""Native tool calls: as the form of a reply, and as fields of a signature."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal

import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import promptgrad as pg
from promptgrad import nn
from promptgrad.adapters import Tool, get_adapter
from promptgrad.data import Example
from promptgrad.errors import ParseError, RefusalError, SignatureError, ToolCallError
from promptgrad.lm import HTTP, Completion, Request, TextPart, ToolCall
from promptgrad.signature import Field, Signature, make_signature
from promptgrad.testing import LoopbackLM, Reply
from tests.adapters.test_roundtrip import CASES, same

TOOLS = get_adapter("tools")
KINDS = {"Tool": Tool, "ToolCall": ToolCall}


@dataclasses.dataclass
class Place:
    city: str
    country: str | None = None


class Filter(pydantic.BaseModel):
    year: int
    tags: list[str] = []


def search(query: str, k: int = 3, kind: Literal["web", "news"] = "web", filter: Filter | None = None) -> list[str]:
    """Find pages.

    The best come first.

    Args:
        query: What to look for.
        k (int): How many,
            at most.

    Returns:
        Their addresses.
    """
    return [f"{kind}:{query}:{number}" for number in range(k)]


async def weather(place: Place) -> str:
    """The weather at a place."""
    return f"sunny in {place.city}"


def call(name: str, id: str = "c1", **arguments: Any) -> ToolCall:
    return ToolCall(id, name, json.dumps(arguments))


# ---- Tool


def test_a_schema_from_hints_and_docstring() -> None:
    tool = Tool(search)
    assert (tool.name, tool.description, tool.required) == ("search", "Find pages.\n\nThe best come first.", ("query",))
    schema = tool.to_dict()["parameters"]
    assert schema["required"] == ["query"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["query"] == {"type": "string", "description": "What to look for."}
    assert schema["properties"]["k"] == {"type": "integer", "description": "How many, at most."}
    assert schema["properties"]["kind"] == {"enum": ["web", "news"], "type": "string"}
    assert "Filter" in schema["$defs"]
    assert repr(Tool(weather)) == "Tool(weather(place: Place): The weather at a place.)"
    renamed = Tool(search, name="find", description="Finds.", arguments={"kind": "of page"})
    assert (renamed.name, renamed.description) == ("find", "Finds.")
    assert renamed.fields["kind"].description == "of page"


def test_calls_are_read_as_replies_are() -> None:
    tool = Tool(search)
    assert tool.read(call("search", query="cats", k="5")) == {"query": "cats", "k": 5}
    nearly = ToolCall("c", "search", '{\'query\': \'cats\', "kind": "News", "filter": {"Year": "1999"},}')
    assert tool.read(nearly) == {"query": "cats", "kind": "news", "filter": Filter(year=1999)}
    assert tool.checked(nearly).kwargs == {"query": "cats", "kind": "news", "filter": {"year": 1999, "tags": []}}
    assert tool.run(call("search", query="x", k=1)) == ["web:x:0"]
    assert Tool(weather).run(call("weather", place={"city": "Rome"})) == "sunny in Rome"
    assert tool("y", k=1) == ["web:y:0"]


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (call("search", k=1), "argument `query` is missing"),
        (call("search", query="x", page=2), "no argument `page`; it has `query`, `k`, `kind`, `filter`"),
        (call("search", query="x", k="many"), "`k`"),
        (call("search", query=3), "`query` must be str, not int"),
        (ToolCall("c", "search", "[1]"), "no JSON object"),
        (ToolCall("c", "search", "{" * 90_000), "no JSON object"),
        (call("other", query="x"), "not the tool `other`"),
    ],
)
def test_calls_that_do_not_fit(made: ToolCall, reason: str) -> None:
    with pytest.raises(ToolCallError, match=reason):
        Tool(search).read(made)


def untyped(a, b: int) -> None:  # type: ignore[no-untyped-def]
    pass


def many(*words: str) -> None:
    pass


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Tool(untyped), "'a' of the tool 'untyped' has no type"),
        (lambda: Tool(many), "cannot be passed by name"),
        (lambda: Tool(lambda: 1), "a tool has a name"),
        (lambda: Tool(search, arguments={"q": "x"}), "has no argument 'q'"),
    ],
)
def test_functions_that_are_no_tools(make: Any, words: str) -> None:
    with pytest.raises(SignatureError, match=words):
        make()


def test_a_tool_that_is_declared_alone() -> None:
    declared = Tool.of(Tool(search).to_dict())
    assert declared.to_dict() == Tool(search).to_dict()
    assert declared.read(call("search", query="x")) == {"query": "x"}
    with pytest.raises(ToolCallError, match="has no function here"):
        declared.run(call("search", query="x"))
    with pytest.raises(TypeError, match="no function here"):
        declared("x")
    assert Tool.of({"type": "function", "function": {"name": "a"}}).read(call("a", b=1)) == {"b": 1}
    with pytest.raises(ValueError, match="a tool is a Tool, a function or a mapping"):
        Tool.of(3)
    assert Tool(search) == Tool(search) != declared


# ---- tools and calls as fields


def answer_with(*calls: ToolCall, text: str = "") -> Completion:
    return Completion((*([TextPart(text)] if text else []), *calls), finish_reason="tool_calls")


def test_tools_in_and_calls_out_over_http() -> None:
    step = nn.Predict("question, tools: list[Tool] -> calls: list[ToolCall]", adapter="chat")
    with LoopbackLM() as server:
        asked = [("search", {"query": "cats", "k": "2"}), ("weather", {"place": {"city": "Oslo"}})]
        server.script(Reply(tool_calls=asked))
        found = step(question="?", tools=[search, Tool(weather)], lm=HTTP("m", server.url))
        body = server.requests[-1].json
    oslo = {"city": "Oslo", "country": None}
    assert found.calls == [call("search", "call_0", query="cats", k=2), call("weather", "call_1", place=oslo)]
    assert [tool["function"]["name"] for tool in body["tools"]] == ["search", "weather"]
    assert body["tools"][0] == {"type": "function", "function": Tool(search).to_dict()}
    assert "tool_choice" not in body
    assert "search" not in json.dumps(body["messages"])
    assert body["messages"][0]["content"].endswith("Reply by calling your tools (`calls`).")
    assert isinstance(found.calls[0], pg.ToolCall)


@pytest.mark.parametrize("adapter", ["chat", "json", "xml"])
def test_a_text_or_calls(adapter: str) -> None:
    sig = make_signature("tools: list[Tool] -> answer, calls: list[ToolCall]", types=KINDS)
    compiled = get_adapter(adapter).compile(sig)
    inputs = {"tools": [Tool(search)]}
    here, request = compiled.ask(inputs, {})
    assert "tools" in dict(request.extra)
    assert here.parse(answer_with(call("search", query="x"))) == {"answer": "", "calls": [call("search", query="x")]}
    text = get_adapter(adapter).format(sig).written.assistant({"answer": "Paris"})  # type: ignore[attr-defined]
    assert here.parse(text) == {"answer": "Paris", "calls": []}
    assert here.parse(answer_with(call("search", query="x"), text=text))["answer"] == "Paris"
    with pytest.raises(ToolCallError, match="no tool `serch`; there are `search`"):
        here.parse(answer_with(call("serch", query="x")))
    with pytest.raises(RefusalError):
        here.parse(Completion("", refusal="No."))
    assert compiled.ask({**inputs, "tools": []}, {})[1].extra == ()
    if adapter == "json":
        assert list(json.loads(compiled.response_format or "")["json_schema"]["schema"]["properties"]) == ["answer"]


def test_one_call() -> None:
    sig = make_signature("tool: Tool -> call: ToolCall", types=KINDS)
    compiled = get_adapter("chat").compile(sig)
    here, request = compiled.ask({"tool": Tool(search)}, {})
    assert dict(request.extra)["tool_choice"] == '"required"'
    assert here.parse(answer_with(call("search", query="x"))) == {"call": call("search", query="x")}
    with pytest.raises(ParseError, match="calls no tool"):
        here.parse("I would search.")
    with pytest.raises(ToolCallError, match="calls 2 tools: call one"):
        here.parse(answer_with(call("search", query="x"), call("search", "c2", query="y")))


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize(("name", "reason"), [("serch", "no tool `serch`"), ("search", "no argument `page`")])
def test_a_call_that_never_fits_is_an_error_of_its_kind(retries: int, name: str, reason: str) -> None:
    step = nn.Predict("question, tools: list[Tool] -> calls: list[ToolCall]", adapter="chat", retries=retries)
    with LoopbackLM() as server:
        server.respond = lambda messages: Reply("", tool_calls=[(name, {"page": 2})])
        step.to(HTTP("m", server.url))
        with pytest.raises(ToolCallError, match=f"to Predict.*{reason}") as caught:
            step(question="x", tools=[Tool(search)])
        assert reason in caught.value.reason
        assert server.received == retries + 1


def test_a_call_that_does_not_fit_is_asked_again_as_the_provider_speaks() -> None:
    step = nn.Predict("question, tools: list[Tool] -> calls: list[ToolCall]", adapter="chat")
    with LoopbackLM() as server:
        server.script(Reply(tool_calls=[("search", {"k": 2})]), Reply(tool_calls=[("search", {"query": "x"})]))
        found = step(question="?", tools=[search], lm=HTTP("m", server.url))
        last = server.requests[-1].messages
    assert found.calls == [call("search", "call_0", query="x")]
    assert last[-2]["tool_calls"][0]["id"] == last[-1]["tool_call_id"] == "call_0"
    assert last[-1]["role"] == "tool"
    assert "argument `query` is missing" in last[-1]["content"]


def test_demos_show_calls() -> None:
    demo = Example(question="?", calls=[call("search", query="x"), call("search", query="y")])
    step = nn.Predict("question, tools: list[Tool] -> calls: list[ToolCall]", adapter="chat", demos=[demo])
    messages = step.messages(question="!", tools=[search])
    assert [m.role for m in messages] == ["system", "user", "assistant", "tool", "user"]
    assert [c.id for c in messages[2].tool_calls] == ["demo_1_1", "demo_1_2"]
    state = json.loads(json.dumps(step.state_dict()))
    other = nn.Predict("question, tools: list[Tool] -> calls: list[ToolCall]", adapter="chat")
    other.load_state_dict(state)
    assert other.messages(question="!", tools=[search]) == messages


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("q -> calls: list[ToolCall]", "no input holds the tools"),
        ("tools: list[Tool] -> answer", "no output holds their calls"),
        ("tools: list[Tool] -> a: list[ToolCall], b: ToolCall", "several outputs hold calls"),
    ],
)
def test_signatures_that_do_not_go_together(text: str, words: str) -> None:
    with pytest.raises(SignatureError, match=words):
        nn.Predict(text, adapter="chat")


def test_two_tools_of_one_name() -> None:
    step = nn.Predict("tools: list[Tool] -> calls: list[ToolCall]", adapter="chat")
    with LoopbackLM("x") as server, pytest.raises(SignatureError, match="two tools have the name 'search'"):
        step(tools=[search, Tool(weather, name="search")], lm=HTTP("m", server.url))


# ---- the adapter


class Person(pydantic.BaseModel):
    name: str
    age: int


def test_the_reply_is_one_call() -> None:
    predict = nn.Predict(
        "text -> people: list[Person], sure: bool",
        types={"Person": Person},
        adapter="tools",
        demos=[Example(text="none", people=[], sure=True)],
    )
    with LoopbackLM() as server:
        server.script(
            Reply(tool_calls=[("reply", {"people": [{"name": "Ann"}], "sure": True})]),
            Reply(tool_calls=[("reply", {"people": [{"Name": "Ann", "age": "41"}], "sure": "yes"})]),
        )
        found = predict(text="Ann is 41.", lm=HTTP("m", server.url))
        first, second = (request.json for request in server.requests)
    assert (found.people, found.sure, found.reasks) == ([Person(name="Ann", age=41)], True, 1)
    assert first["tool_choice"] == {"type": "function", "function": {"name": "reply"}}
    assert first["tools"][0]["function"]["strict"] is True
    assert [m["role"] for m in first["messages"]] == ["system", "user", "assistant", "tool", "user"]
    assert json.loads(first["messages"][2]["tool_calls"][0]["function"]["arguments"]) == {"people": [], "sure": True}
    assert second["messages"][-1]["role"] == "tool"
    assert "age" in second["messages"][-1]["content"]
    assert second["tools"] == first["tools"]


def test_what_stands_in_place_of_a_call() -> None:
    sig = make_signature("question -> answer")
    twice = (ToolCall("1", "reply", '{"answer": "a"}'), ToolCall("2", "reply", '{"answer": "a"}'))
    assert TOOLS.parse(sig, Completion(twice)) == {"answer": "a"}
    assert TOOLS.parse(sig, '{"answer": "a"}') == {"answer": "a"}
    with pytest.raises(ParseError, match="2 times, with different values"):
        TOOLS.parse(sig, Completion((twice[0], ToolCall("2", "reply", '{"answer": "b"}'))))
    with pytest.raises(ParseError, match="calls the tool `search`"):
        TOOLS.parse(sig, Completion((call("search", query="x"),)))
    with pytest.raises(SignatureError, match="use 'chat', 'json' or 'xml'"):
        nn.Predict("tools: list[Tool] -> calls: list[ToolCall]", adapter="tools")


@pytest.mark.parametrize(("annotation", "strategy"), CASES)
@given(data=st.data())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_values_come_back(annotation: Any, strategy: Any, data: st.DataObject) -> None:
    sig = Signature([Field("q"), Field("first", annotation, role="output"), Field("answer", annotation, role="output")])
    values = {"first": data.draw(strategy), "answer": data.draw(strategy)}
    compiled = TOOLS.compile(sig, None, (Example(q="x", **values),))
    shown = compiled.prefix.messages[-2]
    read = compiled.parse(Completion(shown.content))
    assert all(same(read[name], value) for name, value in values.items())
    Request(compiled.prefix).digest()
