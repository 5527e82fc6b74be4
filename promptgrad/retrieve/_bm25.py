"""`BM25`: search by words."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from promptgrad.errors import DataError, MissingExtraError
from promptgrad.retrieve._filter import Filter
from promptgrad.retrieve._passage import Passage
from promptgrad.retrieve._passages import Lines, Passages
from promptgrad.retrieve._postings import Postings, Unjoined
from promptgrad.retrieve._retriever import Stored, name_of
from promptgrad.retrieve._words import words

Tokenizer = Callable[[str], list[str]]
"""Gives the words of a text, of passages and of queries alike."""

Stemmer = Callable[[str], str]
"""Gives the stem of a word."""

_LANGUAGES = {
    "da": "danish",
    "de": "german",
    "en": "en",
    "english": "en",
    "es": "spanish",
    "fr": "french",
    "it": "italian",
    "ko": "korean",
    "nl": "dutch",
    "no": "norwegian",
    "pt": "portuguese",
    "ru": "russian",
    "sv": "swedish",
    "tr": "turkish",
    "zh": "chinese",
}
_BLOCK = 50_000  # passages whose words are counted at once
_LITTLE = 10  # times as many passages as were added: these are searched apart
_COUNTS = "counts.npy"
_LENGTHS = "lengths.npy"
_ARRAYS = ("data.csc.index.npy", "indices.csc.index.npy", "indptr.csc.index.npy", _COUNTS, _LENGTHS)
"""The first three as bm25s names them: the folder of the files is one of its indexes, too."""


class BM25(Stored):
    """An index by words: passages that share rare words with the query come first. No model, no network.

    A passage fits if it shares at least one word that is no stop word. Words are compared without case; give a stemmer
    to find "cells" by "cell", such as `Stemmer.Stemmer("english")` of the package PyStemmer.

    Example:
        ```python
        index = retrieve.BM25(["The Seine flows through Paris.", "The Tiber flows through Rome."])
        index.search("Which river is in Rome?", k=1)[0]
        ```

    Cost: no call of a model. Building takes about 20 us for a passage of 50 words. After `add` the words of the new
    passages alone are read, and searched apart until they are a tenth of the index, when all scores are computed anew.

    Source: Robertson and Zaragoza 2009, The Probabilistic Relevance Framework; scores as in Lucene, searched by bm25s
    (Lu 2024, arXiv 2407.03618). Differs from bm25s: one-letter words count, scripts without blanks are split into
    pairs of signs, passages can be added, ties have an order, and passages without a common word are not found.

    Args:
        passages: Texts, mappings with a `text` (and an `id`, a `title`, metadata), or `Document`s.
        k1: How fast repeated words stop counting.
        b: How much long passages are marked down, from 0 to 1.
        stopwords: Words that do not count: a list, or a language that bm25s knows, such as "en" or "german"; None for
            none.
        stemmer: A function from a word to its stem, or an object with `stemWord`.
        tokenizer: A function from a text to its words.

    Raises:
        MissingExtraError: bm25s is not installed.
        DataError: One is no passage, or an id stands twice.
        ValueError: `k1` or `b` is out of range, or the language of the stop words is not known.
    """

    kind = "bm25"

    def __init__(
        self,
        passages: Iterable[Any] = (),
        *,
        k1: float = 1.5,
        b: float = 0.75,
        stopwords: str | Iterable[str] | None = "en",
        stemmer: Any = None,
        tokenizer: Tokenizer = words,
    ) -> None:
        if not k1 >= 0 or not 0 <= b <= 1:
            raise ValueError(f"k1 is at least 0 and b between 0 and 1, not {k1} and {b}")
        self.k1, self.b = float(k1), float(b)
        self.stopwords = _stopwords(stopwords)
        self.tokenizer = tokenizer
        self.stemmer: Stemmer | None = _stemmer(stemmer)
        _need_bm25s()
        self._ready: Any = None  # what searches all passages; None where passages were added since
        self._numbers: dict[str, int] = {}  # of stems
        self._known: dict[str, int] = dict.fromkeys(self.stopwords, -1)  # of words as they are written
        self._parts: list[Postings] = []  # what was counted, in the order of the passages
        self._tokens, self._lengths = array("i"), array("i")  # of the passages behind those
        self._seen = 0  # passages whose words were read
        super().__init__(passages)
        self._read()

    def add(self, passages: Iterable[Any]) -> None:
        """Add passages; their words are read now, and counted by the next search."""
        with self._lock:
            self.passages.add(passages)
            self._read()

    def _read(self) -> None:
        """Read the words of the passages that are new."""
        for text in self.passages.texts(self._seen):
            before = len(self._tokens)
            self._tokens.extend(self._words(text, learn=True))
            self._lengths.append(len(self._tokens) - before)
            if len(self._lengths) == _BLOCK:
                self._count()
        self._seen = len(self.passages)
        self._ready = None

    def _count(self) -> None:
        """Count the words that were read."""
        import numpy as np

        tokens, lengths = np.array(self._tokens, dtype=np.int32), np.array(self._lengths, dtype=np.int32)
        self._parts.append(Postings.of(tokens, lengths, len(self._numbers)))
        self._tokens, self._lengths = array("i"), array("i")

    def _words(self, text: str, *, learn: bool = False) -> list[int]:
        """Numbers of the words that count; words that no passage has are left out unless they are learnt."""
        known, found = self._known, []
        for word in self.tokenizer(text):
            number = known.get(word)
            if number is None:
                stem = word if self.stemmer is None else self.stemmer(word)
                number = self._numbers.get(stem)
                if number is None:
                    if not learn:
                        continue
                    number = self._numbers[stem] = len(self._numbers)
                if learn:
                    known[word] = number
            if number >= 0:
                found.append(number)
        return found

    async def arefresh(self) -> None:
        """Compute the scores, if passages were added."""
        await self._current()

    async def _current(self) -> Any:
        """What searches the passages that are there now: an index of bm25s, or of two parts."""
        engine = self._ready
        if engine is None:
            async with self._turn:
                engine = self._ready or await self._heavy(self._score)
        return engine

    def _score(self) -> Any:
        with self._lock:
            if self._lengths or not self._parts:
                self._count()
            base = len(self._parts[0].lengths)
            if len(self._parts) == 1 or _LITTLE * (self._seen - base) > base:
                return self._joined()
            fresh = self._parts[1] if len(self._parts) == 2 else Postings.joined(self._parts[1:], len(self._numbers))
            self._parts = [self._parts[0], fresh]
            self._ready = Unjoined(self._parts, self.k1, self.b)
            return self._ready

    def _joined(self) -> Any:
        """The bm25s index of all passages."""
        if self._lengths or not self._parts:
            self._count()
        if len(self._parts) > 1:
            self._parts = [Postings.joined(self._parts, len(self._numbers))]
        (postings,) = self._parts
        self._ready = _engine(self.k1, self.b, postings, postings.scores(self.k1, self.b))
        return self._ready

    async def _search(self, queries: list[str], k: int, wanted: Filter | None) -> list[list[Passage]]:
        engine = await self._current()
        found: list[list[Passage]] = await self._heavy(self._find, engine, queries, k, wanted)
        return found

    def _find(self, engine: Any, queries: list[str], k: int, wanted: Filter | None) -> list[list[Passage]]:
        return [self._found(engine, query, k, wanted) for query in queries]

    def _found(self, engine: Any, query: str, k: int, wanted: Filter | None) -> list[Passage]:
        known = engine.words if isinstance(engine, Unjoined) else len(engine.scores["indptr"]) - 1
        numbers = [number for number in self._words(query) if number < known]
        if not numbers:
            return []
        scores = engine.get_scores_from_ids(numbers)
        if (mask := self._mask(wanted)) is not None:
            scores[~mask[: len(scores)]] = 0
        return [self.passages.passage(place, score) for place, score in self._accepted(scores, k, wanted, 0.0)]

    def _settings(self) -> dict[str, Any]:
        return {
            "k1": self.k1,
            "b": self.b,
            "stopwords": list(self.stopwords),
            "stemmer": name_of(self.stemmer),
            "tokenizer": name_of(self.tokenizer),
        }

    def _write(self, folder: Path) -> None:
        import numpy as np

        with self._lock:
            engine = self._ready
            if engine is None or isinstance(engine, Unjoined):
                engine = self._joined()
            (postings,) = self._parts
            self.passages.write(folder)
            engine.vocab_dict = self._numbers
            engine.save(folder, allow_pickle=False, show_progress=False)
            np.save(folder / _COUNTS, postings.counts, allow_pickle=False)
            np.save(folder / _LENGTHS, postings.lengths, allow_pickle=False)

    @classmethod
    def _read_back(cls, folder: Path, settings: dict[str, Any], given: dict[str, Any]) -> BM25:
        import numpy as np

        functions: dict[str, Any] = {}
        for what, default in (("tokenizer", words), ("stemmer", None)):
            functions[what] = given.get(what) or default
            name = name_of(_stemmer(functions[what]) if what == "stemmer" else functions[what])
            if name != settings.get(what):
                raise DataError(
                    f"the index was made with the {what} {settings.get(what)}, and a folder holds no code: pass "
                    f"{what}=... to load it; this is {name}"
                )
        index = cls(k1=settings["k1"], b=settings["b"], stopwords=settings["stopwords"], **functions)
        index.passages = Passages(Lines(folder))
        index._numbers = json.loads((folder / "vocab.index.json").read_text(encoding="utf-8"))
        index._known |= {} if index.stemmer is not None else index._numbers
        scores, places, starts, counts, lengths = (
            np.asarray(np.load(folder / name, mmap_mode="r", allow_pickle=False)) for name in _ARRAYS
        )
        fits = len(starts) == len(index._numbers) + 1 and len(counts) == len(places) == len(scores) == int(starts[-1])
        if not fits or len(lengths) != len(index.passages):
            raise DataError(f"the arrays in {folder} do not fit one another: build the index anew from its passages")
        index._seen = len(lengths)
        index._parts = [Postings(starts, places, counts, lengths)]
        index._ready = _engine(index.k1, index.b, index._parts[0], scores)
        return index

    def __repr__(self) -> str:
        stem = "" if self.stemmer is None else f", stemmer={name_of(self.stemmer)!r}"
        return f"BM25({len(self):,} passages, {len(self._numbers):,} words, k1={self.k1:g}, b={self.b:g}{stem})"


def _need_bm25s() -> Any:
    try:
        import bm25s
    except ImportError as error:
        raise MissingExtraError(extra="retrieve", package="bm25s") from error
    return bm25s


def _engine(k1: float, b: float, postings: Postings, scores: Any) -> Any:
    """An index of bm25s with these scores."""
    engine = _need_bm25s().BM25(k1=k1, b=b, method="lucene", backend="numpy")
    engine.nonoccurrence_array = None
    engine.scores = {
        "data": scores,
        "indices": postings.places,
        "indptr": postings.starts,
        "num_docs": len(postings.lengths),
    }
    return engine


def _stopwords(given: str | Iterable[str] | None) -> tuple[str, ...]:
    if given is None:
        return ()
    if not isinstance(given, str):
        return tuple(word.casefold() for word in given)
    _need_bm25s()
    from bm25s import stopwords

    name = _LANGUAGES.get(given.casefold(), given.casefold())
    found = getattr(stopwords, f"STOPWORDS_{name.upper()}", None)
    if found is None:
        raise ValueError(
            f"the stop words of {given!r} are not known: give a list of words, None, or one of {', '.join(_LANGUAGES)}"
        )
    return tuple(found)


def _stemmer(given: Any) -> Stemmer | None:
    if given is None:
        return None
    stem = getattr(given, "stemWord", given)
    if not callable(stem):
        raise TypeError(f"a stemmer is a function from a word to its stem, not {type(given).__name__}")
    return stem  # type: ignore[no-any-return]
