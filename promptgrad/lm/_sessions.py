"""`Sessions`: one aiohttp session for each event loop, closed with its loop and never shared with a forked child."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from promptgrad.lm._fork import keep_forever, reset_after_fork
from promptgrad.lm._overtime import Overtime

if TYPE_CHECKING:
    import aiohttp

CONNECT = 30.0
"""Most seconds for a connection to be made."""


WHOLE = 6
"""How many times as long as a silence a whole reply may take."""


class LoopSession(NamedTuple):
    """The connections of one loop.

    Attributes:
        client: The session of aiohttp.
        overtime: What ends a request that takes too long in all.
        keeper: What closes the client with the loop.
    """

    client: aiohttp.ClientSession
    overtime: Overtime
    keeper: AsyncGenerator[None]


class Sessions:
    """Keep-alive connections for the event loops that use one LM.

    A session belongs to the loop it was made on. It is closed when that loop shuts down (`asyncio.run` and every
    other runner calls `shutdown_asyncgens`), so a program may start as many loops as it likes.

    Args:
        make: Function that makes a session of aiohttp; it is called on a running loop.
        timeout: The longest silence, in seconds.
    """

    def __init__(self, make: Callable[[], aiohttp.ClientSession], timeout: float) -> None:
        self._make = make
        self._seconds = WHOLE * timeout
        self._open: dict[asyncio.AbstractEventLoop, LoopSession] = {}
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Start without sessions: the sockets belong to the parent."""
        keep_forever(self._open)
        self._open = {}

    def find(self) -> LoopSession | None:
        """The session of the running loop, if there is one."""
        found = self._open.get(asyncio.get_running_loop())
        return None if found is None or found.client.closed else found

    async def get(self) -> LoopSession:
        """Return the session of the running loop; make it, if there is none."""
        found = self.find()
        if found is not None:
            return found
        loop = asyncio.get_running_loop()
        for other in [known for known in self._open if known.is_closed()]:
            self._open.pop(other, None)
        client = self._make()
        made = self._open[loop] = LoopSession(client, Overtime(self._seconds), self._close_with_loop(client))
        await made.keeper.__anext__()
        return made

    def close(self) -> None:
        """Close every session whose loop still runs, without waiting for foreign loops."""
        while self._open:
            loop, session = self._open.popitem()
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(session.keeper.aclose(), loop)

    async def _close_with_loop(self, client: aiohttp.ClientSession) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            loop = asyncio.get_running_loop()
            if loop in self._open and self._open[loop].client is client:  # and not the one that took its place
                del self._open[loop]
            await client.close()


def open_session(proxy: str | None, timeout: float, headers: Mapping[str, str]) -> aiohttp.ClientSession:
    """A session for one server: `timeout` is its longest silence, in seconds."""
    import aiohttp

    from promptgrad import __version__

    fixed = {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": f"promptgrad/{__version__}",
    }
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(timeout, CONNECT), sock_read=timeout),
        headers={**fixed, **headers},
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=proxy,
        auto_decompress=False,
    )
