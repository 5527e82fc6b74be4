"""What comes while a reply is being written: events, and the listener that a request carries to whoever hears them."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from promptgrad.aio import Signal
from promptgrad.lm._completion import Completion
from promptgrad.lm._parts import ReasoningPart, TextPart, ToolCall


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of the reply."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of what the model thinks."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of a call of a tool.

    Attributes:
        index: Which of the reply's calls it belongs to.
        id: The call's id, where it begins; empty afterwards.
        name: The tool's name, where the call begins; empty afterwards.
        arguments: More of the JSON text of its arguments.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


Delta: TypeAlias = TextDelta | ReasoningDelta | ToolCallDelta
"""A piece of a reply."""

Event: TypeAlias = Delta | Completion
"""What `LM.stream` gives: the pieces of the reply as they come, and at the end the reply itself."""


class Listener:
    """Takes the pieces of a reply from whoever receives them, in any thread, and gives them to the one who reads.

    A request carries it through the layers to the transport. A transport that knows nothing of it is none the worse:
    the pieces are then made of the whole reply.

    Attributes:
        started: Whether a piece has come, so that the request can no longer be sent again unnoticed.
    """

    def __init__(self) -> None:
        self.started = False
        self._deltas: deque[Delta] = deque()
        self._news: Signal[None] = Signal()

    def put(self, delta: Delta) -> None:
        """Hand over a piece."""
        self.started = True
        self._deltas.append(delta)
        self.wake()

    def wake(self) -> None:
        """Have the reader look again."""
        news, self._news = self._news, Signal()
        news.set(None)

    async def until(self, reply: Signal[Completion]) -> AsyncIterator[Delta]:
        """Give the pieces as they come, until the reply is there."""
        reply.subscribe(self.wake)
        while True:
            news, done = self._news, reply.done
            while self._deltas:
                yield self._deltas.popleft()
            if done:
                return
            await news


def pieces(completion: Completion) -> Iterator[Delta]:
    """Take a whole reply apart, as if it had come piece by piece: a word at a time, a call of a tool at once."""
    calls = 0
    for part in completion.parts:
        if isinstance(part, TextPart):
            yield from map(TextDelta, _WORD.findall(part.text))
        elif isinstance(part, ReasoningPart):
            yield from map(ReasoningDelta, _WORD.findall(part.text))
        elif isinstance(part, ToolCall):
            yield ToolCallDelta(calls, part.id, part.name, part.arguments)
            calls += 1


_WORD = re.compile(r"\s*\S+\s*|\s+")


class TokenTeller:
    """Tells a listener the text of a reply as its tokens are chosen; a text that may become a stop is held back.

    Args:
        listener: Who is told.
        decode: Makes text of token ids.
        stops: Texts at which the reply ends.
        is_over: Whether a stop has come, given the ids so far; None if there is none.
    """

    def __init__(
        self,
        listener: Listener,
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
        """Take in the ids so far, and say whether a stop has come."""
        if self._is_over is not None and self._is_over(ids):
            return True
        known, grown = self._decode(ids[self._first : self._next]), self._decode(ids[self._first :])
        if len(grown) > len(known) and not grown.endswith("\ufffd"):  # else a character is not complete yet
            self._text += grown[len(known) :]
            self._first, self._next = self._next, len(ids)
            self._tell(len(self._text) - self._held)
        return False

    def finish(self, text: str) -> None:
        """Tell what was held back, now that the whole text is known."""
        if text.startswith(self._text[: self._told]):
            self._text = text
            self._tell(len(text))

    def _tell(self, end: int) -> None:
        if end > self._told:
            self._listener.put(TextDelta(self._text[self._told : end]))
            self._told = end
