"""`MCPTools`: the tools of a server that speaks the Model Context Protocol, while it is connected."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from promptgrad import aio
from promptgrad.adapters import Tool
from promptgrad.errors import ToolError, ToolServerError, ToolTimeoutError
from promptgrad.lm import Message
from promptgrad.tools._mcp_connection import MOST_PAGES, Connection, ConnectionEnded
from promptgrad.tools._mcp_result import (
    content_of,
    description_of,
    messages_of,
    names_for,
    prompt_words,
    resource_words,
    unfit_prompt,
    value_of,
    worded,
)
from promptgrad.tools._mcp_server import ServerPlace, load_sdk

if TYPE_CHECKING:
    import asyncio

    from promptgrad.tools._toolset import Toolset


class MCPTools:
    """The tools of a server that speaks the Model Context Protocol, while it is connected.

    `Toolset.from_mcp(...)` makes it. It is a context manager, plain and `async`, that gives the `Toolset`; `open()` and
    `close()` are the same for a notebook. The connection lives on promptgrad's own loop, so that the tools may be
    called from any thread or loop, many at once.

    A call of a tool gives the server's structured content, or its text, or a list of texts, `Image`s, `Audio`s and
    `File`s. What the server says of its tools decides nothing but how arguments are read. Names that providers do not
    take are mended, descriptions cut at 10,000 characters.

    A call whose server ends is not made again, as it may have done something: it is a `ToolServerError`, which a model
    sees as the result. The next call starts the server anew, `restarts` times in a row.

    Cost: no LM call.

    Attributes:
        name: The server's name.
        toolset: Its tools; those of its first start.
        starts: How often it was started or reached.
        changed: Whether the server has other tools than these, as far as it has said so; `refresh()` gives them.

    Raises:
        MissingExtraError: When it is opened: the package `mcp` is not installed.
        ToolServerError: When it is opened: it cannot be started or reached, ends at once, does not answer in time, or
            does not speak the protocol. `error.stderr` is the last that a process wrote there.
    """

    def __init__(
        self,
        server: ServerPlace,
        collect: Callable[..., Toolset],
        *,
        name: str,
        timeout: float,
        restarts: int,
        options: Mapping[str, Any],
    ) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout is a number of seconds above zero, not {timeout!r}")
        if restarts < 0:
            raise ValueError(f"restarts is at least 0, not {restarts}")
        if odd := [key for key in options if key not in ("prefix", "max_chars", "trainable")]:
            raise TypeError(f"Toolset.from_mcp has no argument {odd[0]!r}")
        self.name = name or server.label
        self.starts = 0
        self._server = server
        self._collect = collect
        self._named = bool(name)
        self._timeout = timeout
        self._restarts = restarts
        self._options = dict(options)
        self._toolset: Toolset | None = None
        self._listed: list[Any] = []
        self._open = False
        self._connection: Connection | None = None
        self._lock: asyncio.Lock | None = None
        self._failures = 0
        self._process = os.getpid()

    @property
    def toolset(self) -> Toolset:
        """The tools of the server.

        Raises:
            ToolServerError: It was never opened.
        """
        if self._toolset is None:
            raise ToolServerError(
                f"the server {self.name!r} is not connected: write `with Toolset.from_mcp(...) as tools:`",
                server=self.name,
            )
        return self._toolset

    @property
    def changed(self) -> bool:
        """Whether the server said that it has other tools, or listed others when it was started anew."""
        connection = self._connection
        if connection is None or self._toolset is None:
            return False
        return connection.heard.changed or (connection.is_up and connection.tools != self._listed)

    async def arefresh(self) -> Toolset:
        """List the tools anew, and give the set of those that there are now.

        Sets and agents that were made before stay as they are: a set cannot change under an agent, whose parameters are
        the descriptions of its tools. A call of a tool that is gone is an error that the model is shown.

        Cost: no LM call.

        Raises:
            ToolServerError: It is not open, ended and cannot be started again, or does not answer in time.
        """
        return await aio.on_transport(self._arefresh)

    refresh = aio.blocking(arefresh)

    async def aresources(self) -> dict[str, str]:
        """What the server offers to read, as far as it lists it: what each is, by its address.

        Cost: no LM call.

        Raises:
            ToolServerError: It is not open, or ended and cannot be started again.
            ToolError: It has no resources, or does not keep to the protocol.
        """
        return await aio.on_transport(self._resources)

    resources = aio.blocking(aresources)

    async def aread(self, uri: str) -> Any:
        """Read what the server offers at an address.

        It is a tool as well: `tools=[*tools, server.read]`, or `pg.Tool(server.read, description=...)` with the
        addresses that there are.

        Cost: no LM call.

        Args:
            uri: The address, such as `file:///notes.txt`.

        Raises:
            ToolServerError: It is not open, or ended and cannot be started again.
            ToolTimeoutError: It did not answer in time.
            ToolError: It refuses, or does not keep to the protocol.
        """
        return await aio.on_transport(self._read, uri)

    read = aio.blocking(aread)

    async def aprompts(self) -> dict[str, str]:
        """The prompts that the server offers, as far as it lists them: arguments and what each is for, by its name.

        Cost: no LM call.

        Raises:
            ToolServerError: It is not open, or ended and cannot be started again.
            ToolError: It has no prompts, or does not keep to the protocol.
        """
        return await aio.on_transport(self._prompts)

    prompts = aio.blocking(aprompts)

    async def aprompt(self, name: str, /, **arguments: Any) -> list[Message]:
        """A prompt of the server, filled in, as messages: for a language model, or the turns of a `pg.History`.

        `model(server.prompt("review", code=text))` answers it; `pg.History(server.prompt(...))` is the earlier turns of
        a program. The server's words are those of a user or an assistant, never the instruction of a program.

        Cost: no LM call.

        Args:
            name: The prompt, one of `prompts()`.
            **arguments: What it is filled in with. The protocol knows texts; other values are written as JSON.

        Raises:
            ToolServerError: It is not open, or ended and cannot be started again.
            ToolTimeoutError: It did not answer in time.
            ToolError: It does not know the prompt, lacks an argument, or does not keep to the protocol.
        """
        return await aio.on_transport(self._prompt, name, arguments)

    prompt = aio.blocking(aprompt)

    async def aopen(self) -> Toolset:
        """Start the server, or reach it, and list its tools; where it is open, nothing happens."""
        await aio.in_thread(load_sdk)  # a second of work, which is not for the loop of all connections
        return await aio.on_transport(self._aopen)

    open = aio.blocking(aopen)

    async def aclose(self) -> None:
        """End the connection, and the process; calls in flight fail."""
        await aio.on_transport(self._aclose)

    close = aio.blocking(aclose)

    def __enter__(self) -> Toolset:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Toolset:
        return await self.aopen()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _aopen(self) -> Toolset:
        if not self._open:
            self._open, self._failures = True, 0
        try:
            connection = await self._alive()
        except BaseException as error:
            self._open = self._toolset is not None
            if isinstance(error, ToolServerError) and error.stderr:  # which a model that calls a tool is never shown
                raise ToolServerError(
                    f"{error}; the last that it wrote: {error.stderr[-500:]}", server=self.name, stderr=error.stderr
                ) from error.__cause__
            raise
        return self._made(connection.tools) if self._toolset is None else self._toolset

    async def _arefresh(self) -> Toolset:
        import asyncio

        connection = await self._alive()
        try:
            await asyncio.wait_for(connection.relist(), self._timeout)
        except Exception as error:
            connection.give_up()
            raise ToolServerError(
                f"the server {self.name!r} did not list its tools: {type(error).__name__}: {error}",
                server=self.name,
                stderr=connection.heard.errors.text,
            ) from error
        return self._made(connection.tools)

    async def _aclose(self) -> None:
        self._open = False
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.stop()

    def _made(self, listed: list[Any]) -> Toolset:
        options = dict(self._options)
        names = names_for(listed, options.pop("prefix", ""))
        tools = [
            Tool(
                MCPCall(self, tool.name),
                name=name,
                description=description_of(tool),
                parameters=tool.input_schema,
                timeout=self._timeout,
            )
            for name, tool in zip(names, listed, strict=True)
        ]
        self._listed = listed
        self._toolset = self._collect(tools, name=self.name, **options)
        return self._toolset

    async def _alive(self) -> Connection:
        """The connection, made anew where it has ended; on the transport loop."""
        import asyncio

        if self._process != os.getpid():  # a fork: neither the loop nor the connection came along
            self._process, self._connection, self._lock = os.getpid(), None, None
        if not self._open:
            raise ToolServerError(
                f"the server {self.name!r} is closed: call its tools inside of the block", server=self.name
            )
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            if self._connection is not None and self._connection.is_up:
                return self._connection
            if self._failures > self._restarts:
                raise ToolServerError(
                    f"the server {self.name!r} ended {self._failures} times in a row, and is not started again",
                    server=self.name,
                    stderr="" if self._connection is None else self._connection.heard.errors.text,
                )
            self._connection = connection = Connection(self._server)
            self.starts += 1
            try:
                await connection.start(self._timeout, self.name)
            except Exception:
                self._failures += 1
                raise
            if not self._named and connection.title:
                self.name = connection.title
            return connection

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> Any:
        """What the server gives for a call, as the SDK has it; on the transport loop.

        Raises:
            ToolServerError: It ended, or cannot be started again.
            ToolError: It refuses the call, or what it gave is not what the protocol or its own schema says.
        """
        return await self._ask(lambda client: client.call_tool(tool, dict(arguments)), tool)

    async def _ask(self, request: Callable[[Any], Any], tool: str) -> Any:
        connection = await self._alive()
        try:
            result = await connection.ask(request, tool)
        except ConnectionEnded:
            if connection.give_up():  # this is the first of the calls that it took with it
                self._failures += 1
            raise ToolServerError(
                f"the server {self.name!r} {connection.heard.fault or 'ended'} before it answered the call of `{tool}`",
                tool=tool,
                server=self.name,
                stderr=await connection.heard.errors.whole(),
            ) from None
        self._failures = 0
        return result

    async def _resources(self) -> dict[str, str]:
        return {str(one.uri): resource_words(one) for one in await self._pages("resources")}

    async def _prompts(self) -> dict[str, str]:
        return {one.name: prompt_words(one) for one in await self._pages("prompts")}

    async def _prompt(self, name: str, arguments: Mapping[str, Any]) -> list[Message]:
        given = {key: worded(value) for key, value in arguments.items()}
        try:
            return messages_of(await self._in_time(lambda client: client.get_prompt(name, given), name))
        except (ToolTimeoutError, ToolServerError):
            raise
        except ToolError as error:  # few servers say what is wrong with what was asked
            if fault := unfit_prompt(await self._pages("prompts"), name, given):
                raise ToolError(fault, tool=name) from error
            raise

    async def _pages(self, what: str) -> list[Any]:
        """All that the server lists of one kind, "resources" or "prompts"."""
        found: list[Any] = []
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            page = await self._in_time(partial(_list_page, what, cursor), what)
            found += getattr(page, what)
            cursor = page.next_cursor
            if cursor is None:
                break
        return found

    async def _read(self, uri: str) -> Any:
        return content_of(await self._in_time(lambda client: client.read_resource(uri), uri))

    async def _in_time(self, request: Callable[[Any], Any], about: str) -> Any:
        import asyncio

        try:
            return await asyncio.wait_for(self._ask(request, about), self._timeout)
        except (TimeoutError, asyncio.TimeoutError) as error:  # two classes before Python 3.11
            raise ToolTimeoutError(
                f"the server {self.name!r} gave nothing of {about!r} within {self._timeout:g} seconds",
                tool=about,
                seconds=self._timeout,
            ) from error

    def __deepcopy__(self, memo: dict[int, Any]) -> MCPTools:
        return self  # a connection

    def __reduce__(self) -> Any:
        raise TypeError("a connection to a server cannot be pickled: open it where its tools are called")

    def __repr__(self) -> str:
        state = f"{len(self._toolset)} tools" if self._toolset is not None else "not connected"
        closed = "" if self._open or self._toolset is None else ", closed"
        return f"MCPTools({self.name!r}, {self._server!r}, {state}{closed})"


async def _list_page(what: str, cursor: str | None, client: Any) -> Any:
    return await getattr(client, f"list_{what}")(cursor=cursor)


class MCPCall:
    """The function of a tool of a server."""

    __slots__ = ("owner", "tool")

    def __init__(self, owner: MCPTools, tool: str) -> None:
        self.owner = owner
        self.tool = tool

    async def __call__(self, /, **arguments: Any) -> Any:
        return value_of(await aio.on_transport(self.owner.call, self.tool, arguments), self.tool)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MCPCall) and other.owner is self.owner and other.tool == self.tool

    def __hash__(self) -> int:
        return hash((id(self.owner), self.tool))

    def __repr__(self) -> str:
        return f"<tool {self.tool!r} of the server {self.owner.name!r}>"
