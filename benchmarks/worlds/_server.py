"""A small OpenAI-compatible server for a world: it counts the calls of every model, whoever makes them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable
from types import TracebackType
from typing import Any


class Refused(Exception):
    """The server gives no answer to this request, and says why with an HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Call:
    """One request for a completion.

    Attributes:
        model: Name of the model that is asked.
        messages: The chat messages, each with `role` and `content` (text).
        temperature: Sampling temperature, 0 where the request has none.
        body: The whole request.
    """

    model: str
    messages: list[dict[str, Any]]
    temperature: float
    body: dict[str, Any]


class Server:
    """A server on 127.0.0.1, in a thread of its own: `with world.serve() as url`.

    Keep the server to read its counts: `with (server := world.serve()) as url: ...` and then `server.total`.

    It serves `POST .../chat/completions` with keep-alive; a request for n completions counts as n calls.

    Cost: about 0.1 ms of CPU a request besides the answer.

    Args:
        answer: Gives the text of one completion, or an awaitable of it; it runs on the server's thread.
        latency: Seconds before every answer.
        budget: Calls after which every further one is refused with HTTP 403, which no client tries again; None
            refuses none.
        record: Whether to keep every call in `calls`.
    """

    def __init__(
        self,
        answer: Callable[[Call], str | Awaitable[str]],
        *,
        latency: float = 0.0,
        budget: int | None = None,
        record: bool = False,
    ) -> None:
        self.answer = answer
        self.latency = latency
        self.budget = budget
        self.record = record
        self.calls: list[Call] = []
        self.counts: Counter[str] = Counter()
        self.refused = 0
        self._waiting = 0
        self._turned: tuple[float, float] | None = None
        self._stretches: list[tuple[bool, float, float]] = []
        self._loop = asyncio.new_event_loop()
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="world", daemon=True)
        started = threading.Event()
        self._started = started
        self._thread.start()
        started.wait()

    @property
    def url(self) -> str:
        """The `base_url` for a client, ending in /v1."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def total(self) -> int:
        """Calls answered so far, of all models."""
        return sum(self.counts.values())

    @property
    def stretches(self) -> list[tuple[bool, float, float]]:
        """The time from the first call, in stretches in which at least one call was here, or none.

        For each whether calls were here, its seconds, and the seconds of CPU that the process took in it.
        """
        return list(self._stretches)

    def _arrived(self, calls: int) -> None:
        """Count calls that are here; a negative number leaves."""
        before, self._waiting = self._waiting, self._waiting + calls
        if bool(before) == bool(self._waiting):
            return
        now = time.monotonic(), time.process_time()
        if self._turned is not None:
            self._stretches.append((bool(before), now[0] - self._turned[0], now[1] - self._turned[1]))
        self._turned = now

    def close(self) -> None:
        """Stop the server and close its connections; closing twice is fine."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=10)

    def __enter__(self) -> str:
        return self.url

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        made = self._loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=1024)
        server = self._loop.run_until_complete(made)
        self._port = int(server.sockets[0].getsockname()[1])
        self._started.set()
        self._loop.run_forever()
        server.close()
        for connection in list(self._open):
            connection.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def respond(self, body: dict[str, Any]) -> list[str | Awaitable[str]]:
        """Count one request and answer it: a text for each completion that is asked for.

        Raises:
            Refused: The budget is spent.
            KeyError, TypeError, ValueError: The body is not a request for a chat completion.
        """
        wanted = int(body.get("n") or 1)
        messages = [{**message, "content": _text(message.get("content"))} for message in body["messages"]]
        call = Call(str(body["model"]), messages, float(body.get("temperature") or 0.0), body)
        if body.get("stream"):
            raise ValueError("this server does not stream")
        if self.budget is not None and self.total + wanted > self.budget:
            self.refused += wanted
            raise Refused(403, f"the budget of {self.budget} calls is spent")
        self.counts[call.model] += wanted
        if self.record:
            self.calls.append(call)
        return [self.answer(call) for _ in range(wanted)]


class _Connection(asyncio.Protocol):
    """One connection; its requests are answered one after the other."""

    transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = bytearray()
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - `create_server` makes no other
        self.transport = transport
        self.server._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server._open.discard(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self._next()

    def _next(self) -> None:
        if self.busy:
            return
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.buffer[:end])
        size = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                size = int(line[15:])
        if len(self.buffer) < end + 4 + size:
            return
        body = bytes(self.buffer[end + 4 : end + 4 + size])
        del self.buffer[: end + 4 + size]
        self.server._arrived(1)
        if head.startswith(b"GET "):
            return self._send(200, {"object": "list", "data": [], "calls": dict(self.server.counts)})
        try:
            request = json.loads(body)
            texts = self.server.respond(request)
        except Refused as error:
            return self._send(error.code, {"error": {"message": str(error), "type": "budget"}})
        except (KeyError, TypeError, ValueError) as error:
            message = f"not a chat completion request: {type(error).__name__}: {error}"
            return self._send(400, {"error": {"message": message, "type": "invalid_request"}})
        self.busy = True
        if any(isawaitable(text) for text in texts):
            task = self.server._loop.create_task(self._wait(request, texts))
            self.server._tasks.add(task)
            task.add_done_callback(self.server._tasks.discard)
        elif self.server.latency > 0:
            self.server._loop.call_later(self.server.latency, self._done, request, texts)
        else:
            self._done(request, texts)

    async def _wait(self, request: dict[str, Any], texts: list[Any]) -> None:
        ready = [await text if isawaitable(text) else text for text in texts]
        if self.server.latency > 0:
            await asyncio.sleep(self.server.latency)
        self._done(request, ready)

    def _done(self, request: dict[str, Any], texts: list[Any]) -> None:
        used = sum(len(str(message.get("content"))) for message in request["messages"]) // 4
        made = sum(map(len, texts)) // 4
        self._send(
            200,
            {
                "id": "world",
                "object": "chat.completion",
                "created": 1700000000,
                "model": request["model"],
                "choices": [
                    {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
                    for i, text in enumerate(texts)
                ],
                "usage": {"prompt_tokens": used, "completion_tokens": made, "total_tokens": used + made},
            },
        )

    def _send(self, code: int, value: dict[str, Any]) -> None:
        self.busy = False
        self.server._arrived(-1)
        body = json.dumps(value, ensure_ascii=False).encode()
        if not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                % (code, b"OK" if code < 400 else b"Error", len(body), body)
            )
        if self.buffer:
            self._next()


def _text(content: Any) -> str:
    """The text of a message, whose content may be a list of parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return "" if content is None else str(content)
