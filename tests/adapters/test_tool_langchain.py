"""LangChain's tools as tools: by a class with the same surface, and by LangChain itself where it is installed."""

import asyncio
import threading

import pydantic
import pytest

from promptgrad import nn
from promptgrad.adapters import Tool
from promptgrad.errors import SignatureError, ToolCallError, ToolTimeoutError
from promptgrad.lm import ToolCall


class Query(pydantic.BaseModel):
    """Arguments."""

    query: str = pydantic.Field(description="What to look for.")
    k: int = 3


class Search:
    """What `langchain_core.tools.BaseTool` has."""

    name = "web-search"
    description = "Find pages."
    args_schema = Query

    def invoke(self, arguments):
        return f"{arguments['query']} {arguments.get('k', 3)} {threading.current_thread().name}"

    async def ainvoke(self, arguments):
        await asyncio.sleep(0)
        return f"{arguments['query']} {arguments.get('k', 3)} awaited"


class AsyncSearch(Search):
    coroutine = Search.ainvoke


class Bare:
    name = "bare"
    args = {"query": {"type": "string"}}  # noqa: RUF012 - as LangChain gives it

    def invoke(self, arguments):
        return arguments["query"].upper()


def call(name, **arguments):
    return ToolCall("c1", name, arguments)


def test_a_tool_with_its_surface():
    tool = Tool.from_langchain(Search(), timeout=60)
    assert (tool.name, tool.description, tool.timeout) == ("web-search", "Find pages.", 60)
    assert tool.fields["query"].description == "What to look for."
    assert tool.required == ("query",)
    assert tool.run(call("web-search", query="cats", k="5")) == "cats 5 promptgrad-worker"
    with pytest.raises(ToolCallError, match="no argument `page`"):
        tool.read(call("web-search", query="cats", page=1))
    waiting = Tool.from_langchain(AsyncSearch(), name="search", trainable=True)
    assert waiting.run(call("search", query="cats")) == "cats 3 awaited"
    assert waiting.trainable
    assert Tool.from_langchain(Bare()).run(call("bare", query="x")) == "X"
    assert repr(tool) == "Tool(web-search(query: str, k: int = ...): Find pages.)"


def test_what_is_none():
    with pytest.raises(SignatureError, match="a function is a Tool"):
        Tool.from_langchain(len)
    with pytest.raises(SignatureError, match=r"not Search: write Tool\.from_langchain\(tool\)"):
        nn.ReAct("question -> answer", [Search()])


def test_langchain_itself():
    tools = pytest.importorskip("langchain_core.tools")

    @tools.tool(parse_docstring=True)
    def search(query: str, k: int = 3) -> str:
        """Find pages.

        Args:
            query: What to look for.
            k: How many.
        """
        return f"{query} {k}"

    @tools.tool
    async def hang(seconds: float) -> str:
        """Wait."""
        await asyncio.sleep(seconds)
        return "done"

    class Old(tools.BaseTool):
        name: str = "old"
        description: str = "Shouts."

        def _run(self, text: str) -> str:
            return text.upper()

    made = Tool.from_langchain(search)
    assert (made.name, made.description) == ("search", "Find pages.")
    assert {key: field.description for key, field in made.fields.items()} == {
        "query": "What to look for.",
        "k": "How many.",
    }
    assert made.run(call("search", query="x", k="4")) == "x 4"
    assert Tool.from_langchain(Old()).run(call("old", text="x")) == "X"
    with pytest.raises(ToolTimeoutError):
        Tool.from_langchain(hang, timeout=0.01).run(call("hang", seconds=3600))
    assert list(nn.ReAct("question -> answer", [made]).tools) == ["search"]
