"""`Hybrid`: several indexes of the same passages, whose rankings are fused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import tee
from pathlib import Path
from typing import Any

from promptgrad import aio
from promptgrad.retrieve._filter import Filter
from promptgrad.retrieve._passage import Passage
from promptgrad.retrieve._retriever import Retriever, read_member, write_members


class Hybrid(Retriever):
    """Several indexes of the same passages as one: passages that many of them rank high come first.

    The score of a passage is the sum over the indexes of `weight / (constant + rank)`, with ranks from 1; scores of the
    indexes themselves, which do not compare, do not count. Of equal scores, what the first index found comes first.

    Cost: what the indexes cost; they are searched side by side, each for `depth` passages or `k`, if that is more.
    Source: Cormack, Clarke and Buettcher 2009, "Reciprocal Rank Fusion Outperforms Condorcet and Individual Rank
    Learning Methods"; the constant is theirs.

    Args:
        indexes: The indexes, two or more. Passages are the same if their ids are.
        weights: What each counts; 1 by default.
        constant: The larger it is, the less the first ranks stand out.
        depth: Passages of each index that are fused.

    Raises:
        ValueError: There are fewer than two indexes, or another number of weights.
        TypeError: One is no index.
    """

    kind = "hybrid"

    def __init__(
        self,
        indexes: Iterable[Retriever],
        *,
        weights: Sequence[float] | None = None,
        constant: float = 60.0,
        depth: int = 100,
    ) -> None:
        self.indexes = tuple(indexes)
        for index in self.indexes:
            if not isinstance(index, Retriever):
                raise TypeError(f"a Hybrid is made of indexes of promptgrad.retrieve, not of {type(index).__name__}")
        if len(self.indexes) < 2:
            raise ValueError(f"a Hybrid is made of two indexes or more, not of {len(self.indexes)}")
        self.weights = tuple(map(float, weights)) if weights is not None else (1.0,) * len(self.indexes)
        if len(self.weights) != len(self.indexes):
            raise ValueError(f"there are {len(self.indexes)} indexes and {len(self.weights)} weights")
        self.constant = float(constant)
        self.depth = depth

    async def _search(self, queries: list[str], k: int, wanted: Filter | None) -> list[list[Passage]]:
        most = max(k, self.depth)
        parts = [partial(index._search, queries, most, wanted) for index in self.indexes]
        found = await aio.gather(parts)
        return [self._fused([rows[number] for rows in found], k) for number in range(len(queries))]

    def _fused(self, rankings: list[list[Passage]], k: int) -> list[Passage]:
        scores: dict[str, float] = {}
        first: dict[str, Passage] = {}
        for weight, ranking in zip(self.weights, rankings, strict=True):
            for rank, passage in enumerate(ranking, 1):
                scores[passage.id] = scores.get(passage.id, 0.0) + weight / (self.constant + rank)
                first.setdefault(passage.id, passage)
        ordered = sorted(first, key=lambda ident: -round(scores[ident], 12))
        return [first[ident].scored(scores[ident]) for ident in ordered[:k]]

    def add(self, passages: Iterable[Any]) -> None:
        """Add passages to all of the indexes."""
        for index, own in zip(self.indexes, tee(passages, len(self.indexes)), strict=True):
            index.add(own)

    async def arefresh(self) -> None:
        """As `refresh`, from a coroutine."""
        await aio.gather([index.arefresh for index in self.indexes])

    def __len__(self) -> int:
        return max(map(len, self.indexes))

    def _settings(self) -> dict[str, Any]:
        own = {"weights": list(self.weights), "constant": self.constant, "depth": self.depth}
        return {**own, "members": [[index.kind, index._settings()] for index in self.indexes]}

    def _known_by(self) -> Any:
        return [index._known_by() for index in self.indexes]

    def _write(self, folder: Path) -> None:
        write_members(folder, self.indexes)

    @classmethod
    def _read_back(cls, folder: Path, settings: dict[str, Any], given: dict[str, Any]) -> Hybrid:
        indexes = [
            read_member(folder / str(number), kind, own, given)
            for number, (kind, own) in enumerate(settings["members"])
        ]
        return cls(indexes, weights=settings["weights"], constant=settings["constant"], depth=settings["depth"])

    def __repr__(self) -> str:
        return f"Hybrid({', '.join(map(repr, self.indexes))})"
