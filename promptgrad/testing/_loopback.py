"""The loopback server, in a thread of this process or in a separate process."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.request import urlopen

from promptgrad.testing._answers import Answer, Messages, ReceivedRequest
from promptgrad.testing._jobs import LoopbackJobs
from promptgrad.testing._protocol import ChatProtocol, Script

MANY = 10_000
"""Ports after which one is used again: a system has about 28,000 that are free for any server."""

KEPT = 200
"""Addresses of closed servers at which no other process can listen."""

_ports: dict[int, None] = {}
"""Where servers of this process were: its LMs remember what an address answered, so the next one is at another."""

_closed: deque[int] = deque()
"""Descriptors of sockets of closed servers: who asks there again shall not reach a server of another process."""


class LoopbackLM:
    """A real OpenAI-compatible server on 127.0.0.1 that answers from a script.

    It serves `POST .../chat/completions` and `.../embeddings` with keep-alive from its own thread, records every
    request, and counts words as tokens. Answers come from `script(...)` in order, then from `respond`; without either
    the client gets a 400 with an explanation. A request for several samples (`n`) gets as many of them.

        with LoopbackLM() as server:
            server.script(Status(429, retry_after=7), "Paris")
            lm = pg.lm.HTTP("m", base_url=server.url)
            ...
            assert len(server.requests) == 2

    Cost: no LM call; about 0.1 ms of CPU a request.

    Args:
        respond: A text for every request, or a function of the messages that returns an answer; it
            runs on the server's thread, so it must not block.
        latency: Seconds before every answer.
        record: True to keep the requests in `requests`; counts are always kept.
        port: The port to listen on, 0 for any free one.
        jobs: Files and fine-tuning jobs that it has too.
        embed: Function of a text that returns its vector, for `POST .../embeddings`; by default counts of its letters.
    """

    def __init__(
        self,
        respond: str | Callable[[Messages], Answer] | None = None,
        *,
        latency: float = 0.0,
        record: bool = True,
        port: int = 0,
        jobs: LoopbackJobs | None = None,
        embed: Callable[[str], Sequence[float]] | None = None,
    ) -> None:
        self._changed = threading.Condition()
        self._script = Script(respond, latency=latency, record=record, jobs=jobs, embed=embed, on_change=self._notify)
        self._transports: list[ChatProtocol] = []
        self._loop = asyncio.new_event_loop()
        started: threading.Event = threading.Event()
        failure: list[OSError] = []

        def serve() -> None:
            asyncio.set_event_loop(self._loop)
            try:
                server = self._loop.run_until_complete(self._listen(port))
            except OSError as error:
                failure.append(error)
                started.set()
                self._loop.close()
                return
            self._port = int(server.sockets[0].getsockname()[1])
            started.set()
            self._loop.run_forever()
            server.close()
            _keep(self._port)
            for connection in self._transports:
                if connection.transport is not None:
                    connection.transport.abort()
            self._loop.run_until_complete(asyncio.sleep(0))  # lets the aborted connections close
            self._loop.close()

        self._thread = threading.Thread(target=serve, name="loopback-lm", daemon=True)
        self._thread.start()
        started.wait()
        if failure:
            raise failure[0]

    async def _listen(self, port: int) -> asyncio.Server:
        while True:
            server = await self._loop.create_server(self._connect, "127.0.0.1", port, backlog=1024)
            taken = int(server.sockets[0].getsockname()[1])
            if port or taken not in _ports or len(_ports) > MANY:
                _ports[taken] = None
                return server
            server.close()

    def _connect(self) -> ChatProtocol:
        connection = ChatProtocol(self._script, self._loop)
        self._transports = [known for known in self._transports if not known.lost]
        self._transports.append(connection)
        return connection

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    @property
    def url(self) -> str:
        """The `base_url` for a client, ending in /v1."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def requests(self) -> list[ReceivedRequest]:
        """Every request so far, in the order of arrival."""
        return self._script.requests

    @property
    def received(self) -> int:
        """Number of requests that have arrived, recorded or not."""
        return self._script.received

    @property
    def respond(self) -> str | Callable[[Messages], Answer] | None:
        """The answer to requests after the end of the script; may be set at any time."""
        return self._script.respond

    @respond.setter
    def respond(self, respond: str | Callable[[Messages], Answer] | None) -> None:
        self._script.respond = respond

    @property
    def in_flight(self) -> int:
        """Number of requests that wait for their answer now."""
        return self._script.in_flight

    @property
    def in_flight_high_water(self) -> int:
        """The most requests that waited at once."""
        return self._script.high_water

    @property
    def connections(self) -> int:
        """Number of connections that were ever opened."""
        return self._script.connections

    def script(self, *answers: Answer) -> LoopbackLM:
        """Queue answers; they are used in order, one a request, before `respond`."""
        self._script.queue.extend(answers)
        return self

    def reset(self) -> None:
        """Clear queued answers, requests and counts."""
        self._script.reset()

    def hold(self) -> None:
        """Hold every answer until `release`; requests are still received and recorded."""
        self._script.held = []

    def release(self) -> None:
        """Send the answers that were held, in the order of arrival, and stop holding."""
        self._loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        held, self._script.held = self._script.held or [], None
        for answer in held:
            answer()

    def wait_for(self, requests: int, timeout: float = 60.0) -> None:
        """Block until that many requests have arrived.

        Raises:
            TimeoutError: They have not arrived after `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._script.received >= requests, timeout):
                raise TimeoutError(f"{self._script.received} of {requests} requests arrived in {timeout} s")

    def wait_idle(self, timeout: float = 60.0) -> None:
        """Block until no request waits for its answer; one whose client has left does not wait.

        Raises:
            TimeoutError: Some still wait after `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._script.in_flight == 0, timeout):
                raise TimeoutError(f"{self._script.in_flight} requests still wait after {timeout} s")

    def close(self) -> None:
        """Stop the server and close its connections; closing twice is fine."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=60)

    def __enter__(self) -> LoopbackLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<LoopbackLM {self.url} requests={self._script.received}>"


def _keep(port: int) -> None:
    """Hold a port at which nobody listens."""
    with socket.socket() as kept, suppress(OSError):  # another server may have it by now
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the next one here may be asked for this port
        kept.bind(("127.0.0.1", port))
        _closed.append(kept.detach())
    if len(_closed) > KEPT:
        os.close(_closed.popleft())


class LoopbackProcess:
    """The same server in a separate process, so that its work is not measured as the client's.

    Args:
        reply: The text of every reply; or a dict, the answers to the fields that a chat prompt asks for, as `Fields`.
        latency: Seconds before every answer.
        cpu: The CPU to keep the server on, where the system allows it.

    Raises:
        RuntimeError: The process did not start.
    """

    def __init__(self, reply: str | dict[str, str] = "ok", *, latency: float = 0.0, cpu: int | None = None) -> None:
        command = [sys.executable, "-m", "promptgrad.testing.server", "--latency", str(latency)]
        command += ["--reply", reply] if isinstance(reply, str) else ["--fields", json.dumps(reply)]
        if cpu is not None:
            command += ["--cpu", str(cpu)]
        root = str(Path(__file__).resolve().parents[2])
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, cwd=root)
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RuntimeError("the loopback server did not start")
        self.url: str = json.loads(line)["url"]

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._process.pid

    def stats(self) -> dict[str, Any]:
        """Return the server's counts: requests, connections, in_flight, in_flight_high_water."""
        return self._get("stats")

    def reset(self) -> None:
        """Reset the counts."""
        self._get("reset")

    def _get(self, what: str) -> dict[str, Any]:
        with urlopen(f"{self.url}/{what}", timeout=60) as reply:
            value: dict[str, Any] = json.load(reply)
            return value

    def close(self) -> None:
        """End the server."""
        if self._process.stdin is not None:
            self._process.stdin.close()  # the server ends with its owner, in whatever way
        self._process.wait(timeout=60)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> LoopbackProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
