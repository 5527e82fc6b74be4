"""What a reply cites, in the fields in which providers tell it, and documents in the form in which they take them.

Anthropic ("Citations"): documents are blocks of a message, `citations.enabled` for all or none of them; each text of
the reply has its citations, which name a block by its place among all of the request. litellm passes both on, the
latter as `provider_specific_fields.citations`. OpenAI, OpenRouter and Perplexity tell pages as `annotations` of the
message, whose indices are places in the reply; some servers tell addresses alone, as `citations` of the whole reply.
Gemini's metadata is read by `_grounding.py`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from promptgrad.content import Citation
from promptgrad.lm._grounding import read_grounding
from promptgrad.lm._message import Message
from promptgrad.lm._parts import Content, FilePart, TextPart, text_of

if TYPE_CHECKING:
    from promptgrad.lm._request import Request

_PDF = "application/pdf"
_TOLD = frozenset({"annotations", "provider_specific_fields"})
GROUNDING = "vertex_ai_grounding_metadata"
"""The field of a reply in which litellm tells Gemini's metadata."""
_WHOLE = frozenset({"citations", GROUNDING})
_WITH_CLAUDE = frozenset({"vertex_ai", "litellm_proxy"})


def has_documents(messages: Iterable[Message]) -> bool:
    """Whether messages hold documents to be cited."""
    return any(
        isinstance(part, TextPart) and part.document is not None
        for message in messages
        if not isinstance(message.content, str)
        for part in message.content
    )


def takes_documents(provider: str, model: str, request: Request) -> bool:
    """Whether documents go as such: to models of Anthropic, which cite them, but not beside a form of the reply.

    On Vertex and behind a proxy of litellm too. Of Bedrock's two ways "Invoke" takes them; litellm writes no citations
    for "Converse".

    Args:
        provider: The provider, as litellm names it.
        model: The model, with what litellm calls a route.
        request: The request.
    """
    route = model.lower()
    own = provider == "anthropic" or ("claude" in route and (provider in _WITH_CLAUDE or "invoke/" in route))
    return own and request.response_format is None and has_documents(request.messages)


def document_numbers(messages: Sequence[Message]) -> tuple[int, ...]:
    """The number of each document in its list, in the order in which a request has them.

    It is 0 for files, and for documents of messages before the last one that has some, such as those of demos.
    """
    found: list[int] = []
    for message in messages:
        parts = () if isinstance(message.content, str) else message.content
        marks = [part.document for part in parts if isinstance(part, TextPart) and part.document is not None]
        if marks:  # those before are of demos
            found = [0] * len(found)
        numbers = iter([mark.number for mark in marks])
        for part in parts:
            if isinstance(part, FilePart):
                found.append(0)
            elif isinstance(part, TextPart) and part.document is not None:
                found.append(next(numbers))
    return tuple(found)


def write_document(part: TextPart | FilePart) -> dict[str, Any] | None:
    """A text or file as a document that Anthropic's models cite; None for one that they cannot."""
    if isinstance(part, FilePart):
        if part.media_type != _PDF or not part.data:
            return None
        data = b64encode(part.data).decode("ascii")
        source = {"type": "base64", "media_type": _PDF, "data": data}
        title = part.name
    elif part.document is None:
        return None
    else:
        mark = part.document
        source = {"type": "text", "media_type": "text/plain", "data": part.text[mark.start :]}
        title = f"document {mark.number}: {mark.title}" if mark.title else f"document {mark.number}"
    return {"type": "document", "source": source, **({"title": title} if title else {}), "citations": {"enabled": True}}


def read_citations(
    message: Mapping[str, Any], reply: Mapping[str, Any], content: Content, numbers: Sequence[int] = ()
) -> tuple[Citation, ...]:
    """What a reply cites, each passage or page once, in the order of the reply; what cannot be read is left out.

    Args:
        message: The message of the reply.
        reply: The whole reply.
        content: The content that was read from it.
        numbers: The numbers of the documents of the request, as `document_numbers` gives them.
    """
    if message.keys().isdisjoint(_TOLD) and reply.keys().isdisjoint(_WHOLE):
        return ()
    grounded = tuple(read_grounding(reply.get(GROUNDING), text_of(content)))
    if grounded:
        return tuple(dict.fromkeys(grounded))
    own = message.get("provider_specific_fields")
    passages = _listed(own.get("citations") if isinstance(own, Mapping) else None)
    found = [*_passages(passages, numbers), *_annotated(_listed(message.get("annotations")), text_of(content))]
    if not found:
        found = [Citation(0, "", source=page) for page in _listed(reply.get("citations")) if isinstance(page, str)]
    return tuple(dict.fromkeys(found))


def _listed(value: object) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else ()


def _passages(blocks: Sequence[Any], numbers: Sequence[int]) -> Iterator[Citation]:
    """Anthropic's citations: a list for each text of the reply, or one of them all."""
    for block in blocks:
        for item in [block] if isinstance(block, Mapping) else _listed(block):
            if not isinstance(item, Mapping) or not isinstance(item.get("cited_text"), str):
                continue
            place = item.get("document_index")
            number = numbers[place] if isinstance(place, int) and 0 <= place < len(numbers) else 0
            title = item.get("document_title") or item.get("title")
            yield Citation(
                number,
                item["cited_text"],
                title="" if number else _text(title),  # of a given one it is known
                source=_text(item.get("url") or item.get("source") or item.get("file_id")),
                said=_text(item.get("supported_text")),
            )


def _annotated(annotations: Sequence[Any], text: str) -> Iterator[Citation]:
    """OpenAI's annotations: their facts stand in an object of the annotation's type, or beside it."""
    for item in annotations:
        if not isinstance(item, Mapping) or item.get("type") not in ("url_citation", "file_citation"):
            continue
        inner = item.get(item["type"])
        facts = {**item, **inner} if isinstance(inner, Mapping) else item
        start, end = facts.get("start_index"), facts.get("end_index")
        within = isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(text)
        yield Citation(
            0,
            _text(facts.get("quote") or facts.get("content")),
            title=_text(facts.get("title") or facts.get("filename")),
            source=_text(facts.get("url") or facts.get("file_id")),
            said=text[start:end] if within else "",
        )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
