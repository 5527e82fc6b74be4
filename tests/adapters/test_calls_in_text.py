"""Calls of tools in the text of a reply, in the dialects of models, where an answer was asked for."""

from __future__ import annotations

import json
from typing import Any

import pydantic
import pytest

from promptgrad.adapters import ChatAdapter, CompactAdapter, JSONAdapter, ToolsAdapter, XMLAdapter
from promptgrad.errors import ParseError
from promptgrad.lm import Completion, without_thinking
from promptgrad.signature import Field, Signature

ARGUMENTS = '{"query": "capital"}'
CALL = f'{{"name": "search", "arguments": {ARGUMENTS}}}'


def tag(name: str, body: str, attributes: str = "") -> str:
    return f"<{name}{attributes}>{body}</{name}>"


INVOKE = tag("invoke", tag("parameter", "capital", ' name="query"'), ' name="search"')
BAR, GAP = "\N{FULLWIDTH VERTICAL LINE}", "\N{LOWER ONE EIGHTH BLOCK}"
CALLS = [
    tag("tool_call", CALL),
    f"<tool_call>{CALL}",
    f"I will look it up.\n{tag('tool_call', CALL)}",
    tag("tool_calls", CALL),
    tag("longcat_tool_call", CALL),
    tag("seed:tool_call", f"<function=search>{ARGUMENTS}</function>"),
    tag("minimax:tool_call", INVOKE),
    tag("xai:function_call", "capital", ' name="search"'),
    tag("function_calls", INVOKE),
    tag("tool_use", CALL),
    tag("tools", CALL),
    tag("TOOLCALL", f"[{CALL}]"),
    INVOKE,
    f"<function=search>{ARGUMENTS}</function>",
    f"[TOOL_CALLS][{CALL}]",
    f"[TOOL_CALLS]search[ARGS]{ARGUMENTS}",
    f"functools[{CALL}]",
    '<|python_tag|>search(query="capital")',
    f"<|tool_call|>[{CALL}]<|/tool_call|>",
    '<|tool_call>call:search{query:<|"|>capital<|"|>}<tool_call|>',
    f"<|tool_calls_section_begin|><|tool_call_begin|>functions.search:0<|tool_call_argument_begin|>{ARGUMENTS}",
    f"<|action_start|><|plugin|>{CALL}<|action_end|>",
    f'<|START_ACTION|>[{{"tool_name": "search", "parameters": {ARGUMENTS}}}]<|END_ACTION|>',
    "<start_function_call>call:search{query:<escape>capital<escape>}<end_function_call>",
    f"<{BAR}tool{GAP}calls{GAP}begin{BAR}><{BAR}tool{GAP}call{GAP}begin{BAR}>search",
    f'<{BAR}DSML{BAR}function_calls>\n<{BAR}DSML{BAR}invoke name="search">',
    f"commentary to=functions.search json{ARGUMENTS}",
    f"```tool_call\n{CALL}\n```",
    '```tool_code\nsearch(query="capital")\n```',
    f"```json\n{CALL}\n```",
    f"[{CALL}]",
    CALL,
    f'{{"type": "function", "name": "search", "parameters": {ARGUMENTS}}}',
]
ADAPTERS = [ChatAdapter(), JSONAdapter(), XMLAdapter(), CompactAdapter(), ToolsAdapter()]
KEPT = [
    "A call is written as `<tool_call>{...}</tool_call>` there.",
    "The tools of the trade: <b>invoke</b>, and a function = 3.",
    "Use it:\n```xml\n<tool_call>{}</tool_call>\n```",
    "The <tool_call> tag opens it.",
]


def read(adapter: Any, kind: Any, reply: str) -> Any:
    signature = Signature([Field("question", str, "", "input"), Field("answer", kind, "", "output")], "Answer.")
    try:
        return adapter.parse(signature, without_thinking(Completion(reply)))["answer"]
    except ParseError:
        return "again"


@pytest.mark.parametrize("call", CALLS)
def test_a_call_in_the_text_is_no_answer(call: str) -> None:
    for adapter in ADAPTERS:
        assert read(adapter, str, call) == "again"
        assert read(adapter, str | None, call) == "again"


@pytest.mark.parametrize("text", KEPT)
def test_a_text_about_calls_is_an_answer(text: str) -> None:
    for adapter in ADAPTERS:
        assert read(adapter, str, text) == text


class Called(pydantic.BaseModel):
    name: str
    arguments: dict[str, str]


def test_an_object_that_looks_like_a_call_may_be_what_was_asked_for() -> None:
    for adapter in ADAPTERS[:1] + ADAPTERS[2:4]:
        assert read(adapter, Called, CALL) == Called(name="search", arguments={"query": "capital"})


def test_a_call_in_its_field_is_what_was_asked_for() -> None:
    assert read(ChatAdapter(), str, f"[[ ## answer ## ]]\n{CALLS[0]}\n\n[[ ## completed ## ]]") == CALLS[0]
    assert read(JSONAdapter(), str, json.dumps({"answer": CALLS[0]})) == CALLS[0]


@pytest.mark.parametrize(
    "reply",
    [
        "[[ ## answer ## ]]\nParis\n[[",
        "\\[\\[ ## answer ## \\]\\]\nParis",
        "\N{LEFT BLACK LENTICULAR BRACKET}\N{LEFT BLACK LENTICULAR BRACKET} ## answer ## "
        "\N{RIGHT BLACK LENTICULAR BRACKET}\N{RIGHT BLACK LENTICULAR BRACKET}\nParis",
        "<|im_start|>assistant\nParis<|im_end|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\nParis",
        "<start_of_turn>model\nParis",
        f"<{BAR}Assistant{BAR}>Paris",
    ],
)
def test_what_belongs_to_a_marker_or_a_turn_is_no_part_of_an_answer(reply: str) -> None:
    assert read(ChatAdapter(), str, reply) == "Paris"


@pytest.mark.parametrize("form", ["{answer}", "{{answer}}", "{ answer }"])
def test_the_name_of_a_field_in_braces_is_no_value(form: str) -> None:
    assert read(ChatAdapter(), str, f"[[ ## answer ## ]]\n{form}\n\n[[ ## completed ## ]]") == "again"
    assert read(JSONAdapter(), str, json.dumps({"answer": form})) == "again"
    form = ChatAdapter().format(Signature("question -> answer"))
    assert form.read(form.assistant({"answer": "{answer}"})) == {"answer": "{answer}"}
