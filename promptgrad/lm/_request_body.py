"""The body of a request to an OpenAI-compatible server."""

from __future__ import annotations

import json

from promptgrad.lm._dialect import write_messages
from promptgrad.lm._fields import encode_fields
from promptgrad.lm._message import is_text, json_messages
from promptgrad.lm._parts import weigh
from promptgrad.lm._request import Request


def encode_body(model: str, lacks: frozenset[str], asked: Request) -> tuple[bytes, int]:
    """The body of a request, and its size in characters, for an estimate of its tokens."""
    size = 0
    if asked.prefix.is_text and is_text(asked.tail):
        messages = (asked.prefix.encoded + json_messages(asked.tail).encode("ascii"))[:-1]
    else:
        messages = json.dumps(write_messages(asked.messages), separators=(",", ":")).encode("ascii")[1:-1]
        size = sum([weigh(m.content) for m in asked.messages])
    body = b'{"messages":[' + messages + encode_fields(model, lacks, asked)
    return body, size or len(body)
