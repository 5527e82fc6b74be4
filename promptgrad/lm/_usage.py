"""`track_usage`: the cost of the calls inside a block."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from contextvars import Token

from promptgrad.lm._channel import Channel, channel
from promptgrad.lm._completion import CACHE_HIT, NO_USAGE, Usage


class UsageTracker:
    """A running total of usage, filled by every LM call below the block that opened it, in any thread or task."""

    __slots__ = ("_hits", "_lock", "_spared", "_token", "_total")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = NO_USAGE
        self._spared = NO_USAGE
        self._hits = 0

    def add(self, usage: Usage) -> None:
        """Add the usage of one call."""
        with self._lock:
            self._total = usage if self._total is NO_USAGE else self._total + usage

    def hit(self, paid: Usage | None = None) -> None:
        """Add a reply from a cache.

        Args:
            paid: What it cost when the active run paid for it; None if that is not known.
        """
        with self._lock:
            self._hits += 1
            self._spared += CACHE_HIT if paid is None else paid

    @property
    def total(self) -> Usage:
        """The sum so far."""
        return self._total + Usage(cached=self._hits) if self._hits else self._total

    @property
    def uncached(self) -> Usage:
        """The sum as it would be without a cache: a reply that the active run paid for before counts with its cost.

        Replies from a cache whose cost is not known count as `cached`.
        """
        return self._total + self._spared if self._hits else self._total

    @property
    def calls(self) -> int:
        """Requests that an LM answered, without those from a cache."""
        return self.total.calls

    @property
    def cached(self) -> int:
        """Requests that a cache answered."""
        return self.total.cached

    @property
    def input_tokens(self) -> int:
        """Tokens sent."""
        return self.total.input_tokens

    @property
    def output_tokens(self) -> int:
        """Tokens received."""
        return self.total.output_tokens

    @property
    def tokens(self) -> int:
        """Tokens sent and received."""
        return self.total.tokens

    @property
    def usd(self) -> float | None:
        """Money in US dollars; None where some price is unknown."""
        return self.total.usd

    @property
    def seconds(self) -> float:
        """Time spent waiting for LMs, summed over calls."""
        return self.total.seconds

    def __repr__(self) -> str:
        return f"UsageTracker({self.total!r})"

    def __enter__(self) -> UsageTracker:  # not a generator of `track_usage`, because every row of a batch opens one
        first, trackers = channel.get()
        self._token: Token[Channel] = channel.set((first, (*trackers, self)))
        return self

    def __exit__(self, *_: object) -> None:
        channel.reset(self._token)


def track_usage() -> AbstractContextManager[UsageTracker]:
    """Add up the usage of every LM call made inside the block, in any thread or task that carries its context.

    Blocks nest: an inner call counts in all of them. A reply from a cache counts as `cached`, at no cost.

    Example:
        ```python
        with track_usage() as usage:
            model(question="...")
        print(usage.calls, usage.tokens, usage.usd)
        ```
    """
    return UsageTracker()
