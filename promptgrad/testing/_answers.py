"""What the loopback server is told to answer, and what it was asked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

Messages: TypeAlias = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Reply:
    """A completion with more than its text.

    A client that requests a stream gets it in events, each a word or a tool call.

    Args:
        text: The assistant's text.
        finish_reason: "stop", or "length" for a reply that ran out of tokens.
        usage: `(input, output)` tokens to report, or `(input, output, cached)` with those of the input that a cache
            had; words are counted where this is None.
        model: The model name to report; the requested one where this is None.
        reasoning: The model's reasoning, sent as `reasoning_content`.
        tool_calls: Name and arguments of each tool call; the ids are call_0, call_1, ...
        refusal: The text of the model's refusal.
        logprobs: Tokens with their log-probabilities, and with those of the likeliest tokens in their place, by token,
            where a third item gives them.
        pace: Seconds between two events of a stream.
        more: Further fields of the message, as a provider sends them, such as `images` or `annotations`; a stream has
            them in its last piece.
    """

    text: str = ""
    finish_reason: str = "stop"
    usage: tuple[int, int] | tuple[int, int, int] | None = None
    model: str | None = None
    reasoning: str = ""
    tool_calls: Sequence[tuple[str, dict[str, Any]]] = ()
    refusal: str | None = None
    logprobs: Sequence[tuple[str, float] | tuple[str, float, Mapping[str, float]]] = ()
    pace: float = 0.0
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The tool calls in their wire format."""
        return [
            {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for number, (name, arguments) in enumerate(self.tool_calls)
        ]

    def choice(self) -> dict[str, Any]:
        """The choice of a reply without a stream."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.tool_calls:
            message["content"] = self.text or None
            message["tool_calls"] = self.calls
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.refusal is not None:
            message["content"], message["refusal"] = self.text or None, self.refusal
        message.update(self.more)
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        if self.logprobs:
            choice["logprobs"] = {"content": _logprobs(self.logprobs)}
        return choice

    def deltas(self) -> list[dict[str, Any]]:
        """The choices of a stream, one for each event."""
        pieces: list[dict[str, Any]] = [{"reasoning_content": word} for word in _words(self.reasoning)]
        pieces += [{"content": word} for word in _words(self.text)]
        if self.refusal is not None:
            pieces += [{"refusal": word} for word in _words(self.refusal)]
        for index, call in enumerate(self.calls):
            arguments = call["function"]["arguments"]
            half = len(arguments) // 2
            head = {**call, "index": index, "function": {"name": call["function"]["name"], "arguments": ""}}
            pieces.append({"tool_calls": [head]})
            for piece in (arguments[:half], arguments[half:]):
                pieces.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        pieces = [*pieces, dict(self.more)] if self.more else pieces or [{"content": ""}]
        pieces[0] = {"role": "assistant", **pieces[0]}
        choices: list[dict[str, Any]] = [{"index": 0, "delta": piece, "finish_reason": None} for piece in pieces]
        if self.logprobs:
            choices[-1]["logprobs"] = {"content": _logprobs(self.logprobs)}
        return [*choices, {"index": 0, "delta": {}, "finish_reason": self.finish_reason}]


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+\s*|\s+", text)


def _logprobs(tokens: Sequence[tuple[Any, ...]]) -> list[dict[str, Any]]:
    return [
        {
            "token": token,
            "logprob": logprob,
            "top_logprobs": [{"token": name, "logprob": value} for top in more for name, value in top.items()],
        }
        for token, logprob, *more in tokens
    ]


@dataclass(frozen=True)
class Status:
    """An HTTP error, as providers send them.

    Args:
        code: The status, such as 429 or 500.
        retry_after: Seconds for the Retry-After header; no header where this is None.
        message: `error.message` of the JSON body.
        kind: `error.code` of the JSON body, such as "context_length_exceeded".
    """

    code: int
    retry_after: float | None = None
    message: str = "scripted"
    kind: str | None = None

    def wire(self) -> tuple[int, bytes, bytes]:
        """Status, body and further headers."""
        error = {"error": {"message": self.message, "type": "scripted", "code": self.kind}}
        extra = b"" if self.retry_after is None else b"Retry-After: %s\r\n" % f"{self.retry_after:g}".encode()
        return self.code, json.dumps(error).encode(), extra


@dataclass(frozen=True)
class Cut:
    """A reply whose connection closes after a share of it was sent: of the promised body, or of a stream's events.

    Args:
        share: The share that is sent.
        answer: The reply that is cut.
    """

    share: float = 0.5
    answer: str | Reply = "a reply that will be cut"


@dataclass(frozen=True)
class Drop:
    """The connection closes with nothing sent."""


@dataclass(frozen=True)
class Garbage:
    """A complete HTTP reply whose body is not a completion.

    Args:
        body: The body.
        code: The status.
        content_type: Its content type; `text/event-stream` for a stream of your own.
    """

    body: bytes = b"<html>502 Bad Gateway</html>"
    code: int = 200
    content_type: str = "application/json"

    def wire(self) -> tuple[int, bytes, bytes, str]:
        """Status, body, further headers and content type."""
        return self.code, self.body, b"", self.content_type


@dataclass(frozen=True)
class Hang:
    """Silence: the connection stays open and nothing is sent until the client gives up."""


@dataclass(frozen=True)
class Delay:
    """Wait, then answer.

    Args:
        seconds: Seconds to wait, in addition to the server's latency.
        answer: The answer after the wait; the next of the script where this is None.
    """

    seconds: float
    answer: Answer | None = None


Answer: TypeAlias = "str | Reply | Status | Cut | Drop | Garbage | Hang | Delay"


@dataclass(frozen=True)
class ReceivedRequest:
    """One request as it arrived.

    Args:
        method: "POST" or "GET".
        path: The path, such as "/v1/chat/completions".
        headers: Header values under lower-case names.
        body: The bytes of the body.
        index: Number of requests that the server had received before this one.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = field(repr=False)
    index: int = 0

    @cached_property
    def json(self) -> dict[str, Any]:
        """The body, parsed. Raises ValueError where it is not a JSON object."""
        value = json.loads(self.body)
        if not isinstance(value, dict):
            raise ValueError(f"the body is not a JSON object: {self.body[:80]!r}")
        return value

    @property
    def wants_vectors(self) -> bool:
        """Whether the request is for the vectors of texts."""
        return self.path.partition("?")[0].endswith("/embeddings")

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The chat messages of the body."""
        messages: list[dict[str, Any]] = self.json["messages"]
        return messages

    @property
    def samples(self) -> int:
        """How many replies are asked for (`n`)."""
        return int(self.json.get("n") or 1)

    @property
    def prompt(self) -> str:
        """The content of the last message."""
        return str(self.messages[-1]["content"])
