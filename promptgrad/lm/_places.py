"""`Places`: how many requests an endpoint takes at once, found out from what it turns away."""

from __future__ import annotations

import threading
from collections import deque
from weakref import WeakValueDictionary

from promptgrad.aio import Semaphore, Signal

UNKNOWN = 1 << 30
"""The cap of an endpoint that has turned nothing away yet."""

WINDOW = 32
"""Answers of which more than half must be refusals before a number of requests that the endpoint took is halved."""

PACE = 2.0
"""Rounds of answers before the cap grows by one, after it fell."""


class Places:
    """The places of an endpoint, for all who ask there: a cap that falls when it turns requests away and grows again.

    A request is turned away with more in flight than were ever seen to be served: the cap falls to those that remain,
    or were served before. The endpoint turns more than half of them away although it served as many before: the cap is
    halved. It grows by one after some rounds of answers while it is in use, slower after each time that this was too
    much, and faster as long as it is not. Refusals that come at random, whatever the number, leave most of it.

    Attributes:
        lock: What guards it, and the semaphores of those who ask there: a call takes a place of each at once.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._waiting: deque[Signal[int]] = deque()
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._served = 0  # most that were seen to be served at once
        self._credit = 0
        self._pace = self._next_pace = PACE
        self._fallen = False
        self._tries = self._refused = 0  # with more in flight than were served yet
        self._together = self._turned = 0  # in flight when the last one was sent; turned away since
        self.cap = UNKNOWN
        self.in_flight = 0
        self.turned_away = 0

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a place."""
        return len(self._waiting)

    def take(self, own: Semaphore) -> int:
        """Take a place here and one of the caller's own, if both are free, without a wait.

        Returns how many are taken here then, or 0 if one of both is not free.
        """
        with self.lock:
            if not own.free or own.waiting or self._waiting or self.in_flight >= self.cap:
                return 0
            own.free -= 1
            return self._take()

    async def enter(self, own: Semaphore) -> int:
        """Wait for a place of the caller's own and then for one here; return how many are taken here then."""
        await own.acquire()
        try:
            return await self.acquire()
        except BaseException:
            own.release()
            raise

    async def acquire(self) -> int:
        """Wait for a place, first come first served; return how many are taken then, this one included."""
        with self.lock:
            if self.in_flight < self.cap and not self._waiting:
                return self._take()
            turn: Signal[int] = Signal()
            self._waiting.append(turn)
        try:
            return await turn
        except BaseException:
            with self.lock:
                granted = turn not in self._waiting
                if not granted:
                    self._waiting.remove(turn)
            if granted:
                self.release(0)
            raise

    def release(
        self,
        level: int,
        served: bool | None = None,  # noqa: FBT001 - of one place
        own: Semaphore | None = None,
    ) -> None:
        """Give a place back.

        Args:
            level: What `acquire` returned.
            served: Whether the endpoint worked on the request (True), if only to fail, or turned it away (False); None
                tells nothing.
            own: Where the caller gives a place of its own back as well.
        """
        turn: Signal[None] | None = None
        with self.lock:
            in_flight = self.in_flight
            if served:
                self._recent.append(True)
                if self._served < level and self._served < in_flight:
                    self._served, self._tries, self._refused = min(level, in_flight), 0, 0
                if in_flight >= self.cap:  # with fewer in flight nothing is learnt
                    self._grow()
            self.in_flight = in_flight - 1
            if own is not None:
                if own.waiting:
                    turn = own.waiting.popleft()
                else:
                    own.free += 1
            if served is False:
                self.turned_away += 1
                self._turned += 1
                self._fall(level)
            if not self._waiting and turn is None:
                return
            turns: list[tuple[Signal[int], int]] = []
            while self._waiting and self.in_flight < self.cap:
                turns.append((self._waiting.popleft(), self._take()))
        for next_turn, taken in turns:
            next_turn.set(taken)
        if turn is not None:
            turn.set(None)

    def _take(self) -> int:
        self.in_flight += 1
        self._together, self._turned = self.in_flight, 0
        if self.in_flight > self._served:
            self._tries += 1
        return self.in_flight

    def _grow(self) -> None:
        self._credit += 1
        if self._credit >= self._pace * self.cap:
            self.cap += 1
            self._credit = self._tries = self._refused = 0
            self._fallen = False
            self._pace = max(self._pace / 2, 1 / self.cap)

    def _fall(self, level: int) -> None:
        if level > self._served:
            self._refused += 1
            at_random = 20 * (len(self._recent) - sum(self._recent)) > len(self._recent)
            if at_random and (self._refused < 2 or 4 * self._refused < 3 * self._tries):
                return  # as likely by chance as for its number
            cap = max(1, self._together - self._turned, self._served)
            self._lower(cap)
            return
        self._recent.append(False)
        if len(self._recent) == WINDOW and 16 * sum(self._recent) <= 7 * WINDOW:
            cap = self._served = max(1, min(self.cap, self.in_flight + 1) // 2)
            self._recent.clear()
            self._lower(cap)

    def _lower(self, cap: int) -> None:
        if cap < self.cap:
            self.cap = cap
            self._credit = self._tries = self._refused = 0
            if not self._fallen:
                self._fallen = True
                self._pace = min(32.0, self._next_pace)
                self._next_pace = 2 * self._pace

    def reset(self) -> None:
        """Forget the requests in flight: after a fork they belong to the parent."""
        self.lock._at_fork_reinit()  # type: ignore[attr-defined]  # the same one, which the semaphores know
        self._waiting.clear()
        self.in_flight = 0


_of: WeakValueDictionary[str, Places] = WeakValueDictionary()
_lock = threading.Lock()


def places_of(endpoint: str) -> Places:
    """The places of an endpoint, the same object for all who ask there; a new one for an unknown endpoint."""
    with _lock:
        found = _of.get(endpoint) if endpoint else None
        if found is None:
            found = Places()
            if endpoint:
                _of[endpoint] = found
        return found
