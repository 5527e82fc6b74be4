"""`Connection`: one connection to a server of the Model Context Protocol, from its start to its end."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any

from promptgrad.errors import MissingExtraError, ToolError, ToolServerError
from promptgrad.tools._mcp_server import Heard, ServerPlace

if TYPE_CHECKING:
    import asyncio

MOST_PAGES = 100
_MOST_TOOLS = 2_000


class ConnectionEnded(Exception):
    """The connection ended before the answer came."""


class Connection:
    """One connection, from its start to its end; all of it on the transport loop.

    The SDK wants a connection to be left in the task that entered it, so one task holds it, and calls come from others.
    """

    def __init__(self, server: ServerPlace) -> None:
        import asyncio

        self.heard = Heard()
        self.tools: list[Any] = []
        self.title = ""
        self._server = server
        self._client: Any = None
        self._leave = asyncio.Event()
        self._ready = asyncio.Event()
        self._over = asyncio.Event()
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_up(self) -> bool:
        """Whether calls can be made."""
        return self._ready.is_set() and not self._over.is_set() and not self._leave.is_set()

    async def start(self, seconds: float, name: str) -> None:
        """Connect, and list the tools.

        Raises:
            MissingExtraError: The SDK is not installed.
            ToolServerError: It is not possible.
        """
        import asyncio

        # a context of its own: the connection outlives the run, the program or the test in which it is begun
        self._task = Context().run(asyncio.get_running_loop().create_task, self._hold())
        begun = {asyncio.ensure_future(self._ready.wait()), asyncio.ensure_future(self._over.wait())}
        try:
            await asyncio.wait(begun, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            self.give_up()
            raise
        finally:
            for waiting in begun:
                waiting.cancel()
        if self._ready.is_set():
            return
        if self._over.is_set():
            cause = _first(self._error)
            if isinstance(cause, MissingExtraError):
                raise cause
            fault = "does not speak the protocol" if _is_nonsense(cause) else "cannot be reached or started"
            why = f"{fault}: {type(cause).__name__}: {_message_of(cause)}{_advice(self.heard.status)}"
        else:
            cause, why = None, f"did not answer within {seconds:g} seconds"
            self.give_up()
        words = await self.heard.errors.whole() if cause is not None else self.heard.errors.text
        raise ToolServerError(f"the server {name!r} {why}", server=name, stderr=words) from cause

    async def relist(self) -> None:
        """List the tools, as they are now."""
        self.heard.changed = False
        self.tools = await _listed(self._client)

    async def _hold(self) -> None:
        import asyncio

        try:
            async with self._server.connect(self.heard) as client:
                self._client = client
                await self.relist()
                self.title = getattr(client.server_info, "name", "") or ""
                self._ready.set()
                watching = asyncio.ensure_future(_watch(client, self.heard))
                try:
                    await self._leave.wait()
                finally:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
        except BaseException as error:  # noqa: BLE001 - those who wait are told
            self._error = error
        finally:
            self._over.set()

    async def ask(self, request: Callable[[Any], Coroutine[Any, Any, Any]], about: str) -> Any:
        """What the SDK gives for a request.

        Args:
            request: Makes it of the SDK's client.
            about: The tool, or whatever it is about, for errors.

        Raises:
            ConnectionEnded: The connection ended.
            ToolError: The server refuses, or does not keep to the protocol.
        """
        import asyncio

        call = asyncio.ensure_future(request(self._client))
        over = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait({call, over}, return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                raise ConnectionEnded
            return call.result()
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, ConnectionEnded) or _is_closing(error) or (call.done() and call.cancelled()):
                raise ConnectionEnded from None
            if isinstance(error, asyncio.CancelledError):
                raise
            raise ToolError(f"the server's answer cannot be used: {_message_of(error)}", tool=about) from error
        finally:
            call.cancel()
            over.cancel()

    def give_up(self) -> bool:
        """Let the connection end, without waiting for it; False if that was said before."""
        if self._leave.is_set():
            return False
        self._leave.set()
        if not self._ready.is_set() and self._task is not None:
            self._task.cancel()
        return True

    async def stop(self) -> None:
        """End the connection, and wait until it has ended."""
        self.give_up()
        await self._over.wait()


async def _listed(client: Any) -> list[Any]:
    """All tools of a server, as many as a model could ever be shown."""
    found: list[Any] = []
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = await client.list_tools(cursor=cursor, cache_mode="refresh")
        found += page.tools
        cursor = page.next_cursor
        if cursor is None or len(found) >= _MOST_TOOLS:
            break
    return found[:_MOST_TOOLS]


def _advice(status: int) -> str:
    """What an address answered to the last request, where that was a refusal, which the SDK does not say."""
    what = ": give its token as auth=" if status in (401, 403) else ""
    return f"; it answered {status}{what}" if status else ""


async def _watch(client: Any, heard: Heard) -> None:
    """Hear of other tools from a server that speaks of them only where it is asked to; others just say it."""
    from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
    from mcp.shared.exceptions import MCPError

    tools = getattr(client.server_capabilities, "tools", None)
    if not getattr(tools, "list_changed", False):
        return
    with suppress(ListenNotSupportedError, SubscriptionLost, MCPError, TimeoutError):
        async with client.listen(tools_list_changed=True) as events:
            async for _ in events:
                heard.changed = True


def _first(error: BaseException | None) -> BaseException | None:
    """The error in a group of them, as task groups raise it."""
    while error is not None and getattr(error, "exceptions", None):
        error = error.exceptions[0]  # type: ignore[attr-defined]
    return error


def _is_closing(error: BaseException) -> bool:
    from mcp_types import CONNECTION_CLOSED

    return bool(getattr(error, "code", None) == CONNECTION_CLOSED)


def _is_nonsense(error: BaseException | None) -> bool:
    """Whether the SDK could not read what came."""
    return isinstance(error, ValueError)


def _message_of(error: BaseException | None) -> str:
    text = str(error)
    return text if len(text) <= 1_000 else f"{text[:1000]}..."
