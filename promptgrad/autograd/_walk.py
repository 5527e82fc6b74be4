"""The part of the graph from which an output can be reached, across tapes."""

from collections.abc import Iterable, Iterator
from typing import Any

from promptgrad.autograd._edges import Edge, ForwardOutput, edges, exact_sources
from promptgrad.autograd._node import GradFn, Join, Node
from promptgrad.autograd._tape import Tape


class Walk:
    """Follows edges backwards from given vertices or outputs. Iterative, each vertex once."""

    def __init__(self) -> None:
        self._tapes: dict[Tape, dict[GradFn | ForwardOutput, list[Edge]]] = {}
        self._into: dict[GradFn, list[Edge]] = {}
        self._outputs: list[Edge] = []

    def into_output(self, tape: Tape | None, value: Any) -> list[Edge]:
        """The edges into a value that a forward returned, or into a part of what it returned.

        If the value itself remembers its producers, they count; the tape adds the edges that only it knows.
        """
        target = ForwardOutput(tape)
        known = [Edge(source, target, None, "exact") for source in exact_sources(value)]
        if tape is None or tape.freed:
            return known
        recorded = self._of(tape).get(target, [])
        if not known:
            return recorded
        sources = {edge.source for edge in known}
        return known + [edge for edge in recorded if edge.kind != "exact" and edge.source not in sources]

    def into(self, fn: GradFn) -> list[Edge]:
        """The edges into a vertex."""
        if isinstance(fn, Node):
            return self._of(fn.tape).get(fn, [])
        if isinstance(fn, Join):
            return [Edge(source, fn, None, "exact") for source in fn.sources]
        return []

    def _of(self, tape: Tape) -> dict[GradFn | ForwardOutput, list[Edge]]:
        by_target = self._tapes.get(tape)
        if by_target is None:
            by_target = self._tapes[tape] = {}
            for edge in edges(tape):
                by_target.setdefault(edge.target, []).append(edge)
        return by_target

    def add_output(self, tape: Tape | None, value: Any) -> None:
        """Follow everything that went into an output."""
        found = self.into_output(tape, value)
        self._outputs += found
        self.add(edge.source for edge in found)

    def add(self, starts: Iterable[GradFn]) -> None:
        """Follow everything that went into these vertices, and the vertices themselves."""
        stack = list(starts)
        while stack:
            fn = stack.pop()
            if fn not in self._into:
                self._into[fn] = self.into(fn)
                stack.extend(edge.source for edge in self._into[fn])

    def vertices(self) -> list[GradFn]:
        """All vertices; every source comes before its targets."""
        return sorted(self._into, key=lambda fn: fn.place)

    def edges(self) -> Iterator[Edge]:
        """All edges, in the order of their targets."""
        for fn in self.vertices():
            yield from self._into[fn]
        yield from self._outputs
