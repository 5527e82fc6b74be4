"""What litellm sends in a call of ours: to the address that it has, nowhere else, and no answer is read without end.

litellm reaches its providers through a hundred paths, with clients that it makes, keeps and shares by itself; most of
them follow redirects, with the prompt. They send by `httpx`, so `watch` looks there, and only at what is sent inside
`straight`: whatever else uses `httpx` in this process is as it was.
"""

from __future__ import annotations

import asyncio
import sys
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from promptgrad.errors import BadRequestError, LMError, LMStatusError
from promptgrad.lm._body import Meter
from promptgrad.lm._fork import keep_forever, reset_after_fork


class Straight:
    """One call of litellm, and the error with which it was broken off here, if it was.

    Args:
        addresses: Whether the request names addresses, from which the provider loads images and files; for some
            providers litellm would load them here.
    """

    def __init__(self, *, addresses: bool = False) -> None:
        self.error: LMError | None = None
        self.addresses = addresses

    def check(self, request: Any) -> None:
        """Refuse to load what an address names: only the provider may, outside of this machine's networks.

        Raises:
            BadRequestError: The request of `httpx` loads something.
        """
        if self.error is not None:  # litellm goes on without what it could not load
            raise self.error
        if self.addresses and request.method in ("GET", "HEAD"):
            with self.noting():
                raise BadRequestError(
                    f"litellm would load an image or file from {request.url.host} here, for a provider that takes no "
                    "addresses, so nothing was sent: load it yourself and pass its bytes, Image(data)"
                )

    def answered(self, status: int, host: str) -> None:
        """Refuse a redirect, of which some of litellm's paths say nothing.

        Raises:
            LMStatusError: It is one.
        """
        if 300 <= status < 400:
            with self.noting():
                raise LMStatusError(
                    f"{host} answered litellm {status}; redirects are not followed: give base_url as it wants it",
                    status=status,
                )

    def meter(self, encoding: str) -> Meter:
        """Count an answer that is compressed in this way.

        Raises:
            LMReplyError: It is not a way that was asked for.
        """
        with self.noting():
            return Meter(encoding)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Keep an error of ours, which litellm would replace by one of its own."""
        try:
            yield
        except LMError as error:
            self.error = error
            raise


_straight: ContextVar[Straight | None] = ContextVar("promptgrad.straight", default=None)


@contextmanager
def straight(*, addresses: bool = False) -> Iterator[Straight]:
    """Follow no redirect in the code inside, and read no answer beyond `MAX_BODY`.

    Args:
        addresses: As of `Straight`.
    """
    call = Straight(addresses=addresses)
    token = _straight.set(call)
    try:
        yield call
    finally:
        _straight.reset(token)


def watch() -> None:
    """Look at what the clients of `httpx` send, and at those of its successor, which newer versions of openai use."""
    for name in ("httpx", "httpx2"):
        module = sys.modules.get(name)
        if module is not None and not hasattr(module.AsyncClient.send, "promptgrad"):
            _watch(module)


def _watch(httpx: Any) -> None:
    send, asend = httpx.Client.send, httpx.AsyncClient.send

    def plain(self: Any, request: Any, *, stream: bool = False, **options: Any) -> Any:
        call = _straight.get()
        if call is None:
            return send(self, request, stream=stream, **options)
        call.check(request)
        response = send(self, _asked_straight(request), stream=True, **{**options, "follow_redirects": False})
        try:
            call.answered(response.status_code, request.url.host)
            response.stream = Plain(response.stream, call, response.headers.get("Content-Encoding", ""))
            if not stream:
                response.read()
        except BaseException:
            response.close()
            raise
        return response

    async def waiting(self: Any, request: Any, *, stream: bool = False, **options: Any) -> Any:
        call = _straight.get()
        if call is None:
            return await asend(self, request, stream=stream, **options)
        call.check(request)
        _clients.of_this_loop().add(self)
        response = await asend(self, _asked_straight(request), stream=True, **{**options, "follow_redirects": False})
        try:
            call.answered(response.status_code, request.url.host)
            response.stream = Waiting(response.stream, call, response.headers.get("Content-Encoding", ""))
            if not stream:
                await response.aread()
        except BaseException:
            await response.aclose()
            raise
        return response

    class Plain(httpx.SyncByteStream):  # type: ignore[misc]
        """The body of an answer, up to a size."""

        def __init__(self, stream: Any, call: Straight, encoding: str) -> None:
            self.stream, self.call, self.meter = stream, call, call.meter(encoding)

        def __iter__(self) -> Iterator[bytes]:
            for piece in self.stream:
                with self.call.noting():
                    self.meter.count(piece)
                yield piece

        def close(self) -> None:
            self.stream.close()

    class Waiting(httpx.AsyncByteStream):  # type: ignore[misc]
        """The same, awaited."""

        def __init__(self, stream: Any, call: Straight, encoding: str) -> None:
            self.stream, self.call, self.meter = stream, call, call.meter(encoding)

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for piece in self.stream:
                with self.call.noting():
                    self.meter.count(piece)
                yield piece

        async def aclose(self) -> None:
            await self.stream.aclose()

    plain.promptgrad = waiting.promptgrad = True  # type: ignore[attr-defined]
    httpx.Client.send, httpx.AsyncClient.send = plain, waiting


def _asked_straight(request: Any) -> Any:
    """The request, which asks for no other compression than those that are counted."""
    request.headers["Accept-Encoding"] = "gzip, deflate"
    return request


class _Clients:
    """The clients that calls of ours used, by loop: they are closed with it, which litellm does not do for its own."""

    def __init__(self) -> None:
        self._known: dict[asyncio.AbstractEventLoop, tuple[weakref.WeakSet[Any], AsyncGenerator[None]]] = {}
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Start without clients: their connections belong to the parent."""
        keep_forever([self._known, [[*clients] for clients, _ in self._known.values()]])
        self._known = {}

    def of_this_loop(self) -> weakref.WeakSet[Any]:
        """The clients of the running loop."""
        found = self._known.get(asyncio.get_running_loop())
        return weakref.WeakSet() if found is None else found[0]

    async def keep(self) -> None:
        """Begin to keep those of the running loop, until it shuts down."""
        loop = asyncio.get_running_loop()
        if loop not in self._known:
            clients: weakref.WeakSet[Any] = weakref.WeakSet()
            keeper = self._close_with_loop(loop, clients)
            self._known[loop] = clients, keeper
            await keeper.__anext__()

    async def _close_with_loop(
        self, loop: asyncio.AbstractEventLoop, clients: weakref.WeakSet[Any]
    ) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self._known.pop(loop, None)
            for client in list(clients):
                await client.aclose()


_clients = _Clients()
keep_clients = _clients.keep
