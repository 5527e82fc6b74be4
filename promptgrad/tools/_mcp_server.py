"""Where a server of the Model Context Protocol is: a process to start, or an address."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from promptgrad.errors import MissingExtraError

_KEPT = 4_000
"""Bytes that are kept of what a process writes to stderr."""


class ServerPlace(Protocol):
    """Where a server is, and how it is connected."""

    @property
    def label(self) -> str:
        """What it is called in errors, without secrets."""
        ...

    def connect(self, errors: ErrorTail) -> AbstractAsyncContextManager[Any]:
        """A connected client of the SDK; at its end the process is ended too.

        Args:
            errors: Keeps what a process writes to stderr.

        Raises:
            MissingExtraError: The SDK is not installed.
        """
        ...


class ErrorTail:
    """The last that a process wrote to stderr."""

    def __init__(self) -> None:
        self._kept = b""
        self._lock = threading.Lock()

    @property
    def text(self) -> str:
        """It as text, without blanks around it."""
        with self._lock:
            return self._kept.decode("utf-8", "replace").strip()

    def reading(self) -> int:
        """A file descriptor for the process to write to; the caller closes it once the process has ended."""
        here, there = os.pipe()
        threading.Thread(target=self._read, args=(here,), name="promptgrad-stderr", daemon=True).start()
        return there

    def _read(self, descriptor: int) -> None:
        with open(descriptor, "rb", buffering=0) as stream:
            while piece := stream.read(65_536):
                with self._lock:
                    self._kept = (self._kept + piece)[-_KEPT:]


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A process that speaks on stdin and stdout."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None

    @property
    def label(self) -> str:
        return os.path.basename(self.command[0])

    @asynccontextmanager
    async def connect(self, errors: ErrorTail) -> AsyncIterator[Any]:
        sdk = load_sdk()
        program, *arguments = self.command
        parameters = sdk.StdioServerParameters(command=program, args=arguments, env=dict(self.env), cwd=self.cwd)
        with open(errors.reading(), "w") as stream:
            async with sdk.Client(sdk.stdio_client(parameters, errlog=stream)) as client:
                yield client

    def __repr__(self) -> str:
        more = ", ..." if len(self.command) > 1 else ""
        return f"command=[{self.label!r}{more}]"  # its arguments and variables may hold secrets


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """An address that speaks streamable HTTP."""

    url: str
    headers: Mapping[str, str]

    @property
    def label(self) -> str:
        return self.url.partition("?")[0].rpartition("@")[2]

    @asynccontextmanager
    async def connect(self, errors: ErrorTail) -> AsyncIterator[Any]:
        sdk = load_sdk()
        import httpx2
        from mcp.client.streamable_http import streamable_http_client

        here = httpx2.URL(self.url).host in ("localhost", "127.0.0.1", "::1")
        async with (
            httpx2.AsyncClient(
                headers=dict(self.headers),
                timeout=httpx2.Timeout(30.0, read=None),  # each call has its own time
                trust_env=not here,  # no proxy of the environment knows this machine
            ) as http,
            sdk.Client(streamable_http_client(self.url, http_client=http)) as client,
        ):
            yield client

    def __repr__(self) -> str:
        return f"url={self.label!r}"  # its headers and its query may hold secrets


def process_of(command: str | Sequence[str], env: Mapping[str, str] | None, cwd: str | None) -> ServerProcess:
    """A server that is started by a command; a text is split as a shell splits it, and no shell runs.

    Raises:
        ValueError: The command is empty.
        TypeError: It is no sequence of texts.
    """
    parts = tuple(shlex.split(command)) if isinstance(command, str) else tuple(os.fspath(part) for part in command)
    if not parts:
        raise ValueError("command=[...] is the program and its arguments, such as ['uvx', 'mcp-server-git']")
    return ServerProcess(parts, dict(env or {}), None if cwd is None else os.fspath(cwd))


def address_of(url: str, headers: Mapping[str, str]) -> ServerAddress:
    """A server at an address.

    Raises:
        ValueError: It is none of http.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"url= is an address such as 'http://127.0.0.1:8000/mcp', not {url!r}")
    return ServerAddress(url, dict(headers))


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
    return mcp
