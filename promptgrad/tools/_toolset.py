"""`Toolset`: tools that belong together."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from promptgrad import aio
from promptgrad.adapters import Tool
from promptgrad.errors import SignatureError
from promptgrad.lm import ToolCall, ToolResult

if TYPE_CHECKING:
    from promptgrad.tools._mcp import MCPTools
    from promptgrad.tools._mcp_server import ServerPlace


class Toolset(tuple[Tool, ...]):
    """Tools that belong together, each with a name of its own: `Toolset([search, Tool(lookup, timeout=5)])`.

    It is a tuple of `Tool`s, and is taken wherever tools are: `nn.ReAct(..., tools=toolset)`, `tools=[mine, toolset]`,
    an input `tools: list[Tool]`. `toolset["search"]` is the tool of that name, and `"search" in toolset` tells whether
    there is one. All methods that choose or change return another set.

    Args:
        tools: Functions, tools, mappings with a schema, or other sets.
        name: Its own name, for people.
        prefix: A text in front of each name, so that tools of several sets have different ones.
        **changes: `timeout`, `max_chars` or `trainable` of all tools, see `Tool`.

    Raises:
        SignatureError: Two tools have one name, or one of them cannot be a tool.
        ValueError: Something is no tool.
        TypeError: A change is none of these.
    """

    name: str

    def __new__(cls, tools: Iterable[Any] = (), *, name: str = "", prefix: str = "", **changes: Any) -> Toolset:
        made = [tool for given in tools for tool in (given if isinstance(given, Toolset) else [Tool.of(given)])]
        if odd := [key for key in changes if key not in ("timeout", "max_chars", "trainable")]:
            raise TypeError(
                f"Toolset has no argument {odd[0]!r}: timeout, max_chars and trainable are set for all tools"
            )
        if prefix or changes:
            made = [tool.replace(name=prefix + tool.name, **changes) for tool in made]
        found = super().__new__(cls, made)
        found.name = name
        seen: set[str] = set()
        for tool in made:
            if tool.name in seen:
                raise SignatureError(
                    f"two tools have the name {tool.name!r}: pass Tool(function, name=...), or prefix= for a whole set"
                )
            seen.add(tool.name)
        return found

    @classmethod
    def from_mcp(
        cls,
        command: str | Sequence[str] | None = None,
        *,
        url: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        headers: Mapping[str, str] | None = None,
        auth: Any = None,
        name: str = "",
        timeout: float = 60.0,
        restarts: int = 3,
        max_bytes: int = 64_000_000,
        **options: Any,
    ) -> MCPTools:
        """The tools of a server that speaks the Model Context Protocol, while it is connected.

        ```
        with pg.Toolset.from_mcp(["uvx", "mcp-server-git"]) as tools:
            agent = nn.ReAct("question -> answer", tools=tools)
        ```

        `async with` does the same in a coroutine. The server is started or reached at the beginning of the block, its
        tools are listed once, and it is ended with the block. What is returned tells by `changed` whether there are
        others later, and `refresh()` gives them.

        Cost: no LM call. What it does on this machine is the server's affair: it is a program that you start.

        Args:
            command: The server as a process that speaks on stdin and stdout: the program and its arguments.
            url: The server's address, for streamable HTTP, in place of a command.
            env: Environment variables of the process, beside the few that are safe to pass on (PATH, HOME, ...).
            cwd: Its working directory.
            headers: Headers of each request to an address, such as `{"X-Team": "blue"}`.
            auth: Who asks at an address: a token, which is sent as `Authorization: Bearer ...`; a function, plain or
                `async`, that gives the token of each request, and once more where it is refused; or a provider of
                the official SDK for OAuth, such as `mcp.client.auth.OAuthClientProvider`, whose login has `timeout`.
            name: Name of the server, for people and errors; by default its own.
            timeout: Seconds that a call may take, and the start.
            restarts: How often in a row a server that ended is started anew or reached again by the next call, without
                a call between that it answered.
            max_bytes: Most bytes of one message of the server. A longer one ends the connection: its calls are
                `ToolServerError`s, and the next one starts it anew.
            **options: `prefix`, `max_chars` or `trainable`, as for `Toolset`.

        Raises:
            ValueError: There is no command and no address, or both, or the header Authorization and `auth`.
            TypeError: An option is unknown, or `auth` is none of these.
        """
        from promptgrad.tools._mcp import MCPTools
        from promptgrad.tools._mcp_server import address_of, process_of

        if (command is None) == (url is None):
            raise ValueError("Toolset.from_mcp takes command=[...] of a server to start, or url= of one that runs")
        if max_bytes < 1:
            raise ValueError(f"max_bytes is the most bytes of a message, at least 1, not {max_bytes}")
        server: ServerPlace
        if command is not None:
            if headers or auth is not None:
                raise ValueError("headers= and auth= belong to url=: a process gets env=")
            server = process_of(command, env, cwd, max_bytes)
        else:
            if env or cwd:
                raise ValueError("env= and cwd= belong to command=: an address gets headers=")
            server = address_of(str(url), headers or {}, max_bytes, auth)
        return MCPTools(server, cls, name=name, timeout=timeout, restarts=restarts, options=options)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tools, in order."""
        return tuple(tool.name for tool in self)

    @overload
    def __getitem__(self, key: str, /) -> Tool: ...
    @overload
    def __getitem__(self, key: SupportsIndex, /) -> Tool: ...
    @overload
    def __getitem__(self, key: slice, /) -> Toolset: ...
    def __getitem__(self, key: Any, /) -> Any:
        """The tool of a name or at a place, or the set of some places.

        Raises:
            KeyError: No tool has the name.
        """
        if isinstance(key, str):
            for tool in self:
                if tool.name == key:
                    return tool
            raise KeyError(self._unknown(key))
        found = super().__getitem__(key)
        return self._with(found) if isinstance(key, slice) else found

    def __contains__(self, key: object) -> bool:
        return key in self.names if isinstance(key, str) else super().__contains__(key)

    def only(self, *names: str) -> Toolset:
        """The set of the tools with these names, in this order.

        Raises:
            KeyError: No tool has one of them.
        """
        return self._with([self[name] for name in names])

    def without(self, *names: str) -> Toolset:
        """The set without the tools of these names.

        Raises:
            KeyError: No tool has one of them.
        """
        gone = {self[name].name for name in names}
        return self._with([tool for tool in self if tool.name not in gone])

    def filter(self, keep: Callable[[Tool], object]) -> Toolset:
        """The set of the tools that a function is true for, such as `lambda tool: "write" not in tool.name`."""
        return self._with([tool for tool in self if keep(tool)])

    def prefixed(self, prefix: str) -> Toolset:
        """The set with a text in front of each name."""
        return Toolset(self, name=self.name, prefix=prefix)

    def replace(self, **changes: Any) -> Toolset:
        """The set with another `timeout`, `max_chars` or `trainable` for each tool.

        Raises:
            TypeError: A change is none of these.
        """
        return Toolset(self, name=self.name, **changes)

    def __add__(self, other: Any) -> Toolset:
        """Both sets in one.

        Raises:
            SignatureError: Two tools have one name.
        """
        return Toolset([*self, *other], name=self.name)

    async def aresults(self, calls: Iterable[ToolCall]) -> list[ToolResult]:
        """What a model is shown of its calls, in their order: they run side by side.

        Each is as `Tool.result` has it, and a call of a tool that is not here is an error like others.

        Raises:
            BudgetExceeded, NoLMError: And other errors that no reply of the model can avoid.
        """
        return await aio.each(self._result, [*calls])

    results = aio.blocking(aresults)

    async def _result(self, call: ToolCall) -> ToolResult:
        if call.name not in self:
            return ToolResult(
                call.id, f"there is no tool `{call.name}`; there are {', '.join(self.names)}", is_error=True
            )
        return await self[call.name].aresult(call)

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self.names) or 'none'}"
        return f"no tool has the name {name!r}: {hint}"

    def _with(self, tools: Iterable[Tool]) -> Toolset:
        return Toolset(tools, name=self.name)

    def __repr__(self) -> str:
        called = repr(self.name) if self.name else ""
        if not self:
            return f"Toolset({called})"
        return "\n".join(
            [
                f"Toolset({called}) of {len(self)} tool{'s' * (len(self) > 1)}:",
                *(f"  {str(tool)[5:-1]}" for tool in self),
            ]
        )
