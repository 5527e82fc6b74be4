"""`Embedder`: the vectors of texts, from a provider, a server, a folder or a function."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgrad import aio
from promptgrad.lm._base import LM
from promptgrad.lm._cache import MemoryStore
from promptgrad.lm._embedding import (
    EmbeddingTransport,
    FunctionEmbedding,
    HTTPEmbedding,
    read_vectors,
    request_for,
)
from promptgrad.lm._http import HTTP
from promptgrad.lm._limit import Limit
from promptgrad.lm._prices import Prices
from promptgrad.lm._providers import provider_of
from promptgrad.lm._resolve import ATTEMPTS
from promptgrad.lm._retry import Retry
from promptgrad.lm._secret import without_secrets
from promptgrad.lm._settings import default
from promptgrad.lm._silence import SILENCE

if TYPE_CHECKING:
    from promptgrad.lm._embedding import Vectors

EMBEDDER_CONCURRENCY = 32
"""Default for the most requests of an embedder in flight."""

MOST_CHARACTERS = 400_000
"""Most characters of the texts of one request, so that it stays below what providers take at once."""

EmbedderLike = str | os.PathLike[str] | Callable[[list[str]], Any]
"""The argument from which an `Embedder` is made."""


class Embedder:
    """Turns texts into vectors: `embed(["a text", "another"])` is an array of float32, a row for each text.

    The model is a name with a provider (`openai/text-embedding-3-small`, `hosted_vllm/...`, `ollama/...`), a bare name
    with the `base_url` of a server that has OpenAI's `/embeddings`, a folder with a model of transformers, or a
    function from a list of texts to their vectors, plain or `async`. A folder of sentence-transformers is pooled as it
    says; any other one has the mean of the last hidden states.

    Texts go out in batches, each text once; what is known from before is not sent again. A batch is a call as any
    other: retries and the concurrency cap are those of `Retry` and `Limit`, `track_usage` counts it, a run reserves it
    from its budget, journals its vectors and has them again when it is resumed, and `record` and `replay` hold for it.

    Example:
        ```python
        embed = pg.Embedder("openai/text-embedding-3-small", dimensions=256, cache="cache")
        vectors = embed(["a cat", "a dog"])     # shape (2, 256)
        vector = await embed.acall("a cat")     # shape (256,)
        optim.KNNFewShot(program.parameters(), k=4, vectorizer=embed)
        ```

    Cost: one call for each `batch_size` texts that are not known; none of a language model.

    Args:
        model: A name, a folder, or a function.
        base_url: Address of the server.
        api_key: The key; by default the environment's, read at each call.
        dimensions: Length of the vectors, where the model lets one choose; sent to the server.
        batch_size: Most texts of one request.
        cache: True remembers vectors in memory and, if `configure(cache=...)` names a folder, on disk; a folder on disk
            there, in the file that caches of language models use; False or None remembers nothing.
        max_entries: Most vectors that are kept in memory.
        attempts: Most times a request is sent while its failure may pass.
        concurrency: Most requests in flight.
        requests_per_minute: Most requests in any minute.
        timeout: The longest silence of the server, in seconds.
        prices: US dollars for a million tokens, and a second number that does not count; by default those of litellm's
            table.
        headers: Further headers, shown nowhere.
        extra_body: Further fields of each request, such as `{"input_type": "query"}`.
        device: Where a model of a folder computes, as for `lm.Local`.
        name: Name in reports, and as a vectorizer; by default the model's.

    Attributes:
        name: Its name.
        lm: The language model behind it, with its layers: a request's messages are the texts, its reply the vectors.

    Raises:
        TypeError: `model` is none of these.
        ValueError: It is not known how to reach the model, a number is below one, or a function has no name.
    """

    def __init__(
        self,
        model: EmbedderLike,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        dimensions: int | None = None,
        batch_size: int = 128,
        cache: str | os.PathLike[str] | bool | None = True,
        max_entries: int = 10_000,
        attempts: int = ATTEMPTS,
        concurrency: int = EMBEDDER_CONCURRENCY,
        requests_per_minute: int | None = None,
        timeout: float = SILENCE,
        prices: Prices | None = None,
        headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        device: str = "auto",
        name: str = "",
    ) -> None:
        settings = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        self._made_by = without_secrets(settings)
        for what, number in (("batch_size", batch_size), ("max_entries", max_entries), ("dimensions", dimensions)):
            if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
                raise ValueError(f"{what} is a whole number of at least 1, not {number!r}")
        self.batch_size = batch_size
        memory = _memory(cache, max_entries)
        body = {**({} if dimensions is None else {"dimensions": dimensions}), **(extra_body or {})}
        transport: EmbeddingTransport
        if isinstance(model, (str, os.PathLike)):
            place = Path(model)
            provider = provider_of(model, base_url) if isinstance(model, str) else None
            if provider is None and base_url is None:
                transport = _of_folder(place, str(model), name, memory, device)
            else:
                text = str(model)
                free = provider is not None and provider.free and prices is None
                http = HTTP(
                    text if provider is None else provider.bare(text),
                    str(base_url) if provider is None else provider.address(base_url),
                    api_key,
                    api_key_env=None if provider is None else provider.key,
                    timeout=timeout,
                    prices=(0.0, 0.0) if free else prices,
                    headers=headers,
                    name=name or text,
                )
                transport = HTTPEmbedding(http, body, memory)
        elif callable(model) and not isinstance(model, (type, LM)):
            named = name or getattr(model, "name", None) or getattr(model, "__name__", None) or type(model).__name__
            if not isinstance(named, str) or named == "<lambda>":
                raise ValueError("a function of an embedder needs a name, which is part of cache keys: pass name=")
            transport = FunctionEmbedding(model, named, memory)
        else:
            raise TypeError(f"an Embedder takes a name, a folder or a function of a list of texts, not {model!r}")
        if body and not isinstance(transport, HTTPEmbedding):
            raise ValueError(f"{', '.join(body)}: only a model behind a server takes fields of a request")
        self.name = transport.name
        limit = Limit(transport, concurrency, requests_per_minute=requests_per_minute)
        self.lm: LM = Retry(limit, attempts, turns=max(1, 2 * attempts - 1))

    def __call__(self, texts: str | Iterable[str]) -> Vectors:
        """The vectors of texts; the thread waits. Shape: (texts, size), or (size,) for one text.

        Raises:
            AsyncUsageError: Called where waiting would block a running loop of ours; use `await embed.acall(...)`.
            TypeError: Something is no text.
            LMError, BudgetExceeded: As a call of a language model.
        """
        return aio.drive(self.acall(texts))

    async def acall(self, texts: str | Iterable[str]) -> Vectors:
        """As a call, from a coroutine."""
        import numpy as np

        if isinstance(texts, str):
            one: Vectors = (await self._embed([texts]))[0]
            return one
        if not isinstance(texts, Iterable):
            raise TypeError(f"an Embedder takes a text or a list of texts, not {type(texts).__name__}")
        given = list(texts)
        strange = [place for place, text in enumerate(given) if not isinstance(text, str)]
        if strange:
            kind = type(given[strange[0]]).__name__
            raise TypeError(f"an Embedder takes texts: number {strange[0] + 1} of {len(given)} is of type {kind}")
        return await self._embed(given) if given else np.zeros((0, 0), dtype=np.float32)

    async def _embed(self, texts: list[str]) -> Vectors:
        import numpy as np

        places = {text: place for place, text in enumerate(dict.fromkeys(map(str.__str__, texts)))}
        requests = [request_for(chunk) for chunk in self._chunks(places)]
        if len(requests) == 1:
            replies = [await self.lm.acall(requests[0])]
        else:
            replies = await aio.each(self.lm.acall, requests)
        vectors = np.concatenate([read_vectors(reply.text) for reply in replies])
        return vectors[[places[text] for text in texts]]

    def _chunks(self, texts: Iterable[str]) -> Iterator[list[str]]:
        chunk: list[str] = []
        size = 0
        for text in texts:
            if chunk and (len(chunk) == self.batch_size or size + len(text) > MOST_CHARACTERS):
                yield chunk
                chunk, size = [], 0
            chunk.append(text)
            size += len(text)
        yield chunk

    def stats(self) -> dict[str, Any]:
        """The counts of the layers and the transport, as those of a language model."""
        return self.lm.stats()

    def close(self) -> None:
        """Release connections and files; if it is used again, it opens them anew."""
        transport = self.lm.transport
        if isinstance(transport, EmbeddingTransport) and transport._memory is not None:
            store = transport._memory.store
            if store is not None:
                store.close()
        self.lm.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._made_by,)

    def __copy__(self) -> Embedder:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Embedder:
        return self

    def __repr__(self) -> str:
        return f"Embedder({self.name!r}, batch_size={self.batch_size})"


def _again(settings: dict[str, Any]) -> Embedder:
    return Embedder(settings.pop("model"), **settings)


def _memory(cache: str | os.PathLike[str] | bool | None, most: int) -> MemoryStore | None:  # noqa: FBT001
    if cache is None or cache is False:
        return None
    memory = MemoryStore(most)
    folder = default().cache if cache is True else cache
    if folder is not None:
        memory.keep_in(folder)
    return memory


def _of_folder(place: Path, model: str, name: str, memory: MemoryStore | None, device: str) -> EmbeddingTransport:
    if not place.is_dir():
        raise ValueError(
            f"{model!r} is no folder and names no provider whose embeddings are known: write 'openai/...', give the "
            "base_url of a server that has OpenAI's /embeddings (most providers have one), or a function of a list of "
            "texts"
        )
    from promptgrad.lm._embedding_local import LocalEmbedding

    return LocalEmbedding(place, name or place.absolute().name, memory, device)
