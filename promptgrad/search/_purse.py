"""What the budget of a run pays for: whether a block is begun, and how much of it runs at once."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from promptgrad import run
from promptgrad.errors import BudgetExceeded
from promptgrad.nn import Module, Predict
from promptgrad.search._candidate import Candidate
from promptgrad.search._objectives import Costs
from promptgrad.search._portions import Portions, prices
from promptgrad.search._stop import Stop
from promptgrad.search._trial import Cost

ASKING = 8
"""What a single call of a writer or critic is taken for before one was made, in runs of the program."""


class Purse:
    """The part of a `Session` that knows what the budget pays for; its attributes are those of `Running`."""

    model: Module
    journal: run.Journal
    ledger: run.Ledger
    cost_per_example: Cost
    costs: Costs
    stop: Stop
    decide: Callable[..., Any]
    _asked: Mapping[str, float]

    def _runs(self, candidate: Candidate) -> float:
        """The cost of one run of a candidate's program, in runs of the session's: more where it has more calls."""
        if candidate.program is None:
            return 1
        own, other = (
            sum(isinstance(module, Predict) for module in program.modules())
            for program in (self.model, candidate.program)
        )
        return max(1, other) / max(1, own)

    def runs_left(self) -> float:
        """How many runs of the program the budget still pays in this phase, by what one cost at the start.

        It is infinite without a limit on calls, tokens or money. Between blocks it is the same at any concurrency.
        """
        cost = self.cost_per_example
        left = [self.ledger.remaining(kind) / price for kind, price in vars(cost).items() if price]
        return min(left, default=math.inf)

    def share_of_runs(self, share: float, most: int) -> int:
        """How many runs of the program a share of `runs_left` pays for: at most so many, and one unless that is 0."""
        return min(most, max(1, int(min(most, share * self.runs_left()))))

    def admit(self, examples: float = 0, calls: int = 0) -> None:
        """Check, before a block, that it fits what the budget leaves after the share for the confirmation.

        The decision depends on what is spent and on what an example cost at the start, so it is the same at any
        concurrency. The budget itself is enforced call by call, independently of this.

        Raises:
            BudgetExceeded: It does not fit: the search ends with the best so far.
        """
        recorded = self.journal.upcoming()
        self.stop.check(recorded, self.decide)
        if ended := self.journal.ended():
            if (here := run.current()) is not None:
                here.catch_up()
            raise ended
        cost = self.cost_per_example
        needed = {
            "calls": calls + math.ceil(examples * cost.calls),
            "tokens": math.ceil(examples * cost.tokens),
            "usd": examples * cost.usd,
        }
        for kind, amount in needed.items():
            left = self.ledger.remaining(kind)
            if left < amount:
                raise BudgetExceeded(
                    f"the next block needs about {amount:g} {kind}, and {left:g} are left for this phase",
                    kind=kind,
                    limit=getattr(self.ledger.budget, kind) or 0,
                    used=getattr(self.ledger.spent, kind) or 0,
                )
        if recorded is None and self.ledger.remaining("seconds") <= 0:  # a replayed block was in time
            limit = self.ledger.budget.seconds or 0
            raise BudgetExceeded(kind="seconds", limit=limit, used=round(self.ledger.seconds, 1))

    def leave_what_was_left(self, kind: str, at: str | None = None) -> None:
        """Leave a block of work, before anything is sent, if an earlier process left it because its time was over.

        Args:
            kind: The kind of the event that the block ends with.
            at: The place that this event names; None if it names none.

        Raises:
            BudgetExceeded: The journal goes on without the block.
        """
        limit = self.ledger.budget.seconds
        if limit is None or not self.journal.replaying:
            return
        for event in self.journal.coming():
            if event["kind"] != "candidate":
                if event["kind"] == kind and event.get("at") == at:
                    return
                raise BudgetExceeded(kind="seconds", limit=limit, used=round(self.ledger.seconds, 1))

    def affords(self, examples: float = 0, calls: int = 0) -> bool:
        """Whether a block would fit what the budget leaves for the search; see `admit`."""
        try:
            self.admit(examples, calls)
        except BudgetExceeded:
            return False
        return True

    def _portions(self, candidates: Sequence[Candidate], runs: int = 1) -> Portions:
        """How runs of candidates are divided where the budget is short; a piece is so many runs of one of them."""
        weights = [self._runs(candidate) for candidate in candidates]
        price, exact = prices(self.costs, self.cost_per_example, list(zip(candidates, weights, strict=True)))
        return Portions(self.ledger, {kind: runs * each for kind, each in price.items()}, exact)

    def _asking(self) -> Portions:
        """How single calls are divided where the budget is short: one may be as dear as the dearest so far."""
        likely = {kind: ASKING * price for kind, price in vars(self.cost_per_example).items()}
        return Portions(self.ledger, {**likely, "calls": 1.0, **self._asked})
