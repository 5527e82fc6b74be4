"""`Transport`: an LM that reaches a model, and the one point that every paid call passes."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import Any

from promptgrad import aio
from promptgrad.errors import LMError
from promptgrad.lm._base import LM
from promptgrad.lm._channel import DIRECT, ModelCall, answerer
from promptgrad.lm._codec import canonical_json
from promptgrad.lm._completion import Completion, Usage
from promptgrad.lm._may_think import may_think
from promptgrad.lm._prices import FREE, Prices, find_media
from promptgrad.lm._request import Request, normalize_options
from promptgrad.lm._thinking import without_thinking


class Transport(LM):
    """An LM that reaches a model; subclasses define `_send`.

    `_send` is an ordinary coroutine: it runs in a task of the caller's loop, or of promptgrad's program loop where the
    caller is a plain function, which costs some 0.1 ms. It does not handle cache, retries, budget, journal, cassettes
    or usage. `promptgrad.testing.lms.LMContract` tests it.

    Args:
        name: Name of the LM; never a secret.
        adapter: Name of the adapter that writes prompts for it.
        options: Sampling options for requests that leave them open, in the form of `Request.of`.

    Attributes:
        endpoint: What calls share a capacity with: the model at its address; empty where it has none.
        in_place: True if `_send` awaits nothing except the primitives of `promptgrad.aio`, so that it needs no task.
    """

    in_place: bool = False
    endpoint: str = ""

    def __init__(self, name: str, *, adapter: str = "chat", options: dict[str, Any] | None = None) -> None:
        self.name = name
        self.adapter = adapter
        self.options: dict[str, Any] = normalize_options(options or {})
        self._identity = name if not self.options else f"{name} {canonical_json(self.options)}"

    def identity(self) -> str:
        """Return name and default options."""
        return self._identity

    @property
    def media(self) -> frozenset[str] | None:
        """What it takes beside text, as litellm's table says of a model of its name."""
        return find_media(self.name)

    async def complete(self, request: Request) -> Completion:
        """Answer one request. Inside a run: from its journal, or within its budget and then journalled.

        Journals and cassettes have the reply as it came; thoughts that the model wrote into its text are
        split off here.
        """
        asked = self.with_defaults(request) if self.options else request
        link, trackers = answerer()
        try:
            if link is not DIRECT:
                completion = await link.answer(ModelCall(self, request, asked))
            else:  # most calls outside of runs: half a microsecond less
                completion = await (self._send(asked, "") if self.in_place else self.reach(asked, ""))
        except LMError as error:
            if error.billed:
                for tracker in trackers:
                    tracker.add(Usage.from_dict(error.billed), self.name)
            raise
        content = completion.content
        if content.__class__ is not str or may_think(content) or completion.more:
            completion = _thoughts_apart(completion, request)
        for tracker in trackers:
            tracker.add(completion.usage, self.name)
        return completion

    @property
    def prices(self) -> Prices | None:
        """US dollars for a million input and a million output tokens; None where they are not known."""
        return FREE

    def _record(self, completion: Completion) -> dict[str, Any]:
        """Return the journal's record of a completion, in JSON types."""
        return completion.to_dict()

    def _restore(self, request: Request, reply: Mapping[str, Any]) -> Completion:
        """Return the completion from its record in the journal."""
        return Completion.from_dict(reply)

    def with_defaults(self, request: Request) -> Request:
        """Return the request with this LM's options where it leaves them open."""
        return request.with_defaults(self.options)

    def reach(self, request: Request, key: str) -> Awaitable[Completion]:
        """Send the request to the model from any thread or loop, without budget, booking or usage."""
        if self.in_place or not aio.is_driven():
            return self._send(request, key)
        return aio.on_program(self._send, request, key)

    async def _send(self, request: Request, key: str) -> Completion:
        """Send the request to the model. `key` is its journal key, empty outside a run."""
        raise NotImplementedError(f"{type(self).__name__} does not define _send()")


def _thoughts_apart(completion: Completion, request: Request) -> Completion:
    """The reply, and the other samples in it, without thoughts in the text."""
    sent = "\n".join([message.text for message in request.messages])
    begins = request.prefix.begins
    more = tuple([without_thinking(other, prompt=sent, begins=begins) for other in completion.more])
    apart = without_thinking(completion, prompt=sent, begins=begins)
    return replace(apart, more=more) if more else apart
