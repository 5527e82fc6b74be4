"""`Toolset`: tools that belong together."""

import copy
import pickle

import pytest

import promptgrad as pg
from promptgrad import nn
from promptgrad.adapters import Tool
from promptgrad.errors import BudgetExceeded, SignatureError
from promptgrad.lm import ToolCall, ToolResult
from promptgrad.testing import LoopbackLM, Reply
from promptgrad.tools import Toolset


def log(path: str, count: int = 10) -> str:
    """Show commits."""
    return f"{count} commits of {path}"


def diff(path: str) -> str:
    """Show changes."""
    if path == "gone":
        raise FileNotFoundError(path)
    return f"changes of {path}"


def pay() -> None:
    """Pay."""
    raise BudgetExceeded("no calls left")


def call(name, **arguments):
    return ToolCall(name[:1], name, arguments)


@pytest.fixture
def git():
    return Toolset([log, diff, {"name": "push", "description": "Elsewhere."}], name="git")


def test_it_is_a_tuple_that_knows_names(git):
    assert git.names == ("log", "diff", "push")
    assert git["diff"] is git[1]
    assert ("log" in git, "commit" in git, git[0] in git) == (True, False, True)
    assert git[:2] == git.only("log", "diff") == git.without("push") == git.filter(lambda tool: tool.function)
    assert all(type(some) is Toolset and some.name == "git" for some in (git[:2], git.only("log"), git.without("log")))
    assert git.only("diff", "log").names == ("diff", "log")
    with pytest.raises(KeyError, match="no tool has the name 'dif': did you mean 'diff'"):
        git["dif"]
    with pytest.raises(KeyError, match="there are log, diff, push"):
        git.without("commit", "log")


def test_a_repr_worth_reading(git):
    assert repr(git) == (
        "Toolset('git') of 3 tools:\n"
        "  log(path: str, count: int = ...): Show commits.\n"
        "  diff(path: str): Show changes.\n"
        "  push(): Elsewhere."
    )
    assert repr(Toolset()) == "Toolset()"


def test_sets_are_joined_and_prefixed_against_clashes(git):
    other = Toolset([log])
    with pytest.raises(SignatureError, match=r"two tools have the name 'log'.*prefix="):
        _ = git + other
    both = git + other.prefixed("svn_") + [Tool(diff, name="compare")]
    assert both.names == ("log", "diff", "push", "svn_log", "compare")
    assert both["svn_log"].run(call("svn_log", path="x")) == "10 commits of x"
    assert Toolset([git, Toolset([log], prefix="svn_")]).names == ("log", "diff", "push", "svn_log")
    with pytest.raises(SignatureError, match="a tool has a name"):
        git.prefixed("my git ")
    with pytest.raises(ValueError, match="a tool is a Tool, a function"):
        Toolset([3])


def test_limits_of_all_tools(git):
    limited = git.replace(timeout=5, max_chars=9, trainable=True)
    assert {(tool.timeout, tool.max_chars, tool.trainable) for tool in limited} == {(5, 9, True)}
    assert Toolset([log], timeout=5)["log"].timeout == 5
    assert limited.results([call("diff", path="x")]) == [ToolResult("d", "changes o... (3 characters more)")]
    with pytest.raises(TypeError, match="has no argument 'retries'"):
        git.replace(retries=3)


def test_results_come_in_the_order_of_the_calls(git):
    results = git.results([call("diff", path="gone"), call("commit"), call("log", path="x", count="3"), call("push")])
    assert results == [
        ToolResult("d", "FileNotFoundError: gone", is_error=True),
        ToolResult("c", "there is no tool `commit`; there are log, diff, push", is_error=True),
        ToolResult("l", "3 commits of x"),
        ToolResult("p", "the call of `push`: it is declared alone, and has no function here", is_error=True),
    ]
    assert git.results([]) == []
    with pytest.raises(BudgetExceeded):
        Toolset([pay]).results([call("pay")])


def test_it_can_be_copied_and_pickled(git):
    for twin in (copy.deepcopy(git), copy.copy(git), pickle.loads(pickle.dumps(git))):
        assert twin == git
        assert (type(twin), twin.name) == (Toolset, "git")


def test_it_is_taken_wherever_tools_are(git):
    agent = nn.ReAct("question -> answer", tools=[git.without("push"), Tool(log, name="history")])
    assert list(agent.tools) == ["log", "diff", "history"]
    assert list(nn.ReAct("question -> answer", tools=git.without("push")).tools) == ["log", "diff"]
    step = nn.Predict("question, tools: list[Tool] -> calls: list[ToolCall]", adapter="chat")
    with LoopbackLM() as server:
        server.script(Reply(tool_calls=[("diff", {"path": "a"})]))
        found = step(question="?", tools=git, lm=pg.lm.HTTP("m", server.url))
        declared = [tool["function"]["name"] for tool in server.requests[-1].json["tools"]]
    assert declared == ["log", "diff", "push"]
    assert [result.content for result in git.results(found.calls)] == ["changes of a"]
