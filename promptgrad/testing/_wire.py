"""Bodies of the loopback server, as OpenAI's dialect has them: completions, streams, vectors."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from promptgrad.testing._answers import ReceivedRequest, Reply


def _counts(request: ReceivedRequest, reply: Reply) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if reply.usage is None:
        used = sum(len(str(message.get("content")).split()) for message in request.messages)
        made = len(reply.text.split()) + len(reply.reasoning.split())
    else:
        used, made, *kept = reply.usage
        if kept:
            details = {"prompt_tokens_details": {"cached_tokens": kept[0]}}
    return {"prompt_tokens": used, "completion_tokens": made, "total_tokens": used + made, **details}


def _encoded(choice: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(choice, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:  # half of a character
        return json.dumps(choice).encode("ascii")


def completion(request: ReceivedRequest, reply: Reply, more: Sequence[Reply] = ()) -> bytes:
    """The body of an answer without a stream."""
    counts = _counts(request, reply)
    for other in more:
        written = _counts(request, other)["completion_tokens"]
        counts["completion_tokens"] += written
        counts["total_tokens"] += written
    return b"".join(
        (
            b'{"id":"loopback-%d","object":"chat.completion","created":1700000000,"model":' % request.index,
            json.dumps(reply.model or request.json.get("model", "loopback")).encode(),
            b',"choices":[',
            b",".join(
                [_encoded(reply.choice()), *(_encoded({**one.choice(), "index": i}) for i, one in enumerate(more, 1))]
            ),
            b'],"usage":',
            json.dumps(counts).encode(),
            b"}",
        )
    )


def letters(text: str) -> list[float]:
    """The counts of the letters of a text, in a vector of 26 numbers."""
    return [float(text.lower().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"]


def embeddings(request: ReceivedRequest, embed: Callable[[str], Sequence[float]]) -> bytes:
    """The vectors of the texts of a request, as numbers or in base64, the last text first."""
    asked = request.json
    texts = [asked["input"]] if isinstance(asked["input"], str) else list(asked["input"])
    data: list[dict[str, Any]] = []
    for index, text in enumerate(texts):
        numbers = list(embed(text))[: asked.get("dimensions")]
        packed = base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
        vector = packed if asked.get("encoding_format") == "base64" else numbers
        data.append({"object": "embedding", "index": index, "embedding": vector})
    tokens = sum(len(text.split()) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json.dumps({"object": "list", "data": data[::-1], "model": asked["model"], "usage": usage}).encode()


def events(request: ReceivedRequest, reply: Reply) -> list[bytes]:
    """The events of a stream: one for each piece, one with the usage if it is requested, and the last one."""
    head = {
        "id": f"loopback-{request.index}",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": reply.model or request.json.get("model", "loopback"),
    }
    chunks = [{**head, "choices": [choice]} for choice in reply.deltas()]
    if (request.json.get("stream_options") or {}).get("include_usage"):
        chunks.append({**head, "choices": [], "usage": _counts(request, reply)})
    return [*(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks), b"data: [DONE]\n\n"]


def dechunk(buffer: bytearray, start: int) -> tuple[bytes, int] | None:
    """Return the chunked body that begins at `start` and its end; None while it is incomplete."""
    parts: list[bytes] = []
    while True:
        line_end = buffer.find(b"\r\n", start)
        if line_end < 0:
            return None
        size = int(bytes(buffer[start:line_end]).split(b";")[0], 16)
        start = line_end + 2
        if len(buffer) < start + size + 2:
            return None
        parts.append(bytes(buffer[start : start + size]))
        start += size + 2
        if size == 0:
            return b"".join(parts), start
