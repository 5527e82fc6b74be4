"""Gemini's grounding metadata as citations: what it found by searching, and which words of the reply say it.

`groundingChunks` are the places: pages of the web or of maps, and passages of the user's own store; `groundingSupports`
name a segment of the reply, in bytes from its beginning, with the numbers of its chunks. A segment at the beginning has
no `startIndex`, and litellm leaves it out of its annotations, so they are not taken where the metadata is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from promptgrad.content import Citation

_KINDS = ("web", "retrievedContext", "maps")


def read_grounding(told: object, text: str) -> Iterator[Citation]:
    """What a reply cites, for each of its segments; a chunk that no segment names comes last, without words.

    Args:
        told: The metadata of the candidates, a list or one.
        text: The text of the reply.
    """
    for metadata in [told] if isinstance(told, Mapping) else _listed(told):
        if not isinstance(metadata, Mapping):
            continue
        chunks = [_chunk(chunk) for chunk in _listed(metadata.get("groundingChunks"))]
        left = dict.fromkeys(range(len(chunks)))
        for support in _listed(metadata.get("groundingSupports")):
            if not isinstance(support, Mapping):
                continue
            said = _words_of(support.get("segment"), text)
            for place in _listed(support.get("groundingChunkIndices")):
                if isinstance(place, int) and 0 <= place < len(chunks) and chunks[place] is not None:
                    left.pop(place, None)
                    yield _citation(chunks[place] or {}, said)
        yield from (_citation(chunks[place] or {}, "") for place in left if chunks[place] is not None)


def _chunk(chunk: object) -> Mapping[str, Any] | None:
    if not isinstance(chunk, Mapping):
        return None
    return next((chunk[kind] for kind in _KINDS if isinstance(chunk.get(kind), Mapping) and chunk[kind]), None)


def _citation(chunk: Mapping[str, Any], said: str) -> Citation:
    return Citation(0, _text(chunk.get("text")), _text(chunk.get("title")), _text(chunk.get("uri")), said)


def _words_of(segment: object, text: str) -> str:
    """The words of a segment: those that it has, else the bytes that it names."""
    if not isinstance(segment, Mapping):
        return ""
    if isinstance(segment.get("text"), str):
        return str(segment["text"])
    start, end = segment.get("startIndex", 0), segment.get("endIndex")
    if not (isinstance(start, int) and isinstance(end, int)) or segment.get("partIndex"):
        return ""
    raw = text.encode("utf-8", "surrogatepass")
    return raw[start:end].decode("utf-8", "ignore") if 0 <= start < end <= len(raw) else ""


def _listed(value: object) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else ()


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
