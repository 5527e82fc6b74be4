"""The pipes of a server of the Model Context Protocol: a process, whose lines are messages."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from promptgrad.tools._mcp_server import Heard

_FLUSH_SECONDS = 0.5
"""For what was to be sent, before stdin is closed."""

_END_SECONDS = 2.0
"""For the process to end by itself once stdin is closed, and after each signal."""

_POLL_SECONDS = 0.01
_PIECE = 65_536


@asynccontextmanager
async def piped(
    command: Sequence[str], env: Mapping[str, str], cwd: str | None, heard: Heard, max_bytes: int
) -> AsyncIterator[tuple[Any, Any]]:
    """Start a process, and give the two streams of messages that the SDK's client takes as its transport.

    It does what the SDK's own `stdio_client` does, but that one joins and splits all that it has of a line with every
    piece that comes, so that a message takes time and memory that grow with the square of its length, without a bound.

    Args:
        command: The program and its arguments.
        env: Its variables beside those that are safe to pass on.
        cwd: Its working directory.
        heard: Takes what it writes to stderr, and why its connection was ended.
        max_bytes: Most bytes of one message; at a longer one the connection ends.

    Raises:
        OSError: It cannot be started.
    """
    import asyncio
    import subprocess

    import anyio
    from mcp.client.stdio import get_default_environment

    with open(heard.errors.reading(), "wb", buffering=0) as stream:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            env={**get_default_environment(), **env},
            cwd=cwd,
            start_new_session=True,
            limit=max_bytes,
        )
    received, to_read = anyio.create_memory_object_stream[Any](0)
    to_write, sending = anyio.create_memory_object_stream[Any](0)
    reading = asyncio.ensure_future(_read(process, received, heard, max_bytes))
    writing = asyncio.ensure_future(_write(process, sending, received))
    try:
        yield to_read, to_write
    finally:
        to_read.close()  # what still comes is dropped, so that a process that is writing gets to the end of its stdin
        to_write.close()
        await asyncio.wait({writing}, timeout=_FLUSH_SECONDS)
        await _end(process)
        for task in (reading, writing):
            task.cancel()
        await asyncio.gather(reading, writing, return_exceptions=True)
        for one in (received, sending):
            one.close()


async def _read(process: asyncio.subprocess.Process, received: Any, heard: Heard, max_bytes: int) -> None:
    """Lines as messages; what is not a message goes on as an error, and the session passes over it."""
    import anyio
    from mcp.shared.message import SessionMessage
    from mcp_types import jsonrpc_message_adapter

    stdout = process.stdout
    assert stdout is not None  # noqa: S101 - it was asked for
    with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, ConnectionError):
        async with received:
            while line := await _line(stdout, heard, max_bytes):
                try:
                    message: Any = SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
                except ValueError as error:
                    message = error
                await received.send(message)
    with suppress(ConnectionError):
        while await stdout.read(_PIECE):
            pass


async def _line(stdout: asyncio.StreamReader, heard: Heard, max_bytes: int) -> bytes:
    """The next line; nothing at the end, or where one is too long."""
    try:
        return await stdout.readline()
    except ValueError:
        heard.fault = f"sent a message of more than {max_bytes:,} bytes"
        return b""


async def _write(process: asyncio.subprocess.Process, sending: Any, received: Any) -> None:
    stdin = process.stdin
    assert stdin is not None  # noqa: S101 - it was asked for
    try:
        async with sending:
            async for item in sending:
                stdin.write(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                await stdin.drain()
    except (ConnectionError, OSError):
        await received.aclose()  # the session sees the end, and no request waits for ever


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the process and all that it started: by the end of its stdin, and by signals if it does not hear."""
    stdin = process.stdin
    assert stdin is not None  # noqa: S101 - it was asked for
    with suppress(OSError):
        stdin.close()
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
        if await _has_ended(process):
            break
    transport = getattr(
        process, "_transport", None
    )  # a descendant may hold the pipes open, and nothing else closes them
    if transport is not None:
        with suppress(PermissionError):
            transport.close()


async def _has_ended(process: asyncio.subprocess.Process) -> bool:
    """Whether it ends in time; `wait()` would wait for whoever inherited its pipes, too."""
    import asyncio

    loop = asyncio.get_running_loop()
    until = loop.time() + _END_SECONDS
    while process.returncode is None and loop.time() < until:
        await asyncio.sleep(_POLL_SECONDS)
    return process.returncode is not None
