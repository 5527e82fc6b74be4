"""Budgets: what a run may spend, and the ledger that refuses the call which would spend more."""

import math
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from promptgrad import aio
from promptgrad.errors import BudgetExceeded, UnknownPriceError
from promptgrad.run._event import amounts
from promptgrad.run._here import here
from promptgrad.run._journal import Journal

KINDS = ("calls", "tokens", "usd")
_USD = 10**12  # money is counted in whole 1e-12 dollars, so that a sum does not depend on its order


@dataclass(frozen=True)
class Budget:
    """The most that a run may spend; None means no limit.

    Attributes:
        calls: Paid calls. Exact: the call that would be one too many is not sent. One that is given up (cancelled, too
            late for a `deadline`, a stream that is left, a silence of `timeout=`) counts, since it may be paid; one
            that the server refuses or fails at does not, unless it says what that cost.
        tokens: Tokens read and written. A call is sent only if its estimate still fits, and beside others only if the
            most that all of them may use fits. For requests with `max_tokens` the estimate is the most, and the limit
            holds; the length of other replies is known only afterwards, and the last one may pass the limit.
        usd: Money, with estimates as for tokens. A model whose price is unknown is refused.
        seconds: Time of the run, all its processes together; of one that was killed, up to what it wrote last. When
            it is over, no call is sent; those in flight end.

    Raises:
        BudgetExceeded: A limit is zero, so that nothing at all could be done.
        ValueError: A limit is negative or not a finite number.
    """

    calls: int | None = None
    tokens: int | None = None
    usd: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for kind in (*KINDS, "seconds"):
            limit = getattr(self, kind)
            if limit is None:
                continue
            if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not math.isfinite(limit) or limit < 0:
                raise ValueError(f"a budget of {kind} is a number above zero or None for no limit, not {limit!r}")
            if limit == 0:
                raise BudgetExceeded(
                    f"a budget of 0 {kind} allows nothing at all: give a number above zero, or None for no limit",
                    kind=kind,
                )

    def __str__(self) -> str:
        limits = [f"{getattr(self, kind):g} {kind}" for kind in (*KINDS, "seconds") if getattr(self, kind) is not None]
        return ", ".join(limits) or "no limit"


@dataclass(frozen=True)
class Spent:
    """The amounts that a run, or one of its phases, has spent.

    Attributes:
        calls: Calls counted against the budget: those sent, and those answered from a cache or from the journal. A
            reply that the run needs again is counted once.
        tokens: Their tokens, read and written; none for an answer from a cache.
        usd: Their price; None if it is unknown for any of them.
        sent: How many of the calls this process sent.
        replayed: How many were answered from the journal.
        failed: Requests sent besides, which brought no reply and are not counted among `calls`.
        failed_calls: How many of them were billed, as their servers say, or may be, since they were given up, in all
            processes of the run (of a phase: in this one). They count against the limits, and not in `calls`, by which
            a resumed run decides again as the first one did.
        failed_tokens: Their tokens, as far as servers say them; also not in `tokens`.
        failed_usd: Their price, also not in `usd`; None if it is unknown for any of them.
        cached: How many a cache answered in this process. They cost nothing, but count as calls, so that the run
            repeats in the same way whatever the cache holds.
    """

    calls: int = 0
    tokens: int = 0
    usd: float | None = 0.0
    sent: int = 0
    replayed: int = 0
    failed: int = 0
    cached: int = 0
    failed_calls: int = 0
    failed_tokens: int = 0
    failed_usd: float | None = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As a dict."""
        return dict(vars(self))


class _Account:
    """Running totals of one phase, or of all."""

    __slots__ = ("amounts", "billed", "cached", "failed", "replayed", "sent", "unpriced")

    def __init__(self) -> None:
        self.amounts = [0, 0, 0]
        self.billed = [0, 0, 0, 0]
        self.unpriced = self.sent = self.replayed = self.failed = self.cached = 0

    def add(self, calls: int, tokens: int, money: int, unpriced: int) -> None:
        for place, amount in enumerate((calls, tokens, money)):
            self.amounts[place] += amount
        self.unpriced += unpriced

    def spent(self) -> Spent:
        calls, tokens, money = self.amounts
        usd = None if self.unpriced else money / _USD
        lost, lost_tokens, paid, unpriced = self.billed
        lost_usd = None if unpriced else paid / _USD
        counts = self.sent, self.replayed, self.failed, self.cached
        return Spent(calls, tokens, usd, *counts, lost, lost_tokens, lost_usd)


@contextmanager
def phase(name: str, keep: Budget | None = None) -> Iterator[None]:
    """Name the phase to which calls are booked from here on, and keep part of the budget for later phases.

    Args:
        name: For example "propose", "search", "confirm".
        keep: What this phase must leave: with a budget of 1,000 calls and `keep=Budget(calls=200)`, the ledger
            refuses the 801st call inside this phase.
    """
    outer = here.get()
    token = here.set(replace(outer, phase=name, keep=keep if keep is not None else outer.keep))
    try:
        yield
    finally:
        here.reset(token)


def current_phase() -> str:
    """The name of the phase here, as `phase` gave it; empty outside of all."""
    return here.get().phase


class Ledger:
    """Keeps a budget: every call is reserved before it is sent, and committed with what it really used.

    A call that brought no reply (an error, a timeout, a cancellation) is released again and counted apart; if its
    server charged for it, or may, it counts against the limits, and in `spent.failed_calls` and `.failed_tokens`. A
    reply that comes from the journal counts as if it had been sent just now, so that a resumed run decides as the
    first one did; but what earlier processes paid counts against the limit of new calls from the start, so that
    all processes together stay within it.

    A call that does not fit beside those in flight waits until they have ended, and is refused only if it does not fit
    then. So estimates that are too high waste nothing, and a refusal, which ends a block of work, finds no paid call in
    flight whose reply would be lost.

    Args:
        budget: The limits; None for none.
        journal: Its paid calls count as spent, and its time is that of the run; by default a new one in memory.
    """

    def __init__(self, budget: Budget | None = None, journal: Journal | None = None) -> None:
        journal = Journal() if journal is None else journal
        self.budget = budget or Budget()
        self._lock = threading.Lock()
        self._all = _Account()
        self._phases: dict[str, _Account] = {}
        self._reserved = [0, 0, 0]
        self._most = [0, 0, 0]  # what the calls in flight may use, `_reserved` being what they are taken for
        self._open = 0  # reservations that are neither committed nor released
        self._paid = [sum(pair) for pair in zip(journal.totals[:3], journal.billed[:3], strict=True)]
        self._all.billed = [*journal.billed]
        self._waiting: deque[aio.Signal[None]] = deque()
        self._journal = journal

    @property
    def spent(self) -> Spent:
        """What the run has spent so far; replayed calls count from the moment the run comes to them."""
        with self._lock:
            return self._all.spent()

    @property
    def phases(self) -> dict[str, Spent]:
        """What each phase has spent."""
        with self._lock:
            return {name: account.spent() for name, account in self._phases.items()}

    @property
    def seconds(self) -> float:
        """Seconds of the run so far, earlier processes included."""
        return self._journal.elapsed

    def remaining(self, kind: str = "calls") -> float:
        """How much is left for the current phase; infinity where there is no limit.

        Between blocks of concurrent work this depends only on what the run did, not on timing (except for "seconds").
        """
        limit = self._limit(kind)
        if kind == "seconds":
            return max(0.0, limit - self.seconds)
        place = KINDS.index(kind)
        with self._lock:
            used = self._all.amounts[place]
        return max(0, limit - used) / (_USD if kind == "usd" else 1)

    def affords(self, *, calls: int = 0, tokens: int = 0, usd: float = 0.0) -> bool:
        """Whether the current phase has this much left, and time as well."""
        wanted = {"calls": calls, "tokens": tokens, "usd": usd}
        return self.remaining("seconds") > 0 and all(self.remaining(kind) >= wanted[kind] for kind in KINDS)

    async def reserve(
        self,
        *,
        calls: int = 1,
        tokens: int = 0,
        usd: float | None = 0.0,
        most: tuple[int, float | None] | None = None,
    ) -> "Reservation":
        """Set aside what a call may cost; wait for calls in flight before refusing it.

        Args:
            calls: Number of calls.
            tokens: Estimate of the tokens read and written.
            usd: Estimate of the price; None if the model's price is unknown.
            most: The tokens and the price that it may come to beside others; None if the estimates are no less.

        Raises:
            BudgetExceeded: The call does not fit; it must not be sent.
            UnknownPriceError: The budget limits money and the price is unknown.
        """
        if usd is None and self.budget.usd is not None:
            raise UnknownPriceError(
                f"the budget is limited to {self.budget.usd:g} usd and the price of this model is not known, so it "
                "cannot be kept: give the price to the LM (prices=...), or limit calls or tokens instead"
            )
        wanted = [calls, tokens, 0 if usd is None else math.ceil(usd * _USD)]
        tokens, usd = most or (tokens, usd)
        largest = [max(pair) for pair in zip(wanted, (calls, tokens, math.ceil((usd or 0) * _USD)), strict=True)]
        while True:
            with self._lock:
                turn = self._try(wanted, largest)
            if turn is None:
                return Reservation(self, wanted, largest)
            await turn

    def replay(self, usage: Mapping[str, Any]) -> None:
        """Book a call whose reply came from the journal, as if it had been sent."""
        with self._lock:
            for account in self._accounts():
                account.add(*amounts(usage))
                account.replayed += 1

    def refused(self) -> None:
        """Count a request that was refused and is sent again in other words, within the same call."""
        with self._lock:
            for account in self._accounts():
                account.failed += 1

    def _try(self, wanted: list[int], largest: list[int]) -> "aio.Signal[None] | None":
        """Reserve and return None; or return the signal to wait for; or raise."""
        refusal: BudgetExceeded | None = None
        wait = False
        if self.seconds >= self._limit("seconds"):
            refusal = BudgetExceeded(kind="seconds", limit=self._limit("seconds"), used=round(self.seconds, 1))
        for place, kind in enumerate(KINDS):
            limit = self._limit(kind)
            used = max(self._paid[place], self._all.amounts[place])
            if used + wanted[place] > limit:
                refusal = refusal or self._refusal(kind, limit, used)
            elif here.get().holding:  # a call in flight is our own caller: the wait would never end
                if used + self._reserved[place] + wanted[place] > limit:
                    refusal = refusal or self._refusal(kind, limit, used + self._reserved[place])
            elif self._open and used + self._most[place] + largest[place] > limit:
                wait = True
        if refusal is not None and (not self._open or here.get().holding):
            raise refusal
        if wait or refusal is not None:
            turn: aio.Signal[None] = aio.Signal()
            self._waiting.append(turn)
            return turn
        for place in range(3):
            self._reserved[place] += wanted[place]
            self._most[place] += largest[place]
        self._open += 1
        return None

    def _refusal(self, kind: str, limit: float, used: float) -> BudgetExceeded:
        if kind == "usd":
            limit, used = limit / _USD, used / _USD
        kept = getattr(here.get().keep, kind, None)
        text = f"the budget of {limit:g} {kind} is used up: {used:g} spent or in flight, and the next call does not fit"
        if kept is not None:
            text += f" ({kept:g} {kind} are kept for what comes after phase {here.get().phase!r})"
        return BudgetExceeded(text, kind=kind, limit=limit, used=used)

    def _limit(self, kind: str) -> float:
        """The limit of the current phase; money in 1e-12 dollars."""
        limit: float | None = getattr(self.budget, kind)
        if limit is None:
            return math.inf
        kept: float | None = getattr(here.get().keep, kind, None)
        limit = max(0, limit - (kept or 0))
        return round(limit * _USD) if kind == "usd" else limit

    def _accounts(self) -> tuple[_Account, _Account]:
        name = here.get().phase
        account = self._phases.get(name)
        if account is None:
            account = self._phases[name] = _Account()
        return self._all, account

    def _settle(
        self,
        wanted: list[int],
        largest: list[int],
        usage: Mapping[str, Any] | None,
        billed: Mapping[str, Any] | None = None,
    ) -> None:
        with self._lock:
            for place in range(3):
                self._reserved[place] -= wanted[place]
                self._most[place] -= largest[place]
            self._open -= 1
            counted = billed if usage is None else usage
            used = (0, 0, 0, 0) if counted is None else amounts(counted)
            for place in range(3):
                self._paid[place] += used[place]
            if usage is None:
                for account in self._accounts():
                    account.failed += 1
                    account.billed = [sum(pair) for pair in zip(account.billed, used, strict=True)]
            else:
                for account in self._accounts():
                    account.add(*used)
                    if usage.get("cached"):
                        account.cached += 1
                    else:
                        account.sent += 1
            waiting, self._waiting = self._waiting, deque()
        for turn in waiting:
            turn.set(None)

    def __repr__(self) -> str:
        spent = self.spent
        return f"<Ledger {spent.calls} calls, {spent.tokens} tokens spent of {self.budget}>"


class Reservation:
    """Part of a budget that is set aside for one call. The first `commit` or `release` counts."""

    __slots__ = ("_amounts", "_ledger", "_open")

    def __init__(self, ledger: Ledger, wanted: list[int], largest: list[int]) -> None:
        self._ledger = ledger
        self._amounts = wanted, largest
        self._open = True

    def commit(self, usage: Mapping[str, Any]) -> None:
        """Book what the call really used: `input_tokens`, `output_tokens`, and `usd` (None if unknown)."""
        if self._open:
            self._open = False
            self._ledger._settle(*self._amounts, usage)

    def release(self, billed: Mapping[str, Any] | None = None) -> None:
        """Return the reserved amounts to the budget: the call brought no reply.

        Args:
            billed: Its usage if it counts all the same, as far as it is known; None if it does not.
        """
        if self._open:
            self._open = False
            self._ledger._settle(*self._amounts, None, billed)
