"""`Rerank`: an index whose results are looked at a second time, by a module or a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from promptgrad import aio
from promptgrad.errors import DataError
from promptgrad.retrieve._filter import Filter
from promptgrad.retrieve._passage import Passage
from promptgrad.retrieve._retriever import Retriever, name_of, read_member, write_members

By = Literal["scores", "ranking"]

_QUERIES = ("query", "question")
_EACH = ("passage", "document")
_ALL = ("passages", "documents")


class Rerank(Retriever):
    """An index that finds `depth` candidates in another one and orders them by a second, closer look.

    Who looks is a module, such as `nn.Predict("query, passages: list[str] -> ranking: list[int]")`, or a function,
    plain or `async`. A module with an input `passages` (or `documents`, which gets `Document`s) is called once with all
    candidates, one with an input `passage` (or `document`) once for each; its last output counts, and the query is its
    input `query` or `question`. A function gets `(query, passages)`. In `nn.Retrieve` the module is a part of the
    program: it is trained, and moves to another LM with it.

    Cost: that of the index, and one call of the module, or `depth` calls side by side.
    Source: Nogueira and Cho 2019, arXiv 1901.04085, one call each; Sun et al. 2023, arXiv 2304.09542, one for all.

    Args:
        index: The index of the candidates.
        module: Who looks: a module or a function.
        by: What it gives for all candidates: "scores", a number for each in their order, higher is better; or
            "ranking", the numbers of candidates from 1, the best first: those it does not name follow in their order,
            and numbers of no candidate, or named before, are left out. One that is called for each gives its score.
        depth: The number of candidates; `k`, if that is more.

    Raises:
        TypeError: `index` is no index, or `module` can be called with no query and passages.
        ValueError: `by` is something else, or `depth` is below 1.
        DataError: When called: what the module gave are no scores, one for each candidate, or no ranking.
    """

    kind = "rerank"

    def __init__(self, index: Retriever, module: Callable[..., Any], *, by: By = "scores", depth: int = 20) -> None:
        if not isinstance(index, Retriever):
            raise TypeError(f"Rerank takes an index of promptgrad.retrieve, not {type(index).__name__}")
        if by not in ("scores", "ranking"):
            raise ValueError(f"by is 'scores' or 'ranking', not {by!r}")
        if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
            raise ValueError(f"depth is the number of candidates, at least 1, not {depth!r}")
        if not callable(module):
            raise TypeError(f"Rerank takes a module or a function, not {type(module).__name__}")
        self.index = index
        self.module = module
        self.by: By = by
        self.depth = depth
        self._inputs = _inputs(module)

    async def _search(self, queries: list[str], k: int, wanted: Filter | None) -> list[list[Passage]]:
        found = await self.index._search(queries, max(k, self.depth), wanted)
        ranked = await aio.gather(
            [partial(self.arank, query, passages) for query, passages in zip(queries, found, strict=True)]
        )
        return [passages[:k] for passages, _ in ranked]

    async def arank(
        self, query: str, passages: Sequence[Passage], module: Any = None
    ) -> tuple[list[Passage], list[Any]]:
        """Order candidates for a query.

        Args:
            query: The query.
            passages: The candidates.
            module: A copy of the module that looks in its place, such as that of a program.

        Returns:
            All candidates, the best first; and what the module gave, call by call.
        """
        if not passages:
            return [], []
        look: Any = module or self.module
        if self._inputs is None:
            given = [await _called(look, query, list(passages))]
        else:
            question, name = self._inputs
            acall = look.acall
            if name in _ALL:
                shown = [p.document for p in passages] if name == "documents" else list(passages)
                given = [await acall(**{question: query, name: shown})]
            else:
                calls = [{question: query, name: p.document if name == "document" else p} for p in passages]
                given = list(await aio.gather([partial(acall, **inputs) for inputs in calls]))
        values = [_value(one) for one in given]
        each = self._inputs is not None and self._inputs[1] in _EACH
        if self.by == "ranking" and not each:
            return self._ordered(list(passages), values[0]), given
        return self._by_scores(list(passages), values if each else values[0]), given

    def _by_scores(self, passages: list[Passage], scores: Any) -> list[Passage]:
        try:
            numbers = [float(score) for score in scores]
        except (TypeError, ValueError):
            raise DataError(f"{name_of(self.module)} gives a score for each passage, not {scores!r:.200}") from None
        if len(numbers) != len(passages) or any(number != number for number in numbers):
            raise DataError(
                f"{name_of(self.module)} gave {len(numbers)} scores for {len(passages)} passages, and each needs "
                "a number"
            )
        scored = [passage.scored(number) for passage, number in zip(passages, numbers, strict=True)]
        return sorted(scored, key=lambda passage: -passage.score)

    def _ordered(self, passages: list[Passage], ranking: Any) -> list[Passage]:
        if isinstance(ranking, str) or not isinstance(ranking, Iterable):
            raise DataError(f"{name_of(self.module)} gives the numbers of passages in order, not {ranking!r:.200}")
        named = [item for item in ranking if type(item) is int and 1 <= item <= len(passages)]
        order = list(dict.fromkeys([*named, *range(1, len(passages) + 1)]))
        return [passages[number - 1].scored(1.0 / rank) for rank, number in enumerate(order, 1)]

    def add(self, passages: Iterable[Any]) -> None:
        """Add passages to the index of the candidates."""
        self.index.add(passages)

    async def arefresh(self) -> None:
        """As `refresh`, from a coroutine."""
        await self.index.arefresh()

    def __len__(self) -> int:
        return len(self.index)

    def _settings(self) -> dict[str, Any]:
        own = {"by": self.by, "depth": self.depth, "module": name_of(self.module)}
        return {**own, "members": [[self.index.kind, self.index._settings()]]}

    def _known_by(self) -> Any:
        return self.index._known_by()

    def _write(self, folder: Path) -> None:
        write_members(folder, [self.index])

    @classmethod
    def _read_back(cls, folder: Path, settings: dict[str, Any], given: dict[str, Any]) -> Rerank:
        module = given.get("module")
        if module is None or name_of(module) != settings["module"]:
            raise DataError(
                f"the index was made with the module {settings['module']}, and a folder holds no code: pass module=... "
                f"to load it; this is {name_of(module)}"
            )
        kind, own = settings["members"][0]
        index = read_member(folder / "0", kind, own, given)
        return cls(index, module, by=settings["by"], depth=settings["depth"])

    def __repr__(self) -> str:
        return f"Rerank({self.index!r}, {name_of(self.module)}, by={self.by!r}, depth={self.depth})"


def _inputs(module: Any) -> tuple[str, str] | None:
    """Names of a module's inputs for the query and for the passages; None for a function."""
    names = getattr(module, "input_names", None)
    if names is None or not hasattr(module, "acall"):
        return None
    taken = names()
    question = next((name for name in _QUERIES if taken is None or name in taken), None)
    passages = next((name for name in (*_ALL, *_EACH) if taken is None or name in taken), None)
    if question is None or passages is None:
        raise TypeError(
            f"a module of Rerank has an input {' or '.join(_QUERIES)}, and one of {', '.join((*_ALL, *_EACH))}: "
            f"{type(module).__name__} has {', '.join(taken or ())}"
        )
    return question, passages


def _value(output: Any) -> Any:
    """The last field of a record, or the value itself."""
    if isinstance(output, Mapping) or (hasattr(output, "keys") and hasattr(output, "__getitem__")):
        names = list(output.keys())
        return output[names[-1]] if names else None
    return output


async def _called(function: Any, query: str, passages: list[Passage]) -> Any:
    if aio.is_coroutine_function(function):
        return await aio.awaited(function(query, passages))
    given = await aio.in_thread(function, query, passages)
    return await aio.awaited(given) if inspect.isawaitable(given) else given
