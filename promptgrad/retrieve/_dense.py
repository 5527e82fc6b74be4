"""`Dense`: search by meaning, as far as the vectors of an embedding model have it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from promptgrad import aio
from promptgrad.errors import DataError, MissingExtraError
from promptgrad.retrieve._best import best
from promptgrad.retrieve._filter import Filter
from promptgrad.retrieve._passage import Passage
from promptgrad.retrieve._passages import Lines, Passages
from promptgrad.retrieve._retriever import Stored, name_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

APPROXIMATE_FROM = 200_000
"""Passages from which on `Dense` searches a graph of neighbours.

With 256 numbers a vector, exact search takes 3.9 ms of CPU a query in 100,000 passages and 34 ms in a million, and so
7 ms here: a core is full with 140 searches a second. The graph takes .3 ms, and 28 s of CPU to build for 100,000.
"""

_CHUNK = 4096  # passages whose vectors are asked for at once
_SCORES = 1 << 24  # scores that are held at once
_PICKED = 4096  # vectors that are picked out at once
_SHARE = 0.2  # of all vectors, beyond which all of them are scored
_MORE = 64  # candidates beyond k, whose scores are computed again
_VECTORS = "vectors.npy"
_GRAPH = "graph.usearch"


class AsyncEmbedder(Protocol):
    """What `promptgrad.Embedder` is: an object whose coroutine `acall` gives the vectors of a list of texts."""

    async def acall(self, texts: list[str], /) -> Any: ...


EmbedderLike = Callable[[list[str]], Any] | AsyncEmbedder
"""Gives the vectors of a list of texts: a `promptgrad.Embedder`, or a function, plain or `async`."""


class Dense(Stored):
    """An index by the vectors of an embedding model: passages at a small angle to the query come first.

    The vectors of passages are asked for by the first search, or by `refresh()`, for those that have none yet, in
    chunks of 4,096 texts; a `promptgrad.Embedder` sends batches of its own, within its limits and the budget of the
    run, and remembers them. Search is exact, by numpy, in up to `approximate_from` passages, and under a filter;
    beyond, a graph of neighbours (HNSW, by usearch) finds candidates, and their scores are computed exactly.

    Example:
        ```python
        index = retrieve.Dense(passages, pg.Embedder("openai/text-embedding-3-small"))
        await index.asearch("Which river is in Rome?", k=3)
        ```

    Shape: vectors `(passages, size)`, float32, scaled to length 1; the score is the cosine.
    Cost: one embedding of each passage, and one of each query that the embedder does not know; no call of a language
    model.
    Source: Malkov and Yashunin 2016, arXiv 1603.09320, for the graph.

    Args:
        passages: Texts, mappings with a `text`, or `Document`s, as for `BM25`.
        embedder: Gives the vectors of a list of texts.
        query_embedder: Gives those of queries, for models that tell the two apart; by default `embedder`.
        approximate_from: Passages from which on the graph is used; None for never.

    Raises:
        TypeError: The embedder is not one. When called: it did not give one vector for each text.
        MissingExtraError: When called: numpy is not installed; or the index is large, and usearch is not.
    """

    kind = "dense"

    def __init__(
        self,
        passages: Iterable[Any],
        embedder: EmbedderLike,
        *,
        query_embedder: EmbedderLike | None = None,
        approximate_from: int | None = APPROXIMATE_FROM,
    ) -> None:
        for given in (embedder, query_embedder):
            if given is not None and not callable(given) and not hasattr(given, "acall"):
                raise TypeError(f"an embedder is a function of a list of texts, not {type(given).__name__}")
        self.embedder = embedder
        self.query_embedder = query_embedder
        self.approximate_from = approximate_from
        self._vectors: Vectors | None = None  # rows beyond _done are free
        self._done = 0
        self._graph: Any = None
        self._mapped: Path | None = None  # the file of a graph that is mapped into memory
        super().__init__(passages)

    async def arefresh(self) -> None:
        """Ask for the vectors of passages that have none, and put them into the graph, if there is one."""
        async with self._turn:
            while self._done < len(self.passages):
                texts = list(self.passages.texts(self._done, min(self._done + _CHUNK, len(self.passages))))
                vectors = await _embedded(self.embedder, texts)
                with self._lock:
                    self._keep(vectors)
            if self.approximate_from is not None and self._done >= max(self.approximate_from, 1):
                await self._heavy(self._connect)

    def _keep(self, vectors: Vectors) -> None:
        import numpy as np

        need, size = self._done + len(vectors), vectors.shape[1]
        if self._vectors is None or not self._done:
            self._vectors = np.empty((max(len(self.passages), need), size), dtype=np.float32)
        if size != self._vectors.shape[1]:
            raise DataError(
                f"the embedder {name_of(self.embedder)} gives vectors of {size} numbers, and those of the index have "
                f"{self._vectors.shape[1]}"
            )
        if len(self._vectors) < need or not self._vectors.flags.writeable:
            grown = np.empty((max(need, len(self._vectors) * 3 // 2, len(self.passages)), size), dtype=np.float32)
            grown[: self._done] = self._vectors[: self._done]
            self._vectors = grown
        self._vectors[self._done : need] = vectors
        self._done = need

    def _connect(self) -> None:
        """Put the vectors that are not in it into the graph: one after the other, so that it is the same each time."""
        import numpy as np

        with self._lock:
            rows = self._rows()
            if self._graph is None:
                self._graph = _new_graph(rows.shape[1])
            known = len(self._graph)
            if known < len(rows):
                if self._mapped is not None:  # it is read where it stands, so it cannot grow there
                    self._graph = _new_graph(rows.shape[1])
                    self._graph.load(str(self._mapped))
                    self._mapped = None
                self._graph.add(np.arange(known, len(rows)), rows[known:], threads=1)

    def _rows(self) -> Vectors:
        import numpy as np

        return np.empty((0, 1), dtype=np.float32) if self._vectors is None else self._vectors[: self._done]

    async def _search(self, queries: list[str], k: int, wanted: Filter | None) -> list[list[Passage]]:
        await self.arefresh()
        if not self._done or not queries:
            return [[] for _ in queries]
        vectors = await _embedded(self.query_embedder or self.embedder, queries)
        rows, graph = self._rows(), self._graph
        if vectors.shape[1] != rows.shape[1]:
            raise DataError(
                f"the vectors of queries have {vectors.shape[1]} numbers, and those of passages {rows.shape[1]}: give "
                "the index the embedder that it was made with"
            )
        found: list[list[Passage]] = await self._heavy(self._find, rows, graph, vectors, k, wanted)
        return found

    def _find(self, rows: Vectors, graph: Any, queries: Vectors, k: int, wanted: Filter | None) -> list[list[Passage]]:
        if graph is not None and wanted is None:
            return [self._shown(rows, query, _near(graph, query, k + _MORE), k) for query in queries]
        import numpy as np

        mask = self._mask(wanted)
        places = None if mask is None else np.flatnonzero(mask[: len(rows)])
        number = len(rows) if places is None else len(places)
        function = None if wanted is None or isinstance(wanted, Mapping) else wanted
        step = max(1, _SCORES // max(len(rows), 1))
        found = []
        for begin in range(0, len(queries), step):
            block = queries[begin : begin + step]
            scores = _scores(rows, places, block)
            for query, row in zip(block, scores, strict=True):
                most = k + _MORE
                while True:
                    near = best(row, most)
                    near = near if places is None else places[near]
                    shown = self._shown(rows, query, near, k, function)
                    if function is None or len(shown) == k or most >= number:
                        break
                    most *= 4
                found.append(shown)
        return found

    def _shown(self, rows: Vectors, query: Vectors, places: Any, k: int, function: Any = None) -> list[Passage]:
        """The best of candidates, by scores that do not depend on what else was computed beside them."""
        import numpy as np

        exact = np.round((rows[places].astype(np.float64) * query.astype(np.float64)).sum(axis=1), 6)
        shown: list[Passage] = []
        for at in np.lexsort((places, -exact)).tolist():
            if len(shown) == k:
                break
            passage = self.passages.passage(int(places[at]), float(exact[at]))
            if function is None or function(passage):
                shown.append(passage)
        return shown

    def _settings(self) -> dict[str, Any]:
        return {
            "embedder": name_of(self.embedder),
            "query_embedder": name_of(self.query_embedder),
            "approximate_from": self.approximate_from,
        }

    def _write(self, folder: Path) -> None:
        import numpy as np

        with self._lock:
            self.passages.write(folder)
            np.save(folder / _VECTORS, self._rows(), allow_pickle=False)
            if self._graph is not None:
                self._graph.save(str(folder / _GRAPH))

    @classmethod
    def _read_back(cls, folder: Path, settings: dict[str, Any], given: dict[str, Any]) -> Dense:
        import numpy as np

        embedders: dict[str, Any] = {}
        for what in ("embedder", "query_embedder"):
            embedder, name = given.get(what), settings[what]
            if isinstance(embedder, Mapping):
                embedder = embedder.get(name)
            if name_of(embedder) != name and (embedder is not None or what == "embedder" or name is not None):
                raise DataError(
                    f"the index was made with the {what} {name}, and a folder holds no model: pass {what}=... to load "
                    f"it; this is {name_of(embedder)}"
                )
            embedders[what] = embedder
        index = cls(
            (),
            embedders["embedder"],
            query_embedder=embedders["query_embedder"],
            approximate_from=settings["approximate_from"],
        )
        index.passages = Passages(Lines(folder))
        vectors = np.load(folder / _VECTORS, mmap_mode="r", allow_pickle=False)
        if vectors.ndim != 2 or vectors.dtype != np.float32 or len(vectors) > len(index.passages):
            raise DataError(f"the vectors in {folder} do not fit its passages: build the index anew from its passages")
        index._vectors, index._done = np.asarray(vectors), len(vectors)
        if (folder / _GRAPH).exists():
            index._graph = _new_graph(vectors.shape[1])
            index._mapped = folder / _GRAPH
            index._graph.view(str(index._mapped))
        return index

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_graph": None, "_mapped": None, "_vectors": self._rows()}

    def __repr__(self) -> str:
        lack = len(self.passages) - self._done
        waiting = f", {lack:,} without a vector yet" if lack else ""
        size = "" if self._vectors is None else f", size={self._vectors.shape[1]}"
        return f"Dense({len(self):,} passages{waiting}, embedder={name_of(self.embedder)!r}{size})"


def _new_graph(size: int) -> Any:
    try:
        from usearch.index import Index
    except ImportError as error:
        raise MissingExtraError(extra="retrieve", package="usearch") from error
    return Index(ndim=size, metric="ip", dtype="bf16")


def _scores(rows: Vectors, places: Any, queries: Vectors) -> Vectors:
    """The scores of all vectors, or of those at some places, without a copy of so many of them."""
    import numpy as np

    if places is None:
        return np.ascontiguousarray((rows @ queries.T).T)
    if len(places) > _SHARE * len(rows):  # to pick them out costs more than to score the others as well
        return np.ascontiguousarray((rows @ queries.T)[places].T)
    scores = np.empty((len(queries), len(places)), dtype=np.float32)
    for begin in range(0, len(places), _PICKED):
        some = places[begin : begin + _PICKED]
        scores[:, begin : begin + len(some)] = (rows[some] @ queries.T).T
    return scores


def _near(graph: Any, query: Vectors, count: int) -> Any:
    import numpy as np

    return np.sort(graph.search(query, count, threads=1).keys.astype(np.int64))


async def _embedded(embedder: Any, texts: list[str]) -> Vectors:
    """The vectors of texts, scaled to length 1."""
    import numpy as np

    call = getattr(embedder, "acall", None)
    if call is not None and aio.is_coroutine_function(call):
        given = await call(texts)
    elif aio.is_coroutine_function(embedder):
        given = await aio.awaited(embedder(texts))
    else:
        given = await aio.in_thread(embedder, texts)
    name = name_of(embedder)
    try:
        vectors = np.asarray(given, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise TypeError(f"the embedder {name} returns one vector for each text, all of one length ({error})") from None
    if vectors.ndim != 2 or len(vectors) != len(texts) or not vectors.shape[1]:
        shape = "x".join(map(str, vectors.shape)) or "one number"
        raise TypeError(
            f"the embedder {name} returns one vector for each text, and gave {shape} for {len(texts)} texts"
        )
    if not np.isfinite(vectors).all():
        raise DataError(f"the embedder {name} gave vectors with numbers that are not finite (NaN, or an infinity)")
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    scaled: Vectors = (vectors / lengths).astype(np.float32, copy=False)
    return scaled
