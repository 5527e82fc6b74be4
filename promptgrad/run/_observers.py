"""The observers of a journal, each of which gets every event, in order, outside of the journal's lock."""

import contextvars
import inspect
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from promptgrad import aio
from promptgrad.run._event import parse

Observer = Callable[[Mapping[str, Any]], object]
"""A function of one event: a read-only mapping with its `kind`, its fields, and `replayed`."""


class Subscription:
    """An observer of a journal; calling it ends the observation.

    Attributes:
        observer: The function.
    """

    __slots__ = ("_context", "_failures", "_name", "_observers", "observer")

    def __init__(self, observers: "Observers", observer: Observer, name: str) -> None:
        self.observer = observer
        self._observers = observers
        self._name = name
        self._context = contextvars.copy_context()
        self._failures: dict[
            type[BaseException], list[Any]
        ] = {}  # the first report of each type, and how many there were

    def __call__(self) -> None:
        """End the observation; later events are not handed over. A second call does nothing."""
        self._observers.remove(self)

    @property
    def failures(self) -> tuple[str, ...]:
        """The observer's errors: a line for each type, with the first message and the number of times it came."""
        return tuple(text if count == 1 else f"{text} ({count} times)" for text, count in self._failures.values())

    @contextmanager
    def reporting(self, where: str) -> Iterator[None]:
        """Within the block, count what the observer raises, and warn of the first error of each type.

        A `CancelledError` or `GeneratorExit` of the observer's own is an error like any other. Only Ctrl-C, an exit of
        the process and a cancellation of the run itself leave the block.
        """
        try:
            yield
        except BaseException as error:
            if not (aio.is_failure(error) or isinstance(error, GeneratorExit)):
                raise
            self._report(error, where)

    def _report(self, error: BaseException, where: str) -> None:
        known = self._failures.get(type(error))
        if known is not None:
            known[1] += 1
            return
        text = f"{self._name} raised {type(error).__name__} on {where}: {error}"
        self._failures[type(error)] = [text, 1]
        try:
            warnings.warn(f"{text}. The run goes on", stacklevel=2)
        except Warning:  # a filter turns warnings into errors, and an observer does not end a run: see `failures`
            return

    def hand(self, line: bytes, *, replayed: bool) -> None:
        """Call the observer with its own copy of one event; what it raises is reported, and ends nothing."""
        event = {**parse(line), "replayed": replayed}
        with self.reporting(f"the event {event['kind']!r}"):
            result = self._context.run(self.observer, MappingProxyType(event))
            if inspect.isawaitable(result):
                getattr(result, "close", lambda: None)()
                raise TypeError("it returned an awaitable, which is never awaited: an observer is a plain function")

    def __repr__(self) -> str:
        return f"<Subscription of {self._name}: {len(self._failures)} types of error>"


class Observers:
    """The observers of one journal. Events are queued under the journal's lock and handed over outside of it.

    One thread at a time hands over: the one whose event comes while no other thread does. Events that other threads
    write meanwhile are left to it. So each observer sees the events in the order of the file, one after the other, and
    a slow one delays only that thread.

    Attributes:
        subscriptions: Who observes. Where nobody does, nothing is queued and nothing handed over.
    """

    def __init__(self) -> None:
        self.subscriptions: tuple[Subscription, ...] = ()
        self._queue: deque[tuple[bytes, bool]] = deque()
        self._lock = threading.Condition()
        self._thread: int | None = None  # the one that hands over

    def add(self, observer: Observer, name: str = "") -> Subscription:
        """Hand all later events to this observer.

        Raises:
            TypeError: The observer cannot be called, or is a coroutine function.
        """
        if not callable(observer):
            raise TypeError(f"an observer is a function of one event, not {type(observer).__name__}")
        call = getattr(observer, "__call__", None)  # noqa: B004 - the method of an instance
        if inspect.iscoroutinefunction(observer) or inspect.iscoroutinefunction(call):
            raise TypeError(
                f"an observer is a plain function, and {_name_of(observer)} is a coroutine function, which would "
                "never be awaited. Write a plain one; it may call loop.call_soon_threadsafe of your event loop"
            )
        made = Subscription(self, observer, name or _name_of(observer))
        with self._lock:
            self.subscriptions += (made,)
        return made

    def remove(self, subscription: Subscription) -> None:
        """Hand this observer no more events."""
        with self._lock:
            self.subscriptions = tuple(each for each in self.subscriptions if each is not subscription)

    def is_handing_over(self) -> bool:
        """Whether the calling code runs inside an observer."""
        return self._thread == threading.get_ident()

    def put(self, line: bytes, *, replayed: bool = False) -> None:
        """Queue an event."""
        self._queue.append((line, replayed))

    def hand_over(self, *, wait: bool = False) -> None:
        """Hand over the queued events, unless another thread does so already; with `wait`, wait until it has ended."""
        with self._lock:
            while wait and self._thread not in (None, threading.get_ident()):
                self._lock.wait()
            if self._thread is not None or not self._queue:
                return
            self._thread = threading.get_ident()
        try:
            while self._hand_next():
                pass
        except BaseException:  # Ctrl-C in an observer: the queued events are handed over with the next one
            self._end_turn()
            raise

    def _hand_next(self) -> bool:
        """Hand over one event; at the end of the queue, end the turn and return False."""
        with self._lock:
            if not self._queue:
                self._end_turn()
                return False
            line, replayed = self._queue.popleft()
        for subscription in self.subscriptions:
            subscription.hand(line, replayed=replayed)
        return True

    def _end_turn(self) -> None:
        with self._lock:
            self._thread = None
            self._lock.notify_all()

    def after_fork(self) -> None:
        """Release a lock and a turn that a thread of the parent may have held."""
        self._lock = threading.Condition()
        self._thread = None


def _name_of(observer: object) -> str:
    return getattr(observer, "__qualname__", None) or type(observer).__qualname__
