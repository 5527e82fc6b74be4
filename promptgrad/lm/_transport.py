"""`Transport`: an LM that really reaches a model, and the one point that every paid call passes."""

from __future__ import annotations

from typing import Any

from promptgrad.lm._base import LM
from promptgrad.lm._completion import Completion
from promptgrad.lm._request import Request, canonical_json, normalize_options
from promptgrad.lm._usage import charge


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
        """Answer one request: look in the run's journal, keep to its budget, send, record."""
        if self.options:
            request = self.with_defaults(request)
        completion = await self._send(request, "")
        charge(completion.usage)
        return completion

    def with_defaults(self, request: Request) -> Request:
        """Return the request with this LM's options where it leaves them open."""
        given = request.options()
        extra = dict(self.options.get("extra", ())) | dict(request.extra)
        merged = {**self.options, **given, "extra": tuple(sorted(extra.items()))}
        return Request(request.prefix, request.tail, **merged)

    async def _send(self, request: Request, key: str) -> Completion:
        """Send the request to the model. `key` is its journal key, empty outside a run."""
        raise NotImplementedError(f"{type(self).__name__} does not define _send()")
