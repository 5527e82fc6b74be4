"""`Minute`: a limit on what is sent in any minute."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable

from promptgrad import aio
from promptgrad.lm._deadline import sleep_within

SECONDS = 60.0


class Minute:
    """At most so many requests and tokens in any sixty seconds, first come first served.

    Args:
        requests: The most requests; None for no limit.
        tokens: The most tokens, sent and received; None for no limit. A request that is larger goes alone.
        clock: Function that returns seconds; tests pass their own.
        sleep: Function that waits; tests pass their own.
    """

    def __init__(
        self,
        requests: int | None,
        tokens: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = aio.sleep,
    ) -> None:
        for name, value in (("requests_per_minute", requests), ("tokens_per_minute", tokens)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} is an int of at least 1, or None for no limit, not {value!r}")
        self.requests = requests
        self.tokens = tokens
        self._clock = clock
        self._sleep = sleep
        self._sent: deque[list[float]] = deque()  # when, and how many tokens
        self._used = 0.0
        self._turn = aio.Semaphore(1)

    async def enter(self, tokens: int) -> list[float]:
        """Wait until a request of about so many tokens may be sent; returns its entry, for `settle`.

        Raises:
            BudgetExceeded: The seconds of the active run's budget would be over before.
        """
        await self._turn.acquire()
        try:
            while True:
                wait = self._wait(tokens)
                if wait <= 0:
                    break
                await sleep_within(wait, self._sleep)
            entry = [self._clock(), float(tokens)]
            self._sent.append(entry)
            self._used += tokens
            return entry
        finally:
            self._turn.release()

    def settle(self, entry: list[float], tokens: int) -> None:
        """Replace the estimate of a request by what it used."""
        if entry[1] >= 0:
            self._used += tokens - entry[1]
            entry[1] = float(tokens)

    def _wait(self, tokens: int) -> float:
        now, sent = self._clock(), self._sent
        while sent and sent[0][0] <= now - SECONDS:
            old = sent.popleft()
            self._used -= old[1]
            old[1] = -1.0  # no longer counted
        wait = 0.0
        if self.requests is not None and len(sent) >= self.requests:
            wait = sent[-self.requests][0] + SECONDS - now
        if self.tokens is not None and sent and self._used + tokens > self.tokens:
            over = self._used + tokens - self.tokens
            for when, used in sent:
                over -= used
                wait = max(wait, when + SECONDS - now)
                if over <= 0:
                    break
        return wait
