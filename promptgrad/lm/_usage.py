"""`track_usage`: the cost of the calls inside a block."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from contextvars import Token

from promptgrad.lm._channel import Channel, channel
from promptgrad.lm._completion import NO_USAGE, Usage


class UsageTracker:
    """A running total of usage, filled by every LM call below the block that opened it, in any thread or task."""

    __slots__ = ("_lock", "_token", "_total")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = NO_USAGE

    def add(self, usage: Usage) -> None:
        """Add the usage of one call."""
        with self._lock:
            self._total = usage if self._total is NO_USAGE else self._total + usage

    @property
    def total(self) -> Usage:
        """The sum so far."""
        return self._total

    @property
    def calls(self) -> int:
        """Requests that an LM answered, without those from a cache."""
        return self._total.calls

    @property
    def cached(self) -> int:
        """Requests that a cache answered."""
        return self._total.cached

    @property
    def input_tokens(self) -> int:
        """Tokens sent."""
        return self._total.input_tokens

    @property
    def output_tokens(self) -> int:
        """Tokens received."""
        return self._total.output_tokens

    @property
    def tokens(self) -> int:
        """Tokens sent and received."""
        return self._total.tokens

    @property
    def usd(self) -> float | None:
        """Money in US dollars; None where some price is unknown."""
        return self._total.usd

    @property
    def seconds(self) -> float:
        """Time spent waiting for LMs, summed over calls."""
        return self._total.seconds

    def __repr__(self) -> str:
        return f"UsageTracker({self._total!r})"

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
