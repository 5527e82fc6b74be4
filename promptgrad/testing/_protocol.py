"""A small HTTP/1.1 server for OpenAI-style chat completions: `asyncio.Protocol`, keep-alive, no framework."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from promptgrad.testing._answers import (
    Answer,
    Cut,
    Delay,
    Drop,
    Garbage,
    Hang,
    Messages,
    ReceivedRequest,
    Reply,
    Status,
)
from promptgrad.testing._wire import completion, dechunk, embeddings, events, letters


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
            chunked = dechunk(self.buffer, start)
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
                self._send(200, embeddings(request, self.script.embed))
                return
            reply = sent if isinstance(sent, Reply) else Reply(_text(sent))
            if request.json.get("stream"):
                self._stream(events(request, reply), reply.pace, answer.share if isinstance(answer, Cut) else None)
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


def _text(answer: object) -> str:
    if not isinstance(answer, str):
        raise TypeError(f"an answer is a str, Reply, Status, Cut, Drop, Garbage, Hang or Delay, not {answer!r}")
    return answer
