"""`Transport`: an LM that really reaches a model, and the one point that every paid call passes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptgrad import run
from promptgrad.lm._base import LM
from promptgrad.lm._cassette import current_cassette
from promptgrad.lm._completion import Completion
from promptgrad.lm._prices import FREE, Prices, cost
from promptgrad.lm._request import Request, canonical_json, normalize_options
from promptgrad.lm._usage import charge

REPLY_TOKENS = 256
"""Estimated length of a reply whose request sets no `max_tokens`, for the budget's reservation."""


class Transport(LM):
    """An LM that reaches a model; subclasses define `_send`.

    Args:
        name: What the LM is called; never a secret.
        adapter: Name of the adapter that writes prompts for it.
        options: Sampling options for requests that leave them open, as `Request.of` takes them.
    """

    def __init__(self, name: str, *, adapter: str = "chat", options: dict[str, Any] | None = None) -> None:
        self.name = name
        self.adapter = adapter
        self.options: dict[str, Any] = normalize_options(options or {})
        self._identity = name if not self.options else f"{name} {canonical_json(self.options)}"

    def identity(self) -> str:
        """Return name and default options."""
        return self._identity

    async def complete(self, request: Request) -> Completion:
        """Answer one request. Inside a run: from its journal, or within its budget and then journalled."""
        session = run.current()
        asked = self.with_defaults(request) if self.options else request
        cassette = current_cassette()
        if session is not None:
            completion = await self._paid(session, request, asked)
        elif cassette is None:
            completion = await self._send(asked, "")
        else:
            completion = await cassette.reach(self, request, asked, "")
        charge(completion.usage)
        return completion

    async def _paid(self, session: run.Session, request: Request, asked: Request) -> Completion:
        key = request.digest(self.identity())
        cassette = current_cassette()
        fresh: list[Completion] = []

        async def send() -> Mapping[str, Any]:
            if cassette is None:
                fresh.append(await self._send(asked, key))
            else:
                fresh.append(await cassette.reach(self, request, asked, key))
            return self._record(fresh[0])

        read = sum(len(m.content) for m in asked.messages) // 3 + 4 * len(asked.messages)
        written = asked.max_tokens or REPLY_TOKENS
        prices = self.prices
        reply, _ = await session.call(key, send, tokens=read + written, usd=cost(prices, read, written))
        if fresh:
            return fresh[0]
        if cassette is not None:
            cassette.keep(self, request, reply)
        return self._restore(asked, reply)

    @property
    def prices(self) -> Prices | None:
        """US dollars for a million input and a million output tokens; None where they are not known."""
        return FREE

    def _record(self, completion: Completion) -> dict[str, Any]:
        """Return what the journal keeps of a completion, in JSON types."""
        return completion.to_dict()

    def _restore(self, request: Request, reply: Mapping[str, Any]) -> Completion:
        """Return the completion that was journalled."""
        return Completion.from_dict(reply)

    def with_defaults(self, request: Request) -> Request:
        """Return the request with this LM's options where it leaves them open."""
        given = request.options()
        extra = dict(self.options.get("extra", ())) | dict(request.extra)
        merged = {**self.options, **given, "extra": tuple(sorted(extra.items()))}
        return Request(request.prefix, request.tail, **merged)

    async def _send(self, request: Request, key: str) -> Completion:
        """Send the request to the model. `key` is its journal key, empty outside a run."""
        raise NotImplementedError(f"{type(self).__name__} does not define _send()")
