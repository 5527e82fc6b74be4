"""`Retrieve`: search in an index as a part of a program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from promptgrad import aio
from promptgrad.autograd import Choice, Node, Passing, attach, current_tape
from promptgrad.errors import InputError
from promptgrad.nn._module import Module
from promptgrad.nn._program import begin_node
from promptgrad.nn._tool_shape import shape_of
from promptgrad.retrieve import BM25, Filter, Passage, Rerank, Retriever, as_passage


class Retrieve(Module, in_place=True):
    """Find the `k` passages of an index that fit a query best.

    The passages are `Text`s on the graph: whoever reads them, `notes: list[str]`, has an edge from the search, and the
    search one from its query. A critique of what was read becomes one of the query, with what was found and what was
    lacking, so the prompt that wrote the query is trained. The module of a `retrieve.Rerank` is a part of the program,
    and hears what is said of the passages that it put first.

    `nn.AuxLoss("search", metrics.recall_at(3, field="sources"))` judges what was found, apart from the answer.

    Example:
        ```python
        self.search = nn.Retrieve(retrieve.BM25(passages), k=3)
        ...
        notes = self.search(query)       # or `await self.search.acall(query)`
        ```

    Shape: `k` passages, `list[Passage]`, the best first; fewer where fewer fit.
    Cost: no LM call of its own; what the index costs, such as an embedding of the query, or the calls of a reranker.
    Source: DSPy's module of this name; the gradient of a query as in Yuksekgonul et al. 2024, arXiv 2406.07496.

    Args:
        index: An index of `promptgrad.retrieve`; a list of passages, which becomes a `BM25`; or a function, plain or
            `async`, of `(query, k)` that returns passages as `retrieve.BM25` takes them, the best first.
        k: The most passages, or a `Choice` of numbers that optimizers search.
        filter: What the passages must be besides, as in `Retriever.search`; for an index of `promptgrad.retrieve`.

    Raises:
        TypeError: `index` is none of these.
        ValueError: `k` is below 1.
        InputError: When called: the query is no text.
    """

    def __init__(self, index: Any = None, k: int | Choice = 3, *, filter: Filter | None = None) -> None:
        super().__init__()
        if index is None:
            raise TypeError("Retrieve(index, k): the index is an argument, nn.Retrieve(retrieve.BM25(passages), k=3)")
        if isinstance(index, (list, tuple)):
            index = BM25(index)
        if not isinstance(index, Retriever) and not callable(index):
            raise TypeError(
                f"Retrieve takes an index of promptgrad.retrieve, a list of passages, or a function of a query and a "
                f"number, not {type(index).__name__}"
            )
        if filter is not None and not isinstance(index, Retriever):
            raise TypeError("a filter is for an index of promptgrad.retrieve: let your function filter what it returns")
        for number in k.options or () if isinstance(k, Choice) else (k,):
            if isinstance(number, bool) or not isinstance(number, int):
                raise TypeError(f"k is the number of passages, a whole number, not {number!r}")
            if number < 1:
                raise ValueError(f"k is the number of passages, at least 1, not {number}")
        self.index = index
        self.k = k
        self.filter = filter
        if isinstance(index, Rerank) and isinstance(index.module, Module):
            self.rerank = index.module

    async def forward(self, query: str, *, k: int | None = None, filter: Filter | None = None) -> list[Passage]:
        """Search, and record the search where calls are recorded.

        Args:
            query: What to search for.
            k: The most passages of this call.
            filter: What the passages of this call must be, instead of the module's filter.

        Raises:
            InputError: The query is not a text.
        """
        if not isinstance(query, str):
            raise InputError(f"the query of a Retrieve is a text, not {type(query).__name__}: give it one at a time")
        number = k if k is not None else self.k.data if isinstance(self.k, Choice) else self.k
        wanted = self.filter if filter is None else filter
        if not isinstance(self.index, Rerank):
            return await self._recorded({"query": query}, self._found(self.index, query, number, wanted))
        depth = max(number, self.index.depth)
        candidates = await self._recorded({"query": query}, self._found(self.index.index, query, depth, wanted))
        ranked, given = await self.index.arank(query, candidates, self._modules.get("rerank"))
        tape = current_tape()
        node = None
        if tape is not None:
            node = begin_node(self, tape, {"candidates": candidates, "looks": given}, ("out",), kind="function")
            node.rule = _ranked
        return _ended(node, ranked[:number])

    async def _recorded(self, inputs: dict[str, Any], search: Any) -> list[Passage]:
        tape = current_tape()
        node = None if tape is None else begin_node(self, tape, inputs, ("out",), kind="retriever")
        try:
            found = await search
        except Exception as error:  # a cancelled call gave nothing, and stays unfinished
            if node is not None:
                node.finish(error=error)
            raise
        return _ended(node, found)

    async def _found(self, index: Any, query: str, k: int, wanted: Filter | None) -> list[Passage]:
        if isinstance(index, Retriever):
            return await index.asearch(str(query), k, filter=wanted)
        given = await _called(index, str(query), k)
        if isinstance(given, str) or not isinstance(given, (list, tuple)):
            raise TypeError(
                f"the function of a Retrieve returns a list of passages, not {type(given).__name__} {given!r:.80}"
            )
        return [as_passage(item, place) for place, item in enumerate(given[:k])]

    def __tool__(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        return shape_of(self, "Find the passages that fit a query best.", ("query",))

    def extra_repr(self) -> str:
        """The number of passages, and the index."""
        number = f"k={self.k.data!r} of {self.k.options!r}" if isinstance(self.k, Choice) else f"k={self.k}"
        index = self.index if isinstance(self.index, Retriever) else getattr(self.index, "__qualname__", None)
        return f"{number}, index={index if index is not None else type(self.index).__name__}"

    def _shown_parameters(self) -> Any:
        return iter(())


def _ended(node: Node | None, found: list[Passage]) -> list[Passage]:
    passages = attach(found, node, objects=False)
    if node is not None:
        node.finish({"out": passages})
    return passages


async def _called(function: Callable[..., Any], query: str, k: int) -> Any:
    if aio.is_coroutine_function(function):
        return await aio.awaited(function(query, k))
    return await aio.in_thread(function, query, k)


def _ranked(passing: Passing) -> dict[str, Any]:
    """What is said of the passages that were put first is said of those who looked, and of what there was to choose."""
    said = {
        "looks": tuple(
            f"of the passages, those put first were not what was needed: {text}" for text in passing.feedback
        ),
        "candidates": passing.feedback,
    }
    return {target.name: said[target.name.removeprefix("input.")] for target in passing.targets}
