"""`Retry`: sends a request again after a transient failure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from promptgrad import aio
from promptgrad.errors import LMError, LMStatusError
from promptgrad.lm._base import LM
from promptgrad.lm._completion import Completion
from promptgrad.lm._layer import Layer
from promptgrad.lm._request import Request


def is_transient(error: LMError) -> bool:
    """True if the same request may succeed a little later."""
    return error.transient and not error.replayed


class Retry(Layer):
    """Send a request again after 429, 5xx, a lost connection, a timeout or a spoilt body.

    The wait doubles from `base` up to `ceiling` seconds, less a share of at most a half that is drawn from the
    request's digest, so that many callers spread out and a run repeats exactly. A server's `Retry-After` is obeyed
    instead, unless it asks for more than `patience` seconds: then its error is raised at once.

    Cost: up to `attempts` requests for one call. A failure that cannot pass (other 4xx) is never retried, nor is a
    stream after its first piece.

    Args:
        lm: The LM to wrap.
        attempts: Most times a request is sent.
        base: Seconds before the second attempt.
        ceiling: Longest wait without a `Retry-After`, in seconds.
        patience: Longest `Retry-After` that is waited for, in seconds.
        sleep: Function that waits; tests pass their own.

    Raises:
        ValueError: `attempts` is below one.
    """

    def __init__(
        self,
        lm: LM,
        attempts: int = 5,
        *,
        base: float = 0.5,
        ceiling: float = 30.0,
        patience: float = 120.0,
        sleep: Callable[[float], Awaitable[object]] = aio.sleep,
    ) -> None:
        super().__init__(lm)
        if attempts < 1:
            raise ValueError(f"attempts must be at least 1, not {attempts}")
        self.attempts = attempts
        self.base = base
        self.ceiling = ceiling
        self.patience = patience
        self._sleep = sleep

    async def complete(self, request: Request) -> Completion:
        """Answer one request, in up to `attempts` attempts; the last error is raised, with the number of attempts."""
        attempt = 1
        while True:
            try:
                return await self.lm.complete(request)
            except LMError as error:
                if not is_transient(error) or (request.listener is not None and request.listener.started):
                    raise
                wait = self._wait(request, attempt, error)
                if attempt >= self.attempts or wait is None:
                    message = error.args[0] if error.args else ""
                    if wait is None:
                        message = f"{message} (not waited for: patience is {self.patience:g} s)"
                    if attempt > 1:
                        message = f"{message} (attempt {attempt} of {self.attempts})"
                    error.args = (message,)
                    raise
            await self._sleep(wait)
            attempt += 1

    def _wait(self, request: Request, attempt: int, error: LMError) -> float | None:
        asked = error.retry_after if isinstance(error, LMStatusError) else None
        if asked is not None:
            return asked if asked <= self.patience else None
        drawn = int(request.digest(f"retry {attempt}")[:8], 16) / 0xFFFFFFFF
        return float(min(self.ceiling, self.base * 2.0 ** (attempt - 1)) * (1 - drawn / 2))

    def __repr__(self) -> str:
        return f"Retry({self.lm!r}, attempts={self.attempts})"
