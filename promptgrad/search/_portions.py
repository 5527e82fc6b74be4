"""Portions: what the budget surely pays for runs at once, the last of it piece by piece: timing decides nothing."""

import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TypeVar

from promptgrad import run
from promptgrad.search._candidate import Candidate
from promptgrad.search._objectives import Costs
from promptgrad.search._trial import Cost

T = TypeVar("T")

MARGIN = 2.0
"""Pieces run at once if the budget pays for so many times what they should cost."""


class Portions:
    """Divides pieces of work that would run side by side where the budget may end within them.

    Where calls in flight share the last of a budget, timing says which of them are paid. So what surely fits runs at
    once, then half of what is left, and in the end one piece at a time: how far that comes depends on costs alone,
    which are the same at any concurrency.

    Args:
        ledger: The budget.
        price: What a piece should cost, by kind. Where the price of a limited kind is not known (0), the first piece
            runs alone, then two, and so on, until it is.
        exact: Kinds of which every piece costs just that, so that no margin is kept.
    """

    def __init__(self, ledger: run.Ledger, price: Mapping[str, float], exact: Collection[str] = ()) -> None:
        self._ledger = ledger
        self._price = dict(price)
        self._margin = {kind: 1.0 if kind in exact else MARGIN for kind in price}
        self._unpriced = 1

    def size(self, count: int) -> int:
        """How many of so many pieces run at once now."""
        sure = float(count)
        for kind, left in self._left().items():
            price = self._price[kind]
            sure = min(sure, left / (price * self._margin[kind]) if price else self._unpriced)
        return min(count, max(1, int(sure + 1e-9)))

    async def run(self, pieces: Sequence[T], block: Callable[[Sequence[T]], Awaitable[None]]) -> dict[str, float]:
        """Do all pieces in their order, portion by portion.

        Args:
            pieces: The pieces.
            block: Does some of them, side by side.

        Returns:
            What a piece costs at most, as far as that is known now.

        Raises:
            BudgetExceeded: The budget ended within one.
        """
        done = 0
        while done < len(pieces):
            size, before = self.size(len(pieces) - done), self._left()
            await block(pieces[done : done + size])
            done += size
            for kind, left in self._left().items():
                self._price[kind] = max(self._price[kind], (before[kind] - left) / size)
            self._unpriced = 2 * size
        return self._price

    def _left(self) -> dict[str, float]:
        """What is left of each limited kind."""
        left = {kind: self._ledger.remaining(kind) for kind in self._price}
        return {kind: amount for kind, amount in left.items() if math.isfinite(amount)}


def prices(
    costs: Costs, usual: Cost, candidates: Sequence[tuple[Candidate, float]]
) -> tuple[dict[str, float], frozenset[str]]:
    """What a run of one of some candidates should cost at most, by kind, and the kinds of which it costs just that.

    Args:
        costs: What runs have cost so far.
        usual: What a run of the start cost.
        candidates: The candidates, each with the calls of its program in those of the start.
    """
    found = dict(vars(usual))
    for kind, price in vars(usual).items():
        for candidate, weight in candidates:
            known = costs.mean(kind, candidate)
            if known is None:  # what is new is as dear as the dearest so far, or as its length makes it
                grown = candidate.size / usual.tokens if usual.tokens and kind != "calls" else 0.0
                known = max(costs.dearest(kind), price * weight * (1 + grown))
            found[kind] = max(found[kind], known)
    exact = found["calls"] == usual.calls and costs.makes_calls(usual.calls)
    return found, frozenset({"calls"} if exact else ())
