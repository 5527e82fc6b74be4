"""`Neighbours`: demos that are chosen by the inputs of each call; `ngrams`, the default comparison of texts."""

import dataclasses
import inspect
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import nsmallest
from math import sqrt
from numbers import Integral
from typing import Any

from promptgrad import aio
from promptgrad.autograd import register_selector
from promptgrad.data import Example
from promptgrad.errors import DataError
from promptgrad.run import value_digest

Vectorizer = Callable[[list[str]], Any]
"""Turns texts into vectors of one length, one for each text, as lists of numbers or an array; similar texts get vectors
at a small angle."""

_DIMENSIONS = 512
_KEPT = 1024  # tuples of demos that are kept, so that equal choices are compiled once
_lock = threading.Lock()


def ngrams(texts: list[str]) -> list[list[float]]:
    """Count the words and the letter trigrams of each text, hashed into 512 numbers: the default vectorizer.

    It compares spelling, not meaning. The same text gives the same vector in every process.
    """
    return [_counts(text.casefold().split()) for text in texts]


def _counts(words: list[str]) -> list[float]:
    vector = [0.0] * _DIMENSIONS
    for word in words:
        padded = f" {word} "
        for part in (padded, *(padded[i : i + 3] for i in range(len(padded) - 2))):
            vector[zlib.crc32(part.encode("utf-8", "surrogatepass")) % _DIMENSIONS] += 1.0
    return [sqrt(count) for count in vector]


_vectorizers: dict[str, Vectorizer] = {"ngrams": ngrams}


def register_vectorizer(name: str, vectorizer: Vectorizer) -> None:
    """Register a vectorizer of your own under the name that saved demos have for it, for `load_state_dict`.

    States hold no code: to load a program whose demos are chosen by a function of yours, register that function first.
    """
    _vectorizers[name] = vectorizer


def _name_of(vectorizer: Any) -> str:
    if not callable(vectorizer) or inspect.iscoroutinefunction(vectorizer):
        raise TypeError(f"a vectorizer is a plain function from a list of texts to their vectors, not {vectorizer!r}")
    name = getattr(vectorizer, "name", None) or getattr(vectorizer, "__name__", None) or type(vectorizer).__name__
    if not isinstance(name, str) or name == "<lambda>":
        raise ValueError("a vectorizer needs a name: define it with def, or give the object an attribute `name`")
    return name


class Neighbours:
    """The value of a demos parameter whose demos are the examples nearest to the inputs of each call.

    `predict.demos.data = nn.Neighbours(examples, k=3)`. It is immutable, and goes where demos go: into candidates,
    states, caches and cells (by content, `k` and the vectorizer's name). The nearest example comes last, next to the
    question. `predict.render(question=...)` shows the choice; without inputs, as in `export()`, nothing is chosen.

    Cost: no LM call. All examples are vectorized once, in the first call; then each call vectorizes its own inputs and
    takes the cosine with each example: with `ngrams` and short texts about 0.2 ms for 40 examples, 0.4 ms for 200. With
    demos that differ from call to call, a provider's cache of prompt prefixes does not help. A `pg.Embedder` makes one
    call for the examples, and one for each text that it does not know; it is awaited, so nothing else waits for it.

    Args:
        examples: The examples to choose from, each with its inputs marked (`Example.with_inputs`).
        k: How many to show to a call.
        vectorizer: A plain function from a list of texts to a list of vectors, `ngrams` by default, which runs in the
            thread of the call: one that takes long holds up the others. Or a `pg.Embedder`, or another object whose
            coroutine `acall` does the same.
        exclude_same: Leave out an example with the very inputs of the call. In training the program is run on its own
            examples: with its answer among the demos, an example comes out right whatever the rest of the prompt says,
            and candidates cannot be compared. The exclusion also holds later, when a question from training comes up.

    Raises:
        TypeError: `k` is no whole number, or the vectorizer no plain function.
        ValueError: `k` is below 1, or the vectorizer has no name.
        DataError: There is no example, or the inputs of one are not marked. When called: the vectorizer did not return
            one vector for each text.
    """

    __slots__ = (
        "_fields",
        "_id",
        "_index",
        "_kept",
        "_matrix",
        "_texts",
        "_turn",
        "examples",
        "exclude_same",
        "k",
        "name",
        "vectorizer",
    )

    def __init__(
        self,
        examples: Iterable[Any],
        k: int = 3,
        vectorizer: Vectorizer = ngrams,
        *,
        exclude_same: bool = True,
    ) -> None:
        given: Any = k
        if isinstance(given, bool) or not isinstance(given, Integral):
            raise TypeError(f"k is the number of demos, a whole number, not {k!r}")
        if k < 1:
            raise ValueError(f"k is the number of demos, at least 1, not {k}")
        self.examples = tuple(Example(example) for example in examples)
        if not self.examples or any(example.input_keys is None for example in self.examples):
            raise DataError("Neighbours takes examples with marked inputs: example.with_inputs(...)")
        self.k = k
        self.vectorizer = vectorizer
        self.name = _name_of(vectorizer)
        self.exclude_same = exclude_same
        self._fields = self.examples[0].input_keys or ()
        self._texts = [self._text(example.inputs()) for example in self.examples]
        self._id = ""
        self._index: dict[int, list[tuple[int, float]]] | None = None
        self._matrix: Any = None  # where the vectors are an array: those of the examples, scaled to length 1
        self._turn = aio.Semaphore(1)
        self._kept: dict[tuple[int, ...], tuple[Any, ...]] = {}

    @property
    def id(self) -> str:
        """Digest of the examples, `k` and the vectorizer's name."""
        if not self._id:
            rows = [[list(example.input_keys or ()), example.to_dict()] for example in self.examples]
            self._id = "neighbours-" + value_digest([rows, self.k, self.name, self.exclude_same])
        return self._id

    def select(self, inputs: Mapping[str, Any]) -> tuple[Any, ...]:
        """The `k` examples nearest to these inputs, the nearest last; of equally near ones the first."""
        if self._is_awaited:
            return aio.drive(self.aselect(inputs))
        text = self._text(inputs)
        return self._nearest(text, self._scores(text))

    async def aselect(self, inputs: Mapping[str, Any]) -> tuple[Any, ...]:
        """As `select`, from a coroutine."""
        if not self._is_awaited:
            return self.select(inputs)
        import numpy as np

        text = self._text(inputs)
        async with self._turn:
            if self._matrix is None:
                self._matrix = await self._awaited(self._texts)
        scores = self._matrix @ (await self._awaited([text]))[0]
        return self._nearest(text, np.round(scores.astype(float), 6).tolist())  # equal texts are equally near

    @property
    def _is_awaited(self) -> bool:
        return aio.is_coroutine_function(getattr(self.vectorizer, "acall", None))

    async def _awaited(self, texts: list[str]) -> Any:
        """The vectors of an object with a coroutine `acall`, scaled to length 1. Shape: (texts, size)."""
        import numpy as np

        embed: Any = self.vectorizer
        vectors = np.asarray(await embed.acall(list(texts)), dtype=np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise DataError(f"the vectorizer {self.name!r} gave {len(vectors)} vectors for {len(texts)} texts")
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def _nearest(self, text: str, scores: Sequence[float]) -> tuple[Any, ...]:
        places = [place for place, other in enumerate(self._texts) if not (self.exclude_same and other == text)]
        chosen = tuple(nsmallest(self.k, places, key=lambda place: -scores[place])[::-1])  # stable, as `sorted`
        demos = self._kept.get(chosen)
        if demos is None:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            demos = self._kept[chosen] = tuple(self.examples[place] for place in chosen)
        return demos

    def _text(self, inputs: Mapping[str, Any]) -> str:
        """The inputs as one text, with the fields in the order of the first example."""
        named = [(name, _written(inputs[name])) for name in self._fields if name in inputs]
        return named[0][1] if len(named) == 1 else "\n".join(f"{name}: {text}" for name, text in named)

    def _scores(self, text: str) -> list[float]:
        """The cosine of a text with each example; only non-zero parts are multiplied."""
        index = self._index
        if index is None:
            with _lock:
                index = self._index = self._made() if self._index is None else self._index
        scores = [0.0] * len(self.examples)
        for dimension, value in _parts(self._vectors([text])[0]):
            for place, weight in index.get(dimension, ()):
                scores[place] += value * weight
        return scores

    def _made(self) -> dict[int, list[tuple[int, float]]]:
        index: dict[int, list[tuple[int, float]]] = {}
        for place, vector in enumerate(self._vectors(self._texts)):
            for dimension, value in _parts(vector):
                index.setdefault(dimension, []).append((place, value))
        return index

    def _vectors(self, texts: list[str]) -> Sequence[Sequence[float]]:
        vectors: Sequence[Sequence[float]] = self.vectorizer(list(texts))
        if len(vectors) != len(texts):
            raise DataError(f"the vectorizer {self.name!r} gave {len(vectors)} vectors for {len(texts)} texts")
        return vectors

    def to_json(self, write: Callable[[Any], Any]) -> dict[str, Any]:
        """The selector in JSON types, for a state; the vectorizer by its name."""
        return {
            "selector": "neighbours",
            "k": self.k,
            "vectorizer": self.name,
            "exclude_same": self.exclude_same,
            "examples": [write(example) for example in self.examples],
        }

    def to_dict(self) -> dict[str, Any]:
        """As `to_json`, with examples as dicts, for journals."""
        return self.to_json(lambda example: example.to_dict())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Neighbours) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Neighbours":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (_again, (self.examples, self.k, self.vectorizer, self.exclude_same))

    def __repr__(self) -> str:
        return f"Neighbours(k={self.k} of {len(self.examples)} examples, vectorizer={self.name!r})"


def _again(examples: tuple[Any, ...], k: int, vectorizer: Vectorizer, exclude_same: bool) -> Neighbours:  # noqa: FBT001
    return Neighbours(examples, k, vectorizer, exclude_same=exclude_same)


def _written(value: Any) -> str:
    """A value as text, the same in every process: the items of a set are sorted."""
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(map(_written, value)))}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_written(key)}: {_written(item)}' for key, item in value.items())}}}"
    if isinstance(value, bytes):
        return value_digest(value)
    if dataclasses.is_dataclass(value):  # such as an image
        return _written({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    dump = getattr(value, "model_dump", None)  # a pydantic model
    return str(value) if dump is None else _written(dump())


def _parts(vector: Sequence[float]) -> list[tuple[int, float]]:
    """The non-zero parts of a vector, scaled to length 1."""
    parts = [(dimension, float(value)) for dimension, value in enumerate(vector) if value]
    length = sqrt(sum(value * value for _, value in parts))
    return [(dimension, value / length) for dimension, value in parts]


def _from_json(state: Mapping[str, Any], read: Callable[[Any], Any]) -> Neighbours:
    name = state.get("vectorizer")
    if name not in _vectorizers:
        raise ValueError(
            f"its vectorizer {name!r} is not known here, and a state holds no code: call "
            f"promptgrad.nn.register_vectorizer({name!r}, function) before loading"
        )
    examples = [read(example) for example in state.get("examples", ())]
    return Neighbours(examples, int(state["k"]), _vectorizers[name], exclude_same=bool(state["exclude_same"]))


register_selector("neighbours", _from_json)
