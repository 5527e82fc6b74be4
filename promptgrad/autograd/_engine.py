"""The chain rule of text.

A vertex of the graph waits until everything that used its value has had its turn. The critiques that the value has by
then are divided among what it was made of, and the walk goes on from there. The walk knows neither the rule by which
they are divided nor what becomes of the gradients: that is in `_divide`. `_seed` decides where to begin, and `_prune`
what is worth a visit.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

from promptgrad import aio
from promptgrad.autograd._critique import Critique
from promptgrad.autograd._edges import Edge
from promptgrad.autograd._node import GradFn
from promptgrad.autograd._prune import Subgraph

Critiques = Mapping[Edge | None, Sequence[Critique]]
"""The critiques of a value, by the edge to the vertex that used it; None stands for the loss, which has no edge."""


class Division(Protocol):
    """Divides the critiques of a value among the edges into its vertex; parameters get their share on the way."""

    def waits(self, fn: GradFn) -> bool:
        """Whether a vertex has to wait for an answer, of a critic or of a user's rule."""
        ...

    def at_once(self, fn: GradFn, critiques: Critiques) -> Mapping[Edge, Sequence[Critique]]:
        """The shares, for a vertex that does not wait."""
        ...

    async def later(self, fn: GradFn, critiques: Critiques) -> Mapping[Edge, Sequence[Critique]]:
        """The shares, for a vertex that waits."""
        ...


async def backward(graph: Subgraph, seeds: Mapping[GradFn, Sequence[Critique]], divide: Division) -> None:
    """Go back from the seeds. Vertices that wait do so side by side, unless one needs the answer of another."""
    critiques: dict[GradFn, dict[Edge | None, Sequence[Critique]]] = {fn: {None: seeds[fn]} for fn in seeds}
    users = graph.users()
    turns: dict[GradFn, aio.Signal[None]] = {fn: aio.Signal() for fn in graph.order if divide.waits(fn)}

    def hand_on(fn: GradFn, shares: Mapping[Edge, Sequence[Critique]]) -> None:
        for edge, share in shares.items():
            critiques.setdefault(edge.source, {})[edge] = share
        for source in graph.sources(fn):
            users[source] -= 1
            if not users[source]:
                free.append(source)

    def settle() -> None:
        while free:
            fn = free.popleft()
            if fn in turns:
                turns[fn].set(None)
            else:
                hand_on(fn, divide.at_once(fn, critiques.pop(fn, {})))

    async def visit(fn: GradFn) -> None:
        await turns[fn]
        hand_on(fn, await divide.later(fn, critiques.pop(fn, {})))
        settle()

    free = deque(fn for fn in reversed(graph.order) if not users[fn])
    settle()
    await aio.each(visit, [fn for fn in reversed(graph.order) if fn in turns])
