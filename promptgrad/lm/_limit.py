"""`Limit`: a bound on the number of concurrent calls."""

from __future__ import annotations

from promptgrad import aio
from promptgrad.lm._base import LM
from promptgrad.lm._completion import Completion
from promptgrad.lm._fork import reset_after_fork
from promptgrad.lm._layer import Layer
from promptgrad.lm._request import Request


class Limit(Layer):
    """Let at most `concurrency` calls go to the wrapped LM at once; the others wait in line, first come first served.

    The limit applies across all threads and event loops that use this object.

    Args:
        lm: The LM to wrap.
        concurrency: The most calls in flight.

    Raises:
        ValueError: `concurrency` is below one.
    """

    def __init__(self, lm: LM, concurrency: int) -> None:
        super().__init__(lm)
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        self.concurrency = concurrency
        self._places = aio.Semaphore(concurrency)
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Free all places: the calls in flight belong to the parent."""
        self._places = aio.Semaphore(self.concurrency)

    async def complete(self, request: Request) -> Completion:
        """Answer one request, when it is its turn."""
        places = self._places
        await places.acquire()
        try:
            return await self.lm.complete(request)
        finally:
            places.release()

    def __repr__(self) -> str:
        return f"Limit({self.lm!r}, concurrency={self.concurrency})"
