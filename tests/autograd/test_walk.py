"""The chain rule of text by itself: the walk, with a division that no critic, rule or report stands behind."""

import ast
from pathlib import Path

import pytest

from promptgrad import aio
from promptgrad.autograd import Critique, Loss, _engine
from promptgrad.autograd._engine import backward
from promptgrad.autograd._prune import Subgraph, Wanted
from tests.autograd.programs import Call, ScriptedCritic, row, run


class Paths:
    """Hands everything on to everyone, and notes by which way it came."""

    def __init__(self, graph, waiting=()):
        self.graph = graph
        self.waiting = waiting
        self.visits = {}

    def waits(self, fn):
        return getattr(fn, "path", "") in self.waiting

    def at_once(self, fn, critiques):
        texts = [critique.text for several in critiques.values() for critique in several]
        self.visits[getattr(fn, "path", fn.kind)] = sorted(texts)
        name = getattr(fn, "path", fn.kind)
        handed = [Critique("", "", 0, "", f"{text}<{name}") for text in texts]
        return dict.fromkeys(self.graph.into[fn], handed)

    async def later(self, fn, critiques):
        await aio.sleep(0.001)
        return self.at_once(fn, critiques)


def diamond():
    top = Call("top", lambda q: "a text of the top")
    left, right = Call("left", lambda x: "the left text"), Call("right", lambda x: "the right text")
    last = Call("last", lambda a, b: "the end of it")

    def forward(q):
        x = top(q=q).out
        return last(a=left(x=x).out, b=right(x=x).out).out

    return run(forward, q="what")[1]


@pytest.mark.parametrize("waiting", [(), ("left",), ("left", "right"), ("top", "left", "right", "last")])
def test_a_vertex_has_its_turn_once_after_all_that_used_its_value(waiting):
    tape = diamond()
    end = tape.nodes[-1]
    graph = Subgraph([end], Wanted(None))
    paths = Paths(graph, waiting)
    aio.run(backward(graph, {end: [Critique("", "", 0, "", "loss")]}, paths))
    assert paths.visits == {
        "last": ["loss"],
        "left": ["loss<last"],
        "right": ["loss<last"],
        "top": ["loss<last<left", "loss<last<right"],
    }
    assert next(iter(paths.visits)) == "last"
    assert list(paths.visits)[-1] == "top"


def test_what_does_not_wait_needs_no_loop():
    tape = diamond()
    graph = Subgraph(tape.nodes[-1:], Wanted(None))
    paths = Paths(graph)
    aio.drive(backward(graph, {tape.nodes[-1]: []}, paths))
    assert len(paths.visits) == 4


def test_it_fits_on_a_screen_and_knows_no_rule_no_critic_and_no_report():
    source = Path(_engine.__file__).read_text()
    tree = ast.parse(source)
    names = {node.module.rpartition(".")[2] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names.isdisjoint({"_rules", "_critic", "_report", "_divide", "_joint", "_loss", "_parameter", "_gradient"})
    (walk,) = [node for node in tree.body if getattr(node, "name", "") == "backward"]
    assert walk.end_lineno - walk.lineno < 40


def test_one_record_goes_from_the_critic_to_the_gradient_and_the_report():
    first, last = Call("first", lambda q: "a text of the first call"), Call("last", lambda x: "the end")
    loss = Loss([row(lambda q: last(x=first(q=q).out).out, None, q="what")], ScriptedCritic())
    report = loss.backward()
    by_target = {(critique.path, critique.target): critique for critique in report.critiques[0]}
    assert first.instruction.grad[0] is by_target["first", "instruction"]
    assert last.instruction.grad[0] is by_target["last", "instruction"]
    assert by_target["last", "x"].target_kind == "input"
    assert by_target["first", "instruction"].parameter == "first.instruction"
    assert by_target["first", "instruction"].evidence["feedback"] == (by_target["last", "x"].text,)
