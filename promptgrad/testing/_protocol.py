"""A small HTTP/1.1 server for OpenAI-style chat completions: `asyncio.Protocol`, keep-alive, no framework."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeAlias

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


class Jobs(Protocol):
    """What a server has beside completions."""

    def serves(self, path: str) -> bool:
        """Whether a request to this path is for it."""
        ...

    def answer(self, request: ReceivedRequest) -> tuple[int, bytes, Answer | None]:
        """Status and body of the answer, and what is sent in its place."""
        ...


class Script:
    """The server's answers and the requests so far, shared between the server's thread and its owner's."""

    def __init__(
        self,
        respond: str | Callable[[Messages], Answer] | None,
        *,
        latency: float = 0.0,
        record: bool = True,
        jobs: Jobs | None = None,
        embed: Callable[[str], Sequence[float]] | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.jobs = jobs
        self.embed = embed or letters
        self.respond = respond
        self.latency = latency
        self.record = record
        self.on_change = on_change
        self.queue: deque[Answer] = deque()
        self.requests: list[ReceivedRequest] = []
        self.received = 0
        self.connections = 0
        self.in_flight = 0
        self.high_water = 0
        self.held: list[Callable[[], None]] | None = None

    def answer(self, request: ReceivedRequest) -> Answer:
        """Choose the answer to a request: the script first, then `respond`."""
        try:
            return self.queue.popleft()
        except IndexError:
            pass
        if request.wants_vectors:
            return ""
        if isinstance(self.respond, str):
            return self.respond
        if self.respond is None:
            return Status(400, message="LoopbackLM: the script has ended and no respond= was given")
        try:
            return self.respond(request.messages)
        except Exception as error:  # noqa: BLE001 - it is sent to the client, and so to the test
            return Status(500, message=f"LoopbackLM: respond() raised {type(error).__name__}: {error}")

    def reset(self) -> None:
        """Clear requests and counts; connections stay open."""
        self.queue.clear()
        self.requests.clear()
        self.received = 0
        self.high_water = self.in_flight

    def stats(self) -> dict[str, int]:
        """Return the counts."""
        return {
            "requests": self.received,
            "connections": self.connections,
            "in_flight": self.in_flight,
            "in_flight_high_water": self.high_water,
        }


class ChatProtocol(asyncio.Protocol):
    """One connection: requests are read and answered one after the other."""

    def __init__(self, script: Script, loop: asyncio.AbstractEventLoop) -> None:
        self.script = script
        self.loop = loop
        self.buffer = bytearray()
        self.transport: asyncio.Transport | None = None
        self.busy = False
        self.lost = False
        self.close_after = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport and count the connection."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"a stream transport is needed, not {transport!r}")
        self.transport = transport
        self.script.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop the transport, and with it an answer that is still due."""
        self.transport = None
        self.lost = True
        if self.busy:
            self._done()

    def data_received(self, data: bytes) -> None:
        """Add bytes to the buffer, and answer each complete request."""
        self.buffer += data
        if not self.busy:
            self._next()

    def _next(self) -> None:
        """Read one request from the buffer, if it is complete, and start answering it."""
        head_end = self.buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        first, *lines = self.buffer[:head_end].decode("latin-1").split("\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        start = head_end + 4
        if headers.get("transfer-encoding", "").lower() == "chunked":
            chunked = _dechunk(self.buffer, start)
            if chunked is None:
                return
            body, end = chunked
        else:
            end = start + int(headers.get("content-length", "0"))
            if len(self.buffer) < end:
                return
            body = bytes(self.buffer[start:end])
        del self.buffer[:end]
        method, path, _ = first.split(" ", 2)
        self.close_after = headers.get("connection", "").lower() == "close"
        script = self.script
        if script.jobs is not None and script.jobs.serves(path):
            self._work(script.jobs, ReceivedRequest(method, path, headers, body))
            return
        if method == "GET":
            self._put(*self._housekeeping(path))
            self._go_on()
            return
        self.busy = True
        request = ReceivedRequest(method, path, headers, body, script.received)
        script.received += 1
        script.in_flight += 1
        script.high_water = max(script.high_water, script.in_flight)
        if script.record:
            script.requests.append(request)
        script.on_change()
        if script.held is not None:
            script.held.append(lambda: self._answer(request, script.answer(request), script.latency))
        else:
            self._answer(request, script.answer(request), script.latency)

    def _work(self, jobs: Jobs, request: ReceivedRequest) -> None:
        """Answer a request about files or jobs."""
        code, body, instead = jobs.answer(request)
        if self.transport is None:
            return
        if isinstance(instead, Drop):
            self.transport.abort()
        elif isinstance(instead, Cut):
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            self.transport.write(head + body[: int(len(body) * instead.share)])
            self.transport.close()
        elif isinstance(instead, (Status, Garbage)):
            self._put(*instead.wire())
            self._go_on()
        else:
            self._put(code, body)
            self._go_on()

    def _housekeeping(self, path: str) -> tuple[int, bytes]:
        if path.endswith("/reset"):
            self.script.reset()
            return 200, b"{}"
        if path.endswith("/stats"):
            return 200, json.dumps(self.script.stats()).encode()
        if path.endswith("/models"):
            return 200, b'{"object":"list","data":[{"id":"loopback","object":"model"}]}'
        return 404, b'{"error":{"message":"no such path"}}'

    def _answer(self, request: ReceivedRequest, answer: Answer, wait: float) -> None:
        while isinstance(answer, Delay):
            wait += answer.seconds
            answer = self.script.answer(request) if answer.answer is None else answer.answer
        if wait > 0:
            self.loop.call_later(wait, self._write, request, answer)
        else:
            self._write(request, answer)

    def _write(self, request: ReceivedRequest, answer: Answer) -> None:
        if self.transport is None or isinstance(answer, Hang):
            return
        if isinstance(answer, Drop):
            self.transport.abort()
            return
        if isinstance(answer, (Garbage, Status)):
            self._send(*answer.wire())
            return
        sent = answer.answer if isinstance(answer, Cut) else answer
        try:
            if request.wants_vectors:
                self._send(200, _embeddings(request, self.script.embed))
                return
            reply = sent if isinstance(sent, Reply) else Reply(_text(sent))
            if request.json.get("stream"):
                self._stream(_events(request, reply), reply.pace, answer.share if isinstance(answer, Cut) else None)
                return
            others = [self.script.answer(request) for _ in range(request.samples - 1)]
            more = [one if isinstance(one, Reply) else Reply(one) for one in others if isinstance(one, (str, Reply))]
            whole = completion(request, reply, more)
        except (KeyError, TypeError, ValueError) as error:
            message = f"not a chat completion request: {type(error).__name__}: {error}"
            self._send(400, json.dumps({"error": {"message": message}}).encode())
            return
        if isinstance(answer, Cut):
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(whole)
            self.transport.write(head + whole[: int(len(whole) * answer.share)])
            self.transport.close()
            return
        self._send(200, whole)

    def _stream(self, events: list[bytes], pace: float, share: float | None) -> None:
        """Send events, one after the other; with `share`, only that share of them, and then close."""
        if self.transport is not None:
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
        left = deque(events if share is None else events[: int(len(events) * share)])

        def put() -> None:
            while left and self.transport is not None and not self.transport.is_closing():
                event = left.popleft()
                self.transport.write(b"%x\r\n%s\r\n" % (len(event), event))
                if pace > 0:
                    self.loop.call_later(pace, put)
                    return
            if self.transport is None or self.transport.is_closing():  # the client has left
                return
            if share is not None:
                self.transport.close()
                return
            self._done()
            self.transport.write(b"0\r\n\r\n")
            self._go_on()

        put()

    def _send(self, code: int, body: bytes, extra: bytes = b"", content_type: str = "application/json") -> None:
        self._done()  # first, so that a client which has its answer sees the count without it
        self._put(code, body, extra, content_type)
        self._go_on()

    def _put(self, code: int, body: bytes, extra: bytes = b"", content_type: str = "application/json") -> None:
        if self.transport is not None:
            self.transport.write(
                b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n%s"
                % (code, b"OK" if code < 400 else b"Error", content_type.encode(), len(body), extra, body)
            )

    def _done(self) -> None:
        self.busy = False
        self.script.in_flight -= 1
        if self.script.in_flight == 0:
            self.script.on_change()

    def _go_on(self) -> None:
        if self.transport is None:
            return
        if self.close_after:
            self.transport.close()
        elif self.buffer:
            self._next()


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


def _embeddings(request: ReceivedRequest, embed: Callable[[str], Sequence[float]]) -> bytes:
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


def _events(request: ReceivedRequest, reply: Reply) -> list[bytes]:
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


def _text(answer: object) -> str:
    if not isinstance(answer, str):
        raise TypeError(f"an answer is a str, Reply, Status, Cut, Drop, Garbage, Hang or Delay, not {answer!r}")
    return answer


def _dechunk(buffer: bytearray, start: int) -> tuple[bytes, int] | None:
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
