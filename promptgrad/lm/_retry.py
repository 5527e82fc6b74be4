"""`Retry`: sends a request again after a transient failure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from promptgrad import aio
from promptgrad.errors import LMError, LMStatusError, OverloadedError, RateLimitError
from promptgrad.lm._base import LM
from promptgrad.lm._completion import Completion
from promptgrad.lm._deadline import sleep_within
from promptgrad.lm._layer import Layer
from promptgrad.lm._request import Request

T = TypeVar("T")

TURNING = 1.6
"""Growth of the own wait of a request that is turned away: nine of them, as LMs from names have, pass a minute."""

QUICK = 0.01
"""Seconds that the first wait has at least, however soon replies come."""

REFUSALS = (RateLimitError, OverloadedError)
"""What says that the endpoint did not look at the request."""


def is_transient(error: LMError) -> bool:
    """True if the same request may succeed a little later."""
    return error.transient and not error.replayed


def _always(error: LMError) -> bool:
    return True


class Retry(Layer):
    """Send a request again after a failure that may pass: 429, overload, 5xx, a lost connection, a spoilt body.

    The own wait begins at about the time that a reply takes, `base` seconds at most, and grows up to `ceiling`, so that
    the last one is what doubling `base` makes of it. After a failure (5xx, a lost connection, a spoilt body) it stays
    as short as at first if others were answered since the failure before, and at least a third of all requests were of
    late. It is compared with the wait that the server asks for, the larger counts, and a drawn share is added, so that
    many callers spread out. The draw comes from the request's digest. A server that asks for more than `patience`
    seconds is not waited for: its error is raised at once. In a run with a budget of seconds no wait passes its end.

    A failure that cannot pass is never sent again, nor is a request after a silence, which may still be running, nor
    a stream after its first piece.

    Cost: up to `attempts` requests for one call, and `turns` that are turned away.

    Args:
        lm: The LM to wrap.
        attempts: Most times that a request is sent.
        turns: Most times that it is sent while the server turns it away (429, overload), if these are not to count as
            attempts: the request did not fail then, it was not looked at. LMs made from names have twice `attempts`.
        base: Most seconds before the second attempt.
        ceiling: Longest own wait, in seconds.
        patience: Longest wait of the server's that is waited for, in seconds.
        sleep: Function that waits; tests pass their own.
        draw: Function that returns numbers from 0 to 1, in place of those from the digest.

    Raises:
        ValueError: `attempts` or `turns` is below one.
    """

    def __init__(
        self,
        lm: LM,
        attempts: int = 5,
        *,
        turns: int | None = None,
        base: float = 0.5,
        ceiling: float = 30.0,
        patience: float = 120.0,
        sleep: Callable[[float], Awaitable[object]] = aio.sleep,
        draw: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(lm)
        if attempts < 1 or (turns is not None and turns < 1):
            raise ValueError(f"attempts and turns must be at least 1, not {attempts} and {turns}")
        self.attempts = attempts
        self.turns = turns
        self.base = base
        self.ceiling = ceiling
        self.patience = patience
        self._sleep = sleep
        self._draw = draw
        self._retries = 0
        self._lately = Lately()

    async def complete(self, request: Request) -> Completion:
        """Answer one request, in several attempts; the last error is raised, with the number of attempts."""
        lately, seen = self._lately, self._lately.answers
        try:
            completion = await self.lm.complete(request)
        except LMError as error:
            failure = error
        else:
            lately.answered(completion.usage.seconds)
            return completion
        listener = request.listener
        fresh = _always if listener is None else (lambda error: not listener.started)
        completion = await self._again(failure, seen, partial(self.lm.complete, request), request.digest, fresh)
        lately.answered(completion.usage.seconds)
        return completion

    async def persist(
        self,
        send: Callable[[], Awaitable[T]],
        digest: Callable[[str], str],
        may: Callable[[LMError], bool] = _always,
    ) -> T:
        """Ask the endpoint something other than a completion, with the attempts and waits of `complete`.

        Args:
            send: Asks once.
            digest: Digest of what is asked, with a text before it; the draw of the waits comes from it.
            may: Whether what failed with this error may be asked again, if the error may pass at all.

        Raises:
            LMError: The last attempt's, with the number of attempts.
        """
        seen = self._lately.answers
        try:
            return await send()
        except LMError as error:
            failure = error
        return await self._again(failure, seen, send, digest, may)

    async def _again(
        self,
        error: LMError,
        seen: int,
        send: Callable[[], Awaitable[T]],
        digest: Callable[[str], str],
        may: Callable[[LMError], bool],
    ) -> T:
        """Send again what failed with this error, until it is answered or the attempts are over."""
        failed = turned = alone = 0  # `alone`: failures since others were answered
        lately = self._lately
        while True:
            if not is_transient(error) or not may(error):
                raise error
            refused = isinstance(error, REFUSALS)
            away = self.turns is not None and refused
            turned, failed = turned + away, failed + (not away)
            if not refused:
                lately.failed()
            alone = 1 if lately.answers > seen and lately.mostly_answered else alone + 1
            seen = lately.answers
            times, most = (turned, self.turns or 1) if away else (failed, self.attempts)
            own = self._own_wait(times if refused else min(times, alone), most, TURNING if away else 2.0)
            wait = self._wait(digest, own, times, error)
            if wait is None or times == most:
                error.args = (self._told(error, failed, turned if away else 0, asked_too_much=wait is None),)
                raise error
            await sleep_within(wait, self._sleep, error)
            self._retries += 1
            try:
                return await send()
            except LMError as next_error:
                error = next_error

    def _told(self, error: LMError, failed: int, turned: int, *, asked_too_much: bool) -> str:
        message = str(error.args[0]) if error.args else ""
        if asked_too_much:
            message = f"{message} (not waited for: patience is {self.patience:g} s)"
        if turned > 1:
            return f"{message} (turned away {turned} times)"
        return f"{message} (attempt {failed} of {self.attempts})" if failed > 1 else message

    def _own_wait(self, times: int, most: int, growth: float) -> float:
        """The wait without a draw: from the time of a reply to what `base` has grown to at the last of `most`."""
        first = min(self.base, self._lately.seconds)
        share = min(1.0, (times - 1) / max(1, most - 2)) ** 2
        own: float = first ** (1 - share) * self.base**share * growth ** min(times - 1, 60)
        return min(self.ceiling, own)

    def _wait(self, digest: Callable[[str], str], own: float, attempt: int, error: LMError) -> float | None:
        asked = error.retry_after if isinstance(error, LMStatusError) else None
        asked = 0.0 if asked is None else asked
        if asked > self.patience:
            return None
        drawn = _drawn(digest, attempt) if self._draw is None else self._draw()
        return max(asked, own / 2) + drawn * max(own / 2, asked / 4)

    def stats(self) -> dict[str, Any]:
        """The counts of the LM below, and `retries`."""
        return {**super().stats(), "retries": self._retries}

    def __repr__(self) -> str:
        return f"Retry({self.lm!r}, attempts={self.attempts})"


class Lately:
    """What came of the last requests: how long an answer takes, and how many are answered.

    Attributes:
        answers: Number of answers.
        seconds: What an answer takes; infinite as long as there is none.
    """

    def __init__(self) -> None:
        self.answers = 0
        self.seconds = math.inf
        self._recent: deque[bool] = deque(maxlen=32)

    def answered(self, seconds: float) -> None:
        """Note an answer."""
        self.answers += 1
        seconds = max(QUICK, seconds)
        self.seconds = seconds if self.seconds == math.inf else self.seconds + (seconds - self.seconds) / 8
        self._recent.append(True)

    def failed(self) -> None:
        """Note a failure."""
        self._recent.append(False)

    @property
    def mostly_answered(self) -> bool:
        """Whether at least a third of the last 32 were answered, of those that were not turned away."""
        recent = [*self._recent]
        return 3 * sum(recent) >= max(1, len(recent))


def _drawn(digest: Callable[[str], str], attempt: int) -> float:
    return int(digest(f"retry {attempt}")[:8], 16) / 0xFFFFFFFF
