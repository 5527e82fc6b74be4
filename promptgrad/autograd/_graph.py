"""`graph`: the vertices and edges behind a loss, a tape or an output, for inspection."""

from dataclasses import dataclass
from typing import Any

from promptgrad.autograd._edges import Edge, exact_sources, joined_sources
from promptgrad.autograd._loss import Loss
from promptgrad.autograd._node import GradFn, Node
from promptgrad.autograd._tape import Tape
from promptgrad.autograd._walk import Walk
from promptgrad.errors import GraphError


@dataclass(frozen=True)
class Graph:
    """The vertices and edges of one or more forwards, for inspection."""

    nodes: tuple[GradFn, ...]
    edges: tuple[Edge, ...]


def _tape_of(output: Any) -> Tape | None:
    """The tape whose forward returned this very output; None for a part of one."""
    for fn in exact_sources(output):
        for source in joined_sources(fn):
            if isinstance(source, Node) and source.tape.output is output:
                return source.tape
    return None


def graph(of: Any) -> Graph:
    """All vertices and edges from which a `Loss`, a finished `Tape`, an output or a `Text` can be reached.

    Raises:
        GraphError: A backward has freed what was recorded.
    """
    walk = Walk()
    tapes = [row.tape for row in of.rows] if isinstance(of, Loss) else [of] if isinstance(of, Tape) else []
    if any(tape is not None and tape.freed for tape in tapes):
        raise GraphError(
            "backward() has freed what these forwards recorded: look before it, or backward(retain_graph=True)"
        )
    if isinstance(of, Loss):
        for row in of.rows:
            if row.node is not None:
                walk.add([row.node])
            else:
                walk.add_output(row.tape, row.output)
    elif isinstance(of, Tape):
        walk.add_output(of, of.output)
    else:
        walk.add_output(_tape_of(of), of)
    return Graph(tuple(walk.vertices()), tuple(walk.edges()))
