"""`Traffic`: the requests of one LM, counted where they leave."""

from __future__ import annotations

import threading

OTHERS = 8
"""Later requests that were answered while one was silent, after which that one is taken for lost."""


class Traffic:
    """Requests sent, answered and failed."""

    __slots__ = ("_lock", "answered", "failed", "in_flight")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.answered = self.failed = self.in_flight = 0

    def begin(self) -> int:
        """Count a request; returns the mark for `passed_by`."""
        with self._lock:
            mark = self.answered + self.in_flight
            self.in_flight += 1
        return mark

    def end(self, answered: bool) -> None:  # noqa: FBT001 - of one place
        """Count its end."""
        with self._lock:
            self.in_flight -= 1
            if answered:
                self.answered += 1
            else:
                self.failed += 1

    def passed_by(self, mark: int) -> int:
        """Number of later requests, at least, that were answered since the request with this mark was sent."""
        return max(0, self.answered - mark)

    def stats(self) -> dict[str, int]:
        """The counts."""
        with self._lock:
            sent = self.answered + self.failed + self.in_flight
            return {
                "requests": sent,
                "answered": self.answered,
                "failed": self.failed,
                "in_flight": self.in_flight,
            }
