"""Where a server of the Model Context Protocol is: a process to start, or an address."""

from __future__ import annotations

import inspect
import logging
import os
import shlex
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from promptgrad import aio
from promptgrad.errors import MissingExtraError
from promptgrad.tools._mcp_pipes import piped

_KEPT = 4_000
"""Bytes that are kept of what a process writes to stderr."""

_LAST_SECONDS = 2.0
"""Longest wait for the last words of a process that has ended."""


class ServerPlace(Protocol):
    """Where a server is, and how it is connected."""

    @property
    def label(self) -> str:
        """What it is called in errors, without secrets."""
        ...

    def connect(self, heard: Heard) -> AbstractAsyncContextManager[Any]:
        """A connected client of the SDK; at its end the process is ended too.

        Args:
            heard: Keeps what comes from the server beside its answers.

        Raises:
            MissingExtraError: The SDK is not installed.
        """
        ...


class Heard:
    """What comes from a server beside its answers.

    Attributes:
        errors: The last that a process wrote to stderr.
        fault: What it did, if that ended the connection.
        changed: Whether it said that its list of tools is another one.
        status: What an address answered to the last request, if that was a refusal; else 0.
    """

    def __init__(self) -> None:
        self.errors = ErrorTail()
        self.fault = ""
        self.changed = False
        self.status = 0

    async def __call__(self, message: Any) -> None:
        """Take a notification, as the handler of the SDK's client."""
        if getattr(message, "method", None) == "notifications/tools/list_changed":
            self.changed = True


class ErrorTail:
    """The last that a process wrote to stderr."""

    def __init__(self) -> None:
        self._kept = b""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ended.set()  # nobody writes yet

    @property
    def text(self) -> str:
        """It as text, without blanks around it."""
        with self._lock:
            return self._kept.decode("utf-8", "replace").strip()

    async def whole(self) -> str:
        """All that a process wrote that has ended: it may end before what it wrote is read."""
        if not self._ended.is_set():  # a descendant may hold it open
            await aio.in_thread(self._ended.wait, _LAST_SECONDS)
        return self.text

    def reading(self) -> int:
        """A file descriptor for the process to write to; the caller closes it once the process has ended."""
        here, there = os.pipe()
        self._ended.clear()
        threading.Thread(target=self._read, args=(here,), name="promptgrad-stderr", daemon=True).start()
        return there

    def _read(self, descriptor: int) -> None:
        with open(descriptor, "rb", buffering=0) as stream:
            while piece := stream.read(65_536):
                with self._lock:
                    self._kept = (self._kept + piece)[-_KEPT:]
        self._ended.set()


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A process that speaks on stdin and stdout."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None
    max_bytes: int

    @property
    def label(self) -> str:
        return os.path.basename(self.command[0])

    @asynccontextmanager
    async def connect(self, heard: Heard) -> AsyncIterator[Any]:
        sdk = load_sdk()
        if sys.platform == "win32":  # its processes are not those of asyncio
            program, *arguments = self.command
            parameters = sdk.StdioServerParameters(command=program, args=arguments, env=dict(self.env), cwd=self.cwd)
            with open(heard.errors.reading(), "w") as stream:
                async with sdk.Client(sdk.stdio_client(parameters, errlog=stream), message_handler=heard) as client:
                    yield client
            return
        transport = piped(self.command, self.env, self.cwd, heard, self.max_bytes)
        async with sdk.Client(transport, message_handler=heard) as client:
            yield client

    def __repr__(self) -> str:
        more = ", ..." if len(self.command) > 1 else ""
        return f"command=[{self.label!r}{more}]"  # its arguments and variables may hold secrets


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """An address that speaks streamable HTTP."""

    url: str
    headers: Mapping[str, str]
    max_bytes: int
    auth: Any = None

    @property
    def label(self) -> str:
        return self.url.partition("?")[0].rpartition("@")[2]

    @asynccontextmanager
    async def connect(self, heard: Heard) -> AsyncIterator[Any]:
        sdk = load_sdk()
        import httpx2
        from mcp.client.streamable_http import streamable_http_client

        here = httpx2.URL(self.url).host in ("localhost", "127.0.0.1", "::1")
        async with (
            httpx2.AsyncClient(
                headers={"Accept-Encoding": "identity", **self.headers},
                auth=_authorizing(self.auth),
                event_hooks={"response": [partial(_bound, self.max_bytes, heard)]},
                timeout=httpx2.Timeout(30.0, read=None),  # each call has its own time
                trust_env=not here,  # no proxy of the environment knows this machine
            ) as http,
            sdk.Client(
                streamable_http_client(self.url, http_client=http, max_sse_event_size=self.max_bytes),
                message_handler=heard,
            ) as client,
        ):
            yield client

    def __repr__(self) -> str:
        return f"url={self.label!r}"  # its headers and its query may hold secrets


async def _bound(most: int, heard: Heard, response: Any) -> None:
    """Have a body end with an error beyond so many bytes; the events of a stream are bounded one by one, by the SDK."""
    import httpx2

    heard.status = response.status_code if response.status_code >= 400 else 0
    if response.headers.get("content-type", "").lower().startswith("text/event-stream"):
        return
    inner, packed = response.stream, response.headers.get("content-encoding", "identity").lower() != "identity"

    class Bounded(httpx2.AsyncByteStream):  # type: ignore[misc]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            if packed:  # nobody asked for it, and a small body may hold a very large one
                raise httpx2.StreamError("the answer is compressed, which was not asked for")
            come = 0
            async for piece in inner:
                come += len(piece)
                if come > most:
                    raise httpx2.StreamError(f"the answer has more than {most:,} bytes")
                yield piece

        async def aclose(self) -> None:
            await inner.aclose()

    response.stream = Bounded()


def process_of(
    command: str | Sequence[str], env: Mapping[str, str] | None, cwd: str | None, max_bytes: int
) -> ServerProcess:
    """A server that is started by a command; a text is split as a shell splits it, and no shell runs.

    Raises:
        ValueError: The command is empty.
        TypeError: It is no sequence of texts.
    """
    parts = tuple(shlex.split(command)) if isinstance(command, str) else tuple(os.fspath(part) for part in command)
    if not parts:
        raise ValueError("command=[...] is the program and its arguments, such as ['uvx', 'mcp-server-git']")
    return ServerProcess(parts, dict(env or {}), None if cwd is None else os.fspath(cwd), max_bytes)


def address_of(url: str, headers: Mapping[str, str], max_bytes: int, auth: Any = None) -> ServerAddress:
    """A server at an address.

    Raises:
        ValueError: It is not an address of http or https, or the header Authorization is there beside `auth`.
        TypeError: `auth` is neither a text, nor a function, nor an `Auth` of httpx2.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"url= is an address such as 'http://127.0.0.1:8000/mcp', not {url!r}")
    if auth is not None:
        if any(name.lower() == "authorization" for name in headers):
            raise ValueError("auth= writes the header Authorization, which is in headers= too: pass one of them")
        if not (isinstance(auth, str) or callable(auth) or hasattr(auth, "async_auth_flow")):
            raise TypeError(
                "auth= is a token, a function that gives one, or a provider such as "
                f"mcp.client.auth.OAuthClientProvider, not {type(auth).__name__}"
            )
    return ServerAddress(url, dict(headers), max_bytes, auth)


def _authorizing(auth: Any) -> Any:
    """How requests get their token: as httpx2 and the SDK have it."""
    if auth is None or hasattr(auth, "async_auth_flow"):
        return auth
    import httpx2

    class Bearer(httpx2.Auth):  # type: ignore[misc]
        """A token in the header of each request; where a function gives it, a refused one is asked for once more."""

        async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
            request.headers["Authorization"] = f"Bearer {await _token(auth)}"
            response = yield request
            if response.status_code == 401 and callable(auth):
                request.headers["Authorization"] = f"Bearer {await _token(auth)}"
                yield request

    return Bearer()


async def _token(auth: Any) -> str:
    """The token, of a function too, which may block."""
    if isinstance(auth, str):
        return auth
    token = auth() if aio.is_coroutine_function(auth) else await aio.in_thread(auth)
    token = await token if inspect.isawaitable(token) else token
    if not isinstance(token, str):
        raise TypeError(f"the function of auth= gives a token, a text, and gave a {type(token).__name__}")
    return token


def load_sdk() -> Any:
    """The official SDK.

    Raises:
        MissingExtraError: It is not installed, or is of version 1.
    """
    try:
        import mcp
    except ImportError as error:
        raise MissingExtraError(extra="mcp", package="mcp") from error
    if not hasattr(mcp, "Client"):
        raise MissingExtraError(
            "Toolset.from_mcp needs version 2 of the package mcp: pip install 'mcp>=2.0'", extra="mcp"
        )
    log = logging.getLogger("mcp")
    if not log.handlers:  # else what a server sends wrongly is printed with a traceback, though it is a result
        log.addHandler(logging.NullHandler())
    return mcp
