"""The channel: a chain of answerers between the transports of a context and their models.

```
Journalled   inside a run: answers from its journal; else the call is paid from its budget and its reply journalled
Recorded     inside `record`: replies and errors are written to a cassette
Replayed     inside `replay`: answers from a cassette
DIRECT       the model itself
```

Each link knows only the next one. `record` and `replay` put theirs in front for the duration of their block, so they
nest; the link of an active run comes before them all. A transport passes its `ModelCall` to the first link without
knowing its kind, and so does a layer: a cache gets its memory from the chain and books its hits there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from promptgrad import run
from promptgrad.errors import JournalError, LMError, PromptgradError, ReplayError
from promptgrad.lm._completion import Completion, Usage
from promptgrad.lm._parts import bound
from promptgrad.lm._prices import cost
from promptgrad.lm._request import Request

if TYPE_CHECKING:
    from promptgrad.lm._base import LM
    from promptgrad.lm._cache import MemoryStore
    from promptgrad.lm._cassette import Recorder
    from promptgrad.lm._replay import Player
    from promptgrad.lm._transport import Transport
    from promptgrad.lm._usage import UsageTracker

REPLY_TOKENS = 256
"""Estimated length of a reply whose request sets no `max_tokens`, for the budget's reservation."""

LONG_REPLY = 4096
"""Length that such a reply may have beside others in flight as long as none is known; then twice the longest."""


def estimate_tokens(request: Request, model: str = "") -> int:
    """Estimate the number of tokens of a request, for the budget's reservation: no fewer than there are.

    Args:
        request: The request.
        model: Name of the model, by whose provider's rule images count.
    """
    prefix, tail = request.prefix, request.tail
    size = prefix.weight if prefix.is_text else sum([bound(message.content, model) for message in prefix.messages])
    for message in tail:
        size += bound(message.content, model)
    for _, text in request.extra:  # tools count as well
        size += bound(text)
    if request.response_format is not None:
        size += bound(request.response_format)
    return size + 8 * (len(prefix.messages) + len(tail))


class ModelCall:
    """One call of a transport, on its way through the chain.

    Attributes:
        lm: The transport: it sends the request, and converts its reply to a mapping and back.
        request: The request as its caller made it; keys are computed from it.
        asked: The request with the transport's default options, as it is sent.
        key: The call's key in the journal, which is sent with the request; empty outside of a run.
    """

    __slots__ = ("_digest", "asked", "key", "lm", "request")

    def __init__(self, lm: Transport, request: Request, asked: Request) -> None:
        self.lm = lm
        self.request = request
        self.asked = asked
        self.key = ""
        self._digest = ""

    @property
    def digest(self) -> str:
        """The digest of the request and of the LM that it is sent to."""
        if not self._digest:
            self._digest = self.request.digest(self.lm.identity())
        return self._digest


class Answerer(Protocol):
    """A link of the chain."""

    def answer(self, call: ModelCall) -> Awaitable[Completion]:
        """Answer a call, here or by the next link."""
        ...

    async def book(self, lm: LM, request: Request, key: str, reply: Callable[[], Mapping[str, Any]]) -> Usage | None:
        """Register a reply that is used without a call: one from a cache, or from the journal of a resumed run.

        `key` is the digest of the request and of `lm`, and `reply` returns the reply as a mapping to be written.
        Returns what the reply cost when the active run paid for it, None if it did not.
        """
        ...

    def memory(self, own: MemoryStore) -> MemoryStore:
        """The memory that a cache uses here: its own, or another one in its place."""
        ...


class _Direct:
    """The end of the chain: the model answers."""

    def answer(self, call: ModelCall) -> Awaitable[Completion]:
        return call.lm.reach(call.asked, call.key)

    async def book(self, lm: LM, request: Request, key: str, reply: Callable[[], Mapping[str, Any]]) -> Usage | None:
        return None

    def memory(self, own: MemoryStore) -> MemoryStore:
        return own


DIRECT: Answerer = _Direct()


class _Link:
    """A link that passes everything on; the other links override what they change."""

    __slots__ = ("next",)

    def __init__(self, after: Answerer) -> None:
        self.next = after

    def answer(self, call: ModelCall) -> Awaitable[Completion]:
        return self.next.answer(call)

    async def book(self, lm: LM, request: Request, key: str, reply: Callable[[], Mapping[str, Any]]) -> Usage | None:
        return await self.next.book(lm, request, key, reply)

    def memory(self, own: MemoryStore) -> MemoryStore:
        return self.next.memory(own)


class Journalled(_Link):
    """Answers from the journal of a run; otherwise the call is paid from its budget and its reply journalled."""

    __slots__ = ("session",)

    def __init__(self, session: run.ActiveRun, after: Answerer) -> None:
        self.next = after
        self.session = session

    async def answer(self, call: ModelCall) -> Completion:
        lm, asked = call.lm, call.asked
        call.key = call.digest
        fresh: list[Completion] = []

        async def send() -> Mapping[str, Any]:
            fresh.append(await self.next.answer(call))
            return lm._record(fresh[0])

        session, name, samples = self.session, lm.name, asked.samples
        read, most = estimate_tokens(asked, name), None
        if asked.max_tokens is not None:
            written = asked.max_tokens * samples
        else:
            written = REPLY_TOKENS * samples
            longer = max(written, samples * (2 * session.longest(name) or LONG_REPLY))
            most = read + longer, cost(lm.prices, read, longer)
        usd = cost(lm.prices, read, written)
        reply, _ = await session.call(call.key, send, tokens=read + written, usd=usd, most=most)
        if fresh:
            session.longest(name, fresh[0].usage.output_tokens // len(fresh[0].samples))
            return fresh[0]
        await self.next.book(lm, call.request, call.key, lambda: reply)
        return restored(call, reply, JournalError, "the journal")

    async def book(self, lm: LM, request: Request, key: str, reply: Callable[[], Mapping[str, Any]]) -> Usage | None:
        if not self.session.touch(key):

            async def send() -> Mapping[str, Any]:
                return reply()

            await self.session.call(key, send, usd=0.0)
        if self.next is not DIRECT:
            await self.next.book(lm, request, key, reply)
        paid = (self.session.journal.reply(key) or {}).get("usage")
        return Usage.from_dict(paid) if paid else None


class Recorded(_Link):
    """Writes replies and errors to a cassette."""

    __slots__ = ("cassette",)

    def __init__(self, cassette: Recorder, after: Answerer) -> None:
        super().__init__(after)
        self.cassette = cassette

    async def answer(self, call: ModelCall) -> Completion:
        turn = self.cassette.next_turn(call.digest)
        try:
            completion = await self.next.answer(call)
        except LMError as error:
            self.cassette.write_error(call.lm, call.request, call.digest, error, turn)
            raise
        self.cassette.write_reply(call.lm, call.request, call.digest, call.lm._record(completion), turn)
        return completion

    async def book(self, lm: LM, request: Request, key: str, reply: Callable[[], Mapping[str, Any]]) -> Usage | None:
        if not self.cassette.has_reply(key):
            self.cassette.write_reply(lm, request, key, reply())
        return await self.next.book(lm, request, key, reply)


class Replayed(_Link):
    """Answers from a cassette; an unknown request is refused or, if not strict, goes to the next link."""

    __slots__ = ("_memories", "cassette")

    def __init__(self, cassette: Player, after: Answerer) -> None:
        super().__init__(after)
        self.cassette = cassette
        self._memories: dict[MemoryStore, MemoryStore] = {}

    async def answer(self, call: ModelCall) -> Completion:
        reply = self.cassette.play(call)
        if reply is None:
            return await self.next.answer(call)
        return restored(call, reply, ReplayError, str(self.cassette.path))

    async def book(self, lm: LM, request: Request, key: str, reply: Callable[[], Mapping[str, Any]]) -> Usage | None:
        return None  # the reply came from the cassette before and is in the memory since

    def memory(self, own: MemoryStore) -> MemoryStore:
        """A new, empty memory, so that replies in this process's cache change nothing."""
        found = self._memories.get(own)
        return found if found is not None else self._memories.setdefault(own, own.empty())


def restored(call: ModelCall, reply: Mapping[str, Any], error: type[PromptgradError], where: str) -> Completion:
    """The completion of a reply on record.

    Raises:
        PromptgradError: It is not one; an error of the given type.
    """
    try:
        return call.lm._restore(call.asked, reply)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as cause:
        raise error(f"the reply to call {call.digest} in {where} is damaged: {cause}") from cause


Channel = tuple[Answerer, "tuple[UsageTracker, ...]"]
"""The surroundings of the calls of a context: the first link that `record` and `replay` made, and the usage trackers,
the outermost first."""

channel: ContextVar[Channel] = ContextVar("promptgrad.channel", default=(DIRECT, ()))


def answerer() -> Channel:
    """The first link of the chain here and now, an active run's in front, and what adds up usage."""
    session = run.current()
    if session is None:
        return channel.get()
    first, trackers = channel.get()
    return Journalled(session, first), trackers


@contextmanager
def in_front(link: Callable[[Answerer], Answerer]) -> Iterator[None]:
    """Within the block, put a link in front of the chain; `link` makes it from the one that comes after it."""
    first, trackers = channel.get()
    token = channel.set((link(first), trackers))
    try:
        yield
    finally:
        channel.reset(token)
