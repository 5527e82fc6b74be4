"""Vectors of texts as replies of language models: the transports behind `Embedder`."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from promptgrad import aio
from promptgrad._patterns import late_pattern
from promptgrad.errors import BadRequestError, LMError, LMReplyError
from promptgrad.lm._api import Api
from promptgrad.lm._cache import MemoryStore
from promptgrad.lm._channel import DIRECT, answerer
from promptgrad.lm._codec import canonical_json
from promptgrad.lm._completion import CACHE_HIT, Completion, Usage
from promptgrad.lm._count import read_count
from promptgrad.lm._function import raise_as_ours
from promptgrad.lm._http import HTTP
from promptgrad.lm._message import EMPTY_PREFIX, Message
from promptgrad.lm._prices import Prices, cost
from promptgrad.lm._request import Request
from promptgrad.lm._transport import Transport

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

_WRITTEN = late_pattern(r"float32 (\d+)x(\d+) ([A-Za-z0-9+/=]*)")


def write_vectors(vectors: Vectors) -> str:
    """Vectors as a text: their type and shape, and their numbers in base64."""
    rows, size = vectors.shape
    return f"float32 {rows}x{size} {base64.b64encode(vectors.astype('<f4').tobytes()).decode('ascii')}"


def read_vectors(text: str) -> Vectors:
    """The vectors that `write_vectors` wrote.

    Raises:
        LMReplyError: The text has none.
    """
    import numpy as np

    found = _WRITTEN.fullmatch(text)
    data = base64.b64decode(found[3]) if found else b""
    if found is None or len(data) != 4 * int(found[1]) * int(found[2]):
        raise LMReplyError(f"this is no reply of an embedding model: {text[:80]!r}", body=text)
    return np.frombuffer(data, dtype="<f4").astype(np.float32, copy=False).reshape(int(found[1]), int(found[2]))


def request_for(texts: Sequence[str]) -> Request:
    """The request for the vectors of texts: each is a message. It asks for no tokens, and 1 is the least there is."""
    return Request(EMPTY_PREFIX, tuple([Message("user", text) for text in texts]), max_tokens=1)


class EmbeddingTransport(Transport):
    """A model that answers with the vectors of the messages of a request; a subclass defines `embed`.

    Vectors are remembered by text. A request whose texts are all known is booked as a hit of a cache is; of any other
    one the texts that are not known are sent, and its reply, in the journal too, has all vectors.

    Args:
        name: Name of the model.
        identity: What decides the vectors.
        memory: Where they are remembered; None for nowhere.
    """

    in_place = True

    def __init__(self, name: str, identity: str, memory: MemoryStore | None) -> None:
        super().__init__(name)
        self._identity = identity
        self._memory = memory

    async def embed(self, texts: Sequence[str], key: str) -> tuple[Vectors, int | None, str]:
        """The vectors of texts, the number of tokens if it is known, and the name of the model that answered."""
        raise NotImplementedError(f"{type(self).__name__} does not define embed()")

    async def complete(self, request: Request) -> Completion:
        """Answer with the vectors of the messages."""
        own = self._memory
        if own is None:
            return await super().complete(request)
        link, trackers = answerer()
        memory = own if link is DIRECT else link.memory(own)
        keys = [self._key(message.text) for message in request.tail]
        known = [hit for key in keys if (hit := memory.find(key)) is not None]
        if len(known) == len(keys):
            reply = self._from_memory(known)
            digest = request.digest(self.identity())
            paid = None if link is DIRECT else await link.book(self, request, digest, reply.to_dict)
            for tracker in trackers:
                tracker.hit(paid, self.name)
            return reply
        completion = await super().complete(request)
        vectors = read_vectors(completion.text)
        for place, key in enumerate(keys):
            memory.put(key, Completion(write_vectors(vectors[place : place + 1]), model=completion.model))
        return completion

    async def _send(self, request: Request, key: str) -> Completion:
        import numpy as np

        texts = [message.text for message in request.tail]
        known: dict[str, Completion] = {}
        if self._memory is not None:
            found = {text: self._memory.find(self._key(text)) for text in texts}
            known = {text: hit for text, hit in found.items() if hit is not None}
        fresh = [text for text in texts if text not in known]
        if not fresh:
            return self._from_memory([known[text] for text in texts])
        started = perf_counter()
        vectors, tokens, model = await self.embed(fresh, key)
        if vectors.ndim != 2 or len(vectors) != len(fresh) or not vectors.size:
            raise LMReplyError(
                f"{self.name} gave {_shape(vectors)} for {len(fresh)} texts: a vector for each is needed"
            )
        if not np.isfinite(vectors).all():
            raise LMReplyError(f"{self.name} gave vectors with numbers that are not finite (NaN, or an infinity)")
        if known:
            rows = dict(zip(fresh, vectors, strict=True))
            rows |= {text: read_vectors(hit.text)[0] for text, hit in known.items()}
            vectors = np.stack([rows[text] for text in texts])
        tokens = tokens or sum(map(len, fresh)) // 4 + 1
        usage = Usage(1, tokens, 0, cost(self.prices, tokens, 0), 0, perf_counter() - started)
        return Completion(write_vectors(vectors), usage, model or self.name)

    def _key(self, text: str) -> str:
        return request_for([text]).digest(self.identity())

    def _from_memory(self, hits: Sequence[Completion]) -> Completion:
        import numpy as np

        vectors = np.concatenate([read_vectors(hit.text) for hit in hits])
        return Completion(write_vectors(vectors), CACHE_HIT, hits[0].model, cached=True)


def _shape(vectors: Vectors) -> str:
    size = "x".join(map(str, vectors.shape))
    return f"{size} numbers" if vectors.ndim == 2 else f"an array of {size or 'no'} numbers"


class HTTPEmbedding(EmbeddingTransport):
    """An embedding model of a server that has OpenAI's `/embeddings`.

    Args:
        http: The model, its address, key, headers and prices.
        body: Further fields of each request, such as `dimensions`.
        memory: Where vectors are remembered.
    """

    def __init__(self, http: HTTP, body: Mapping[str, Any], memory: MemoryStore | None) -> None:
        super().__init__(http.name, f"embedding {http.identity()} {canonical_json(body)}", memory)
        self.http = http
        self.endpoint = f"{http.endpoint} embeddings"
        self._body = dict(body)
        self._api = Api(http)
        self._in_base64 = True

    @property
    def prices(self) -> Prices | None:
        """US dollars for a million tokens; None where they are not known."""
        return self.http.prices

    def stats(self) -> dict[str, Any]:
        """The requests to the server."""
        return self.http.stats()

    async def embed(self, texts: Sequence[str], key: str) -> tuple[Vectors, int | None, str]:
        """Send one request; the server that does not know base64 is asked for numbers, then and from then on."""
        body: dict[str, Any] = {"model": self.http.model, "input": list(texts), **self._body}
        if "encoding_format" in body or not self._in_base64:
            return self._read(await self._api.post_once("embeddings", body, key=key), len(texts))
        try:
            reply = await self._api.post_once("embeddings", {**body, "encoding_format": "base64"}, key=key)
        except BadRequestError as error:
            if "encoding_format" not in error.body and "base64" not in error.body:
                raise
            self._in_base64 = False
            reply = await self._api.post_once("embeddings", body, key=key)
        return self._read(reply, len(texts))

    def _read(self, reply: Mapping[str, Any], number: int) -> tuple[Vectors, int | None, str]:
        import numpy as np

        try:
            items = reply["data"]
            places = [int(item.get("index", place)) for place, item in enumerate(items)]
            if sorted(places) != list(range(number)):
                raise ValueError(f"it has {len(items)} vectors for {number} texts")
            rows: list[Any] = [None] * number
            for place, item in zip(places, items, strict=True):
                given = item["embedding"]
                rows[place] = (
                    np.frombuffer(base64.b64decode(given, validate=True), "<f4") if isinstance(given, str) else given
                )
            vectors = np.asarray(rows, dtype=np.float32)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            shown = self.http._scrub(str(reply))[:300]
            raise LMReplyError(f"the answer of {self.http.base_url} has no embeddings ({error}): {shown}") from None
        used, model = reply.get("usage"), reply.get("model")
        tokens = read_count(used.get("prompt_tokens")) if isinstance(used, dict) else None
        return vectors, tokens, model if isinstance(model, str) else self.http.model

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def __repr__(self) -> str:
        return f"HTTPEmbedding({self.http.model!r}, base_url={self.http.base_url!r})"


class FunctionEmbedding(EmbeddingTransport):
    """A function from a list of texts to their vectors, plain or `async`; a plain one runs in a thread."""

    def __init__(self, fn: Callable[[list[str]], Any], name: str, memory: MemoryStore | None) -> None:
        super().__init__(name, f"embedding function {name}", memory)
        self.fn = fn

    async def embed(self, texts: Sequence[str], key: str) -> tuple[Vectors, int | None, str]:
        """Call the function."""
        import numpy as np

        try:
            if aio.is_coroutine_function(self.fn):
                given = await aio.awaited(self.fn(list(texts)))
            else:
                given = await aio.in_thread(self.fn, list(texts))
        except Exception as error:  # noqa: BLE001 - it is raised
            raise_as_ours(error, f"the function of the embedder {self.name!r}")
        try:
            vectors = np.asarray(given, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise LMError(
                f"the function of the embedder {self.name!r} returns one vector for each text, all of one length, not "
                f"{type(given).__name__} ({error})"
            ) from None
        if vectors.ndim != 2 or len(vectors) != len(texts):  # as it is written: asking again would not change it
            raise LMError(
                f"the function of the embedder {self.name!r} returns one vector for each text of its list, and gave "
                f"{_shape(vectors)} for {len(texts)} text{'' if len(texts) == 1 else 's'}"
            )
        return vectors, None, self.name
