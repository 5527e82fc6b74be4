"""`Replayed`: what a cassette remembers of a language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptgrad.errors import ReplayError
from promptgrad.lm._completion import Completion
from promptgrad.lm._prices import Prices
from promptgrad.lm._request import Request
from promptgrad.lm._transport import Transport


class Replayed(Transport):
    """A recorded language model: its name, identity, adapter and prices, and inside `replay` its replies."""

    def __init__(self, fact: Mapping[str, Any]) -> None:
        super().__init__(fact["name"], adapter=fact.get("adapter", "chat"))
        self._identity = fact["identity"]
        prices = fact.get("prices")
        self._prices: Prices | None = None if prices is None else (prices[0], prices[1])

    @property
    def prices(self) -> Prices | None:
        """The prices that the recorded LM had."""
        return self._prices

    async def _send(self, request: Request, key: str) -> Completion:
        raise ReplayError(f"{self.name!r} is a recorded language model: it answers only inside promptgrad.lm.replay()")
