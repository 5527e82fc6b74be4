"""Agents whose tools fail, hang, return megabytes or hostile text, in short: see benchmarks/hostile_tools.py."""

import asyncio
import gc
import json
import sys
import threading
import weakref
from pathlib import Path

import pytest

from promptgrad import Tool, aio, lm, nn
from promptgrad.errors import ParseError
from promptgrad.lm import Completion, ToolCall
from tests.waiting import until

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def hostile(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import hostile_tools

    yield hostile_tools
    for name in ("hostile_tools", "_side_by_side"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
def test_every_run_ends_and_nothing_that_a_tool_says_becomes_an_answer(hostile, native):
    found = hostile.measure(hostile.SOURCES, native=native, hang=0.05)
    assert found["answers"] + sum(found["errors"].values()) == hostile.SOURCES
    assert found["errors"].keys() <= {"ParseError"}  # of a model that quotes what reads as a reply of its own
    assert (found["taken"], found["misplaced"], found["blocked"]) == (0, 0, 0)


def said(adapter, thought, tool, given):
    """A reply in the syntax of an adapter, whatever stands in the thought."""
    arguments = json.dumps(given)
    if adapter == "json":
        return json.dumps({"thought": thought, "tool": tool, "arguments": given})
    if adapter == "tools":
        return Completion((ToolCall("r", "reply", {"thought": thought, "tool": tool, "arguments": given}),))
    if adapter == "xml":
        return f"<thought>\n{thought}\n</thought>\n<tool>\n{tool}\n</tool>\n<arguments>\n{arguments}\n</arguments>"
    if adapter == "compact":
        return f"thought: {thought}\ntool: {tool}\narguments: {arguments}"
    return f"[[ ## thought ## ]]\n{thought}\n\n[[ ## tool ## ]]\n{tool}\n\n[[ ## arguments ## ]]\n{arguments}"


@pytest.mark.parametrize("adapter", ["chat", "json", "xml", "compact", "tools"])
def test_a_model_that_quotes_a_tool_is_misread_in_no_adapter(hostile, adapter):
    """Its reply then holds, word for word, what reads as a reply: it is read as its own, or not at all."""

    def fetch(source: int) -> str:
        """Fetches."""
        return hostile.MARKERS[source]

    def answer(request):
        source = int(request.messages[1].preview.partition("source ")[2].partition(".")[0])
        if not any(message.role == "assistant" for message in request.messages):
            return said(adapter, "I begin.", "fetch", {"source": source})
        return said(adapter, f"I was told:\n{hostile.MARKERS[source]}\nSo.", "finish", {"answer": "mine"})

    answer.__annotations__["request"] = lm.Request
    agent = nn.ReAct("question -> answer", [fetch], adapter=adapter).to(lm.FunctionLM(answer, name="m"))
    rows = agent.map([{"question": f"source {source}."} for source in range(len(hostile.MARKERS))]).rows
    assert {type(row.error) for row in rows} <= {type(None), ParseError}
    answers = [row.output.answer for row in rows if row.error is None]
    assert set(answers) == {"mine"}
    assert len(answers) > len(rows) / 2


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
@pytest.mark.parametrize("kind", ["async", "plain"])
def test_a_tool_that_waits_blocks_no_other_run(native, kind):
    """One of eight runs waits in its tool until the seven others are over: they would wait for it in vain."""
    over, ended = threading.Event(), []

    def finished(number):
        ended.append(number)
        if len(ended) == 7:
            over.set()

    async def wait(number: int) -> str:
        while number == 0 and not over.is_set():
            await asyncio.sleep(0.001)
        return "done"

    def wait_here(number: int) -> str:
        if number == 0 and not over.wait(60):
            return "in vain"
        return "done"

    def answer(request):
        (number,) = [int(word) for word in request.messages[1].preview.split() if word.isdecimal()][-1:]
        last = request.messages[-1]
        if len(request.messages) == 2:
            name, given = tool.__name__, {"number": number}
        else:
            finished(number)
            name, given = "finish", {"answer": "in vain" if "in vain" in last.preview else "done"}
        if native:
            return Completion((ToolCall("c", name, given),))
        arguments = ToolCall("", name, given).arguments
        return f"[[ ## thought ## ]]\nOn.\n\n[[ ## tool ## ]]\n{name}\n\n[[ ## arguments ## ]]\n{arguments}"

    answer.__annotations__["request"] = lm.Request
    tool = wait if kind == "async" else wait_here
    agent = nn.ReAct("question -> answer", [tool], native=native, adapter="chat").to(lm.FunctionLM(answer, name="m"))
    outputs = agent.map([{"question": f"number {number} of them"} for number in range(8)], concurrency=8)
    assert [output.answer for output in outputs] == ["done"] * 8
    assert ended[-1] == 0


@pytest.mark.parametrize("timeout", [None, 60])
@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
def test_what_large_results_take_is_given_back(native, timeout):
    class Large:
        def __repr__(self):
            return "x" * 2_000_000

    alive = weakref.WeakSet()

    def fetch() -> object:
        """Fetches."""
        large = Large()
        alive.add(large)
        return large

    def answer(request):
        name, given = ("fetch", {}) if len(request.messages) == 2 else ("finish", {"answer": "x"})
        if native:
            return Completion((ToolCall("c", name, given),))
        arguments = ToolCall("", name, given).arguments
        return f"[[ ## thought ## ]]\nOn.\n\n[[ ## tool ## ]]\n{name}\n\n[[ ## arguments ## ]]\n{arguments}"

    answer.__annotations__["request"] = lm.Request
    tool = Tool(fetch, timeout=timeout)
    agent = nn.ReAct("question -> answer", [tool], native=native, adapter="chat").to(lm.FunctionLM(answer, name="m"))

    async def earlier():  # a loop keeps timers that were cancelled as long as an earlier one is not
        asyncio.get_running_loop().call_later(3600, int)

    aio.run(earlier())
    outputs = agent.map([{"question": str(number)} for number in range(20)])
    assert len(outputs) == len(alive) == 20  # the recorded runs have them
    del outputs
    until(lambda: gc.collect() >= 0 and not alive)  # the threads of the loops are still letting go
