"""The fields of a request beside its messages, as OpenAI-compatible servers read them."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from promptgrad.lm._request import Request

_OURS = frozenset({"model", "messages", "stream", "n"})
_NOT_FIELDS = frozenset({"replicate"})


@lru_cache(maxsize=1024)
def _encode_fields_of(model: str, lacks: frozenset[str], options: tuple[tuple[str, Any], ...], typed: str) -> bytes:
    limit_name = "max_completion_tokens" if "max_tokens" in lacks else "max_tokens"
    fields: dict[str, Any] = {"model": model}
    raw: dict[str, str] = {}
    for name, value in options:
        if name == "max_tokens":
            fields[limit_name] = value
        elif name == "response_format":
            raw[name] = value
        elif name == "grammar":
            raise ValueError(
                "a grammar is for lm.Local, which enforces it: write response_format=, or what your server takes in "
                "extra_body={...}"
            )
        elif name == "extra":
            raw.update(value)
        elif name == "samples":
            fields["n"] = value
        elif name not in _NOT_FIELDS:
            fields[name] = value
    taken = sorted(set(raw) & (_OURS | set(fields)))
    if taken:
        raise ValueError(f"{', '.join(taken)} cannot be given as an option of a request to an OpenAI-compatible server")
    encoded = json.dumps(fields, separators=(",", ":"))[1:-1]
    more = "".join(f",{json.dumps(name)}:{text}" for name, text in raw.items())
    return f"],{encoded}{more}}}".encode("ascii")


def encode_fields(model: str, lacks: frozenset[str], request: Request) -> bytes:
    """Encode the fields that follow the messages in the body."""
    options = request.options()
    if not options:
        return _encode_fields_of(model, lacks, (), "")
    if options.get("seed") is not None:
        options["seed"] += request.replicate
    options.pop("replicate", None)
    if request.listener is not None:
        options.pop("samples", None)  # one reply is heard
    settled = tuple(options.items())
    return _encode_fields_of(model, lacks, settled, repr(settled))


def streamed(request: Request, lacks: frozenset[str]) -> bytes:
    """The end of a body that requests a stream, with the usage at its end unless the request sets otherwise."""
    asked = "stream_options" in lacks or any(name == "stream_options" for name, _ in request.extra)
    return b',"stream":true}' if asked else b',"stream":true,"stream_options":{"include_usage":true}}'
