"""The way of events from a program, in whatever threads it runs, to the reader of its stream: bounded."""

import threading
from collections import deque
from dataclasses import replace
from typing import Any

from promptgrad.aio import Signal
from promptgrad.nn._events import FieldDelta, PartialValue, StreamEvent, ThoughtDelta, ToolPiece

MOST = 256
"""Events that may wait for the reader."""

_GROWS: dict[type[StreamEvent], str] = {FieldDelta: "delta", ThoughtDelta: "delta", ToolPiece: "arguments"}


class _Grown:
    """An event whose text has grown while it waited."""

    __slots__ = ("event", "texts")

    def __init__(self, event: StreamEvent) -> None:
        self.event = event
        self.texts = [getattr(event, _GROWS[type(event)])]


class Mailbox:
    """Events on their way to a reader, at most 256 and a few for each call that runs.

    Where the reader is behind, texts of one field are joined and of partial values the last one is kept: no call waits
    for the reader in the middle of a reply, where it holds a connection and a place among those in flight. A program
    that is ahead waits before its next call (`room`).
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._lock = threading.RLock()  # a stream may be dropped by a garbage collection inside of it
        self._events: deque[StreamEvent | _Grown] = deque()
        self._closed = False
        self._reader: Signal[None] | None = None
        self._writers: list[Signal[None]] = []

    def __len__(self) -> int:
        return len(self._events)

    @property
    def is_awaited(self) -> bool:
        """Whether a reader waits for the next event."""
        return self._reader is not None

    def put(self, event: StreamEvent) -> None:
        """Add an event. Once the mailbox is closed it is dropped."""
        with self._lock:
            if self._closed:
                return
            if len(self._events) < self.most or not self._joined(event):
                self._events.append(event)
            reader, self._reader = self._reader, None
        if reader is not None:
            reader.set(None)

    def _joined(self, event: StreamEvent) -> bool:
        """Whether the event could become a part of the last one of its call."""
        kind = type(event)
        if kind not in _GROWS and kind is not PartialValue:
            return False
        for place in range(len(self._events) - 1, -1, -1):
            held = self._events[place]
            last = held.event if isinstance(held, _Grown) else held
            if last.call != event.call:
                continue
            if type(last) is not kind or getattr(last, "field", "") != getattr(event, "field", ""):
                return False
            if kind is PartialValue:
                self._events[place] = event
                return True
            if isinstance(event, ToolPiece) and (event.id or event.index != getattr(last, "index", -1)):
                return False
            if not isinstance(held, _Grown):
                self._events[place] = held = _Grown(last)
            held.texts.append(getattr(event, _GROWS[kind]))
            return True
        return False

    async def room(self) -> None:
        """Wait until fewer events wait than may."""
        while True:
            with self._lock:
                if self._closed or len(self._events) < self.most:
                    return
                turn: Signal[None] = Signal()
                self._writers.append(turn)
            await turn

    def pop(self) -> StreamEvent | None:
        """The next event, if it is there."""
        writers: list[Signal[None]] = []
        with self._lock:
            if not self._events:
                return None
            held = self._events.popleft()
            if self._writers and len(self._events) <= self.most // 2:
                writers, self._writers = self._writers, writers
        for writer in writers:
            writer.set(None)
        if not isinstance(held, _Grown):
            return held
        changes: dict[str, Any] = {_GROWS[type(held.event)]: "".join(held.texts)}
        return replace(held.event, **changes)

    async def take(self) -> StreamEvent | None:
        """The next event, when it comes; None once the mailbox is closed and empty."""
        while (event := self.pop()) is None:
            with self._lock:
                if self._events:
                    continue
                if self._closed:
                    return None
                news: Signal[None] = Signal()
                self._reader = news
            await news
        return event

    def close(self) -> None:
        """Let no more events in; the reader gets those that are there."""
        with self._lock:
            self._closed = True
            reader, self._reader = self._reader, None
            writers, self._writers = self._writers, []
        if reader is not None:
            reader.set(None)
        for writer in writers:
            writer.set(None)
