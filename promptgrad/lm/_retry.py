"""`Retry`: sends a request again after a transient failure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from promptgrad import aio
from promptgrad._numbers import check_count, optional_count
from promptgrad.errors import LMError, LMStatusError, OverloadedError, RateLimitError
from promptgrad.lm._base import LM
from promptgrad.lm._completion import Completion
from promptgrad.lm._deadline import sleep_within
from promptgrad.lm._layer import Layer
from promptgrad.lm._request import Request
from promptgrad.lm._stream import Listener

T = TypeVar("T")

TURNING = 1.6
"""Growth of the own wait of a request that is turned away: nine of them, as LMs from names have, pass a minute."""

QUICK = 0.01
"""Seconds that the first wait has at least, however soon replies come."""

WINDOW = 32
"""Requests after which one is forgotten."""

KNOWN = 8
"""Requests before a row of failures from which is known what is usual."""

UNUSUAL = 1 << 30
"""Failures in a row where it is not known how many are usual."""

RARE = 0.05
"""Chance below which a row of failures is more than usual."""

REFUSALS = (RateLimitError, OverloadedError)
"""What says that the endpoint did not look at the request."""


def is_transient(error: LMError) -> bool:
    """True if the same request may succeed a little later."""
    return error.transient and not error.replayed


def _always(error: LMError) -> bool:
    return True


def _is_fresh(listener: Listener, error: LMError) -> bool:
    return not listener.started


class Retry(Layer):
    """Send a request again after a failure that may pass: 429, overload, 5xx, a lost connection, a spoilt body.

    The own wait begins at about the time that a reply takes, `base` seconds at most, and grows up to `ceiling`, so that
    the last one is what doubling `base` makes of it. It stays as short as at first while failures (5xx, a lost
    connection, a spoilt body) or refusals are what happens there all the time: of the last 32 requests at least a third
    were answered (a half, where they are turned away), and others were answered since the one before, or no more came
    to nothing in a row, over all callers, than often do by chance. It is compared with the wait that the server asks
    for, the larger counts, and a drawn share is added, so that many callers spread out. The draw comes from the
    request's digest. A server that asks for more than `patience` seconds is not waited for: its error is raised at
    once. In a run with a budget of seconds no wait passes its end.

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
        check_count("attempts", attempts)
        optional_count("turns", turns)
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
        try:
            completion = await self.lm.complete(request)
        except LMError as error:
            failure = error
        else:
            self._lately.answered(completion.usage.seconds)
            return completion
        fresh = _always if request.listener is None else partial(_is_fresh, request.listener)
        completion = await self._again(failure, partial(self.lm.complete, request), request.digest, fresh)
        self._lately.answered(completion.usage.seconds)
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
        try:
            return await send()
        except LMError as error:
            failure = error
        return await self._again(failure, send, digest, may)

    async def _again(
        self,
        error: LMError,
        send: Callable[[], Awaitable[T]],
        digest: Callable[[str], str],
        may: Callable[[LMError], bool],
    ) -> T:
        """Send again what failed with this error, until it is answered or the attempts are over."""
        failed = turned = alone = seen = 0  # `alone`: in a row since others were answered
        while True:
            if not is_transient(error) or not may(error):
                raise error
            refused = isinstance(error, REFUSALS)
            away = self.turns is not None and refused
            turned, failed = turned + away, failed + (not away)
            beyond, usual = self._lately.failed(refused=refused)
            among = usual and self._lately.answers > seen
            alone, seen = 1 if among else beyond if refused else alone + 1, self._lately.answers
            times, most = (turned, self.turns or 1) if away else (failed, self.attempts)
            own = self._own_wait(min(times, alone, beyond), most, TURNING if away else 2.0)
            wait = self._wait(digest, own, times, error)
            if wait is None or times == most:
                error.args = (self._message(error, failed, turned if away else 0, asked_too_much=wait is None),)
                raise error
            await sleep_within(wait, self._sleep, error)
            self._retries += 1
            try:
                return await send()
            except LMError as next_error:
                error = next_error

    def _message(self, error: LMError, failed: int, turned: int, *, asked_too_much: bool) -> str:
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
    """What came of the last requests: how long an answer takes, how many are answered, and what came to nothing since.

    Attributes:
        answers: Number of answers.
        seconds: What an answer takes; infinite as long as there is none.
    """

    def __init__(self) -> None:
        self.answers = 0
        self.seconds = math.inf
        self._failed = 0
        self._failures, self._refusals = Streak(3), Streak(2)

    def answered(self, seconds: float) -> None:
        """Note an answer."""
        if seconds < QUICK:
            seconds = QUICK
        known = self.seconds
        self.seconds = known + (seconds - known) / 8 if self.answers else seconds
        self.answers += 1

    def failed(self, *, refused: bool) -> tuple[int, bool]:
        """Note a failure or a refusal: see `Streak.add`. A refusal says nothing of failures; what failed was taken."""
        if refused:
            return self._refusals.add(self.answers + self._failed)
        self._failed += 1
        return self._failures.add(self.answers)


class Streak:
    """How many in a row came to nothing, and how many in a row usually do.

    Args:
        fold: At least one of so many must come to something, or nothing is usual.
    """

    def __init__(self, fold: int) -> None:
        self._fold = fold
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._row = self._good = 0

    def add(self, good: int) -> tuple[int, bool]:
        """Note one that did not; return how many there are in a row beyond those that are usual, and whether few are.

        As long as nothing is usual, these are very many.

        Args:
            good: How many came to something so far.
        """
        if good > self._good:
            self._recent.extend([True] * min(WINDOW, good - self._good))
            self._row, self._good = 0, good
        self._recent.append(False)
        self._row += 1
        recent = [*self._recent]
        before, good = len(recent) - self._row, sum(recent)
        few = self._fold * good >= max(1, len(recent))
        if not few or before < KNOWN:
            return UNUSUAL, few
        share = (before - good) / before
        usual = int(math.log(RARE) / math.log(share)) if share > RARE else 0
        return max(1, self._row - usual), few


def _drawn(digest: Callable[[str], str], attempt: int) -> float:
    return int(digest(f"retry {attempt}")[:8], 16) / 0xFFFFFFFF
