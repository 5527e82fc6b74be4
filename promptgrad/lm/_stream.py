"""The pieces of a reply while it is being written: events, and the listener of a request, which passes them on."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from promptgrad._patterns import late_pattern
from promptgrad.aio import Signal
from promptgrad.lm._completion import Completion
from promptgrad.lm._parts import ReasoningPart, TextPart, ToolCall
from promptgrad.lm._thinking import ThinkingFeed


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of the reply."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the model's reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of a tool call.

    Attributes:
        index: Index of the call in the reply.
        id: The call's id in its first piece; empty afterwards.
        name: The tool's name in the first piece; empty afterwards.
        arguments: More of the JSON text of its arguments.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


Delta: TypeAlias = TextDelta | ReasoningDelta | ToolCallDelta
"""A piece of a reply."""

Event: TypeAlias = Delta | Completion
"""The events of `LM.stream`: the pieces of the reply as they come, and at the end the reply itself."""


MOST = 256
"""Pieces that may wait for the reader of a stream."""


class _Waiting:
    """Pieces that wait for a reader. Where it is behind, a text is joined to the one before it.

    A reply does not wait for its reader in the middle: it holds a connection and a place among those in flight.
    """

    __slots__ = ("_deltas", "_lock")

    def __init__(self) -> None:
        self._deltas: deque[tuple[Delta, list[str]]] = deque()  # each with the texts that were joined to it
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._deltas)

    def put(self, delta: Delta) -> None:
        """Add a piece."""
        with self._lock:
            if len(self._deltas) >= MOST and _continues(self._deltas[-1][0], delta):
                self._deltas[-1][1].append(delta.arguments if isinstance(delta, ToolCallDelta) else delta.text)
            else:
                self._deltas.append((delta, []))

    def pop(self) -> Delta:
        """The next piece, with all that was joined to it."""
        with self._lock:
            delta, more = self._deltas.popleft()
        if not more:
            return delta
        if isinstance(delta, ToolCallDelta):
            return replace(delta, arguments="".join((delta.arguments, *more)))
        return replace(delta, text="".join((delta.text, *more)))


def _continues(last: Delta, delta: Delta) -> bool:
    if isinstance(delta, ToolCallDelta):
        return isinstance(last, ToolCallDelta) and last.index == delta.index and not (delta.id or delta.name)
    return type(last) is type(delta)


class Listener:
    """Passes the pieces of a reply from the transport, in any thread, to the reader of the stream.

    A request carries it through the layers to the transport. A transport may ignore it: the pieces are then made from
    the complete reply. Thoughts at the beginning of a text (`<think>...`) become pieces of reasoning here.

    Args:
        hear: Function that gets each piece at once, in the thread of the transport; without one, `until` yields them,
            of which at most 256 wait.
        begins: How a reply begins that is as asked for, as of `Prefix`.

    Attributes:
        started: True once a piece has come, so that the request can no longer be sent again unnoticed.
    """

    def __init__(self, hear: Callable[[Delta], object] | None = None, begins: tuple[str, ...] = ()) -> None:
        self.started = False
        self._waiting = _Waiting()
        self._feed = ThinkingFeed(begins)
        self._is_past = False  # the answer has begun
        self._news: Signal[None] = Signal()
        self._hear: Callable[[Delta], object] = self._waiting.put if hear is None else hear
        self._is_read = hear is None

    def put(self, delta: Delta) -> None:
        """Add a piece."""
        self.started = True
        if not self._is_past and isinstance(delta, TextDelta):
            for told in self._feed.feed(delta.text):
                self._hear(_delta(told))
            self._is_past = self._feed.is_past
        else:
            self._hear(delta)
        if self._is_read:
            self.wake()

    def wake(self) -> None:
        """Wake the reader, so that it checks for pieces."""
        news, self._news = self._news, Signal()
        news.set(None)

    async def until(self, reply: Signal[Completion]) -> AsyncIterator[Delta]:
        """Yield the pieces as they come, until the reply is complete."""
        reply.subscribe(self.wake)
        while True:
            news, done = self._news, reply.done
            while self._waiting:
                yield self._waiting.pop()
            if done:
                for delta in map(_delta, self._feed.rest()):
                    yield delta
                return
            await news

    def finish(self, completion: Completion) -> None:
        """Give the function what was held back; all the pieces of a reply of which none has come."""
        for delta in map(_delta, self._feed.rest()) if self.started else pieces(completion):
            self._hear(delta)


def _delta(told: tuple[bool, str]) -> Delta:
    is_thought, text = told
    return ReasoningDelta(text) if is_thought else TextDelta(text)


def pieces(completion: Completion) -> Iterator[Delta]:
    """Split a complete reply as if it had come in pieces: a word at a time, a tool call at once."""
    calls = 0
    for part in completion.parts:
        if isinstance(part, TextPart):
            yield from map(TextDelta, _WORD.findall(part.text))
        elif isinstance(part, ReasoningPart):
            yield from map(ReasoningDelta, _WORD.findall(part.text))
        elif isinstance(part, ToolCall):
            yield ToolCallDelta(calls, part.id, part.name, part.arguments)
            calls += 1


_WORD = late_pattern(r"\s*\S+\s*|\s+")


class TextSink(Protocol):
    """Hears the texts of a reply in a listener's place, and their end."""

    def put(self, delta: TextDelta) -> None:
        """Hear more of it."""

    def close(self) -> None:
        """Hear that it has ended."""


class TokenFeed:
    """Passes the text of a reply to a listener as its tokens are chosen; text that may become a stop is held back.

    Args:
        listener: The listener.
        decode: Function that converts token ids to text.
        stops: Texts at which the reply ends.
        is_over: Function of the ids so far, true once they contain a stop; None without stops.
    """

    def __init__(
        self,
        listener: Listener | TextSink,
        decode: Callable[[Sequence[int]], str],
        stops: Sequence[str],
        is_over: Callable[[list[int]], bool] | None,
    ) -> None:
        self._listener = listener
        self._decode = decode
        self._is_over = is_over
        self._held = max(map(len, stops), default=1) - 1
        self._text = ""
        self._told = 0
        self._first = self._next = (
            0  # tokens before `_next` are in the text; those from `_first` on are decoded with it
        )

    def __call__(self, ids: list[int]) -> bool:
        """Process the ids so far; true if they contain a stop."""
        if self._is_over is not None and self._is_over(ids):
            return True
        known, grown = self._decode(ids[self._first : self._next]), self._decode(ids[self._first :])
        if len(grown) > len(known) and not grown.endswith("\ufffd"):  # else a character is not complete yet
            self._text += grown[len(known) :]
            self._first, self._next = self._next, len(ids)
            self._pass_on(len(self._text) - self._held)
        return False

    def finish(self, text: str) -> None:
        """Pass on the text that was held back, now that the complete text is known."""
        if text.startswith(self._text[: self._told]):
            self._text = text
            self._pass_on(len(text))
        if not isinstance(self._listener, Listener):
            self._listener.close()

    def _pass_on(self, end: int) -> None:
        if end > self._told:
            self._listener.put(TextDelta(self._text[self._told : end]))
            self._told = end
