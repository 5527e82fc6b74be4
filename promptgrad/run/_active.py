"""The active run, which a language-model call consults before it is sent, and reports to before its reply is used."""

import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from promptgrad import aio
from promptgrad.aio import Signal
from promptgrad.errors import BudgetExceeded, DeadlineError, LMError, may_be_paid
from promptgrad.run._budget import Ledger, Reservation, current_phase
from promptgrad.run._budget import phase as _phase
from promptgrad.run._here import here
from promptgrad.run._journal import Journal

T = TypeVar("T")
_EMPTY: Mapping[str, Any] = {}
PATIENCE = 10
"""How many times as long as then a resumed run waits for a call to be given up again, and so many seconds more."""


class _Shared:
    """The state that all scopes of one active run share."""

    def __init__(self, journal: Journal, ledger: Ledger) -> None:
        self.journal = journal
        self.ledger = ledger
        self.lock = threading.Lock()
        self.flying: dict[str, Signal[None]] = {}
        self.charged: set[str] = set()
        self.opened: dict[str, int] = {}
        self.closed: dict[str, int] = {}
        self.longest: dict[str, int] = {}
        self.turns: tuple[int, dict[tuple[str, str, str], int]] = (0, {})


class ActiveRun:
    """The active run as seen from one scope. `current()` gives it.

    Attributes:
        journal: Where paid replies are written, and read from when the run is resumed.
        ledger: The budget.
        scope: Path of the logical part of the run, such as "trial/3".
    """

    __slots__ = ("_shared", "journal", "ledger", "scope")

    def __init__(self, shared: _Shared, scope: str) -> None:
        self._shared = shared
        self.journal = shared.journal
        self.ledger = shared.ledger
        self.scope = scope

    async def call(
        self,
        key: str,
        send: Callable[[], Awaitable[Mapping[str, Any]]],
        *,
        tokens: int = 0,
        usd: float | None = 0.0,
        most: tuple[int, float | None] | None = None,
    ) -> tuple[Mapping[str, Any], bool]:
        """Get the reply to a paid call: from the journal if it is there, else by sending it.

        The budget is reserved before `send` runs; the reply is in the journal before this returns. Equal keys that
        are asked for at the same time are sent once. A failed call is not journalled, its error is raised in all
        waiters, and asking again sends it again; only where an earlier process of the run went on without its reply, it
        fails in the same way.

        Args:
            key: Digest of everything that is sent, and of the LM that it is sent to.
            send: Makes the call and returns the reply as a JSON-like mapping; its `usage` has `input_tokens`,
                `output_tokens` and `usd` (None where the price is unknown).
            tokens: Estimate of the tokens, for the reservation.
            usd: Estimate of the price, None where it is unknown.
            most: The tokens and the price that it may come to beside other calls, where this is more.

        Returns:
            The reply, and whether it came from the journal or from another caller's call rather than from `send`.

        Raises:
            BudgetExceeded: The call does not fit the budget and was not sent.
            UnknownPriceError: The budget limits money and `usd` is None.
            JournalError: The reply could not be written.
        """
        shared = self._shared
        while True:
            self._check_failure(key)
            recorded = self.journal.reply(key)
            if recorded is not None:
                self._charge(key, recorded)
                return recorded, True
            with shared.lock:
                other = shared.flying.get(key)
                if other is None and not self.journal.has(key):
                    mine = shared.flying[key] = Signal()
                    break
            if other is not None:
                await other
        failure: Exception | None = None
        try:
            return await self._send(key, send, tokens, usd, most), False
        except Exception as error:
            failure = error
            raise
        finally:
            with shared.lock:
                del shared.flying[key]
            if failure is None:
                mine.set(None)  # a waiter looks into the journal, or sends if this caller was cancelled
            else:
                mine.fail(failure)

    async def _send(
        self,
        key: str,
        send: Callable[[], Awaitable[Mapping[str, Any]]],
        tokens: int,
        usd: float | None,
        most: tuple[int, float | None] | None,
    ) -> Mapping[str, Any]:
        if ended := self.journal.ended():
            raise ended
        try:
            reservation = await self.ledger.reserve(calls=1, tokens=tokens, usd=usd, most=most)
        except BudgetExceeded:
            self.journal.withdraw(key)  # another attempt of a call that failed
            raise
        outside = here.set(here.get().held())
        sent = False
        try:
            self.journal.sending(key)
            sent = True
            reply = await send()
        except BaseException as error:
            billed = cost_of(error, usd) if sent else None
            reservation.release(billed)
            if sent:
                self.journal.failed(key, self.scope, error, billed)
            if isinstance(error, LMError):
                error.call = key
            raise
        finally:
            here.reset(outside)
        self._shared.charged.add(key)
        reservation.commit(reply.get("usage") or _EMPTY)  # first, so that an observer of the call finds it booked
        self.journal.call(key, self.scope, reply)
        return reply

    def also_paid(self, key: str, reservation: Reservation, reply: Mapping[str, Any]) -> None:
        """Book a further request that was sent for a call in flight, under a key of its own, for `touch` to find.

        Args:
            key: Its key.
            reservation: What was reserved for it.
            reply: What is written of it; its `usage` is booked.
        """
        self._shared.charged.add(key)
        reservation.commit(reply.get("usage") or _EMPTY)
        self.journal.call(key, self.scope, reply)

    def also_failed(self, key: str, reservation: Reservation, error: BaseException, usd: float | None) -> None:
        """Count a further request that was sent for a call in flight, and that brought no reply either.

        Args:
            key: Its key.
            reservation: What was reserved for it.
            error: How it ended.
            usd: Its price as it was estimated.
        """
        billed = cost_of(error, usd)
        reservation.release(billed)
        if not isinstance(error, LMError):  # else the error of the call is on record, and is what is met again
            self.journal.failed(key, self.scope, error, billed)

    async def ask(self, key: str, answer: Callable[[], Awaitable[T]], *, gives_up: bool = True) -> T:
        """Ask a language model with all that is around it, and remember if there was no answer in the end.

        What the row that asks goes on without, it goes on without in a resumed run: also where another row got a reply
        to the same request a moment later, and where a layer of the user's raised the error and not the model.

        What the program gives up itself (`asyncio.wait_for`, a task that it cancels) it gives up in a resumed run too:
        there it is waited for, not asked again, as it may be answered. Only if nobody gives it up in ten times as long
        is it asked.

        Args:
            key: Digest of the request and of the LM that is asked.
            answer: Asks.
            gives_up: Whether it can be given up again where nothing comes: not by a reader that leaves a stream.

        Raises:
            LMError: There was no answer, now or in an earlier process of the run.
            DeadlineError: There was no time for one, now or then.
        """
        journal = self.journal
        asked = key, self.scope, _row()
        turn = self._turn(asked)
        if journal.has_failed_rows:
            failure = journal.failure(*asked, turn)
            if failure is not None:
                raise failure
            if (waited := journal.given_up_after(*asked, turn)) is not None:
                await aio.sleep(PATIENCE * (1 + waited))  # as then, the program gives it up meanwhile
        begun = journal.elapsed
        try:
            found = await answer()
        except (LMError, DeadlineError) as error:
            error.call = error.call or key
            journal.went_without(*asked, turn, error)
            raise
        except BaseException as error:
            if gives_up and not isinstance(error, Exception):
                journal.went_without(*asked, turn, error, waited=journal.elapsed - begun)
            raise
        if journal.has_failed_rows:
            journal.got_after_all(*asked, turn)
        return found

    def goes_on(self, kind: str, key: str, **fields: Any) -> bool:
        """Write that the row which asked last for this goes on without an answer, so that it does so in a resumed run.

        The keyed event is that of this time of asking: the same row may ask the same again, here, in another scope or
        in a later block of work.
        """
        row, shared = _row(), self._shared
        with shared.lock:
            place, turns = shared.turns
            turn = turns.get((key, self.scope, row), 0)
        return self.record(kind, f"{key}:{place}:{self.scope}:{row}:{turn}", **fields)

    def _turn(self, asked: tuple[str, str, str]) -> int:
        """How often this was asked before by the same row, since the last ordered event."""
        shared, place = self._shared, self.journal.place
        with shared.lock:
            if shared.turns[0] != place:
                shared.turns = place, {}
            turns = shared.turns[1]
            turn = turns[asked] = turns.get(asked, -1) + 1
        return turn

    def longest(self, name: str, tokens: int = 0) -> int:
        """The tokens of the longest reply of an LM in this run, so far; `tokens` are those of another one."""
        known = self._shared.longest
        if tokens > known.get(name, 0):
            known[name] = tokens
        return known.get(name, 0)

    def touch(self, key: str) -> bool:
        """Book a call that a cache above the transport answered; return whether this run ever paid for it.

        If this run paid for the call, in this process or an earlier one, it is booked as a replayed one is, so that a
        warm cache changes nothing in a resumed run. A reply that the run never paid for is free.
        """
        self._check_failure(key)
        if not self.journal.has(key):
            return False
        self._charge(key, None)
        return True

    def catch_up(self, phase: str | None = None, before: int | None = None) -> None:
        """Book what earlier processes paid before an ordered event and the run goes there without asking for.

        Such are the calls of a block that the budget cut off: how far it came depends on timing, and it is not run
        again, or not as far; but what comes after has as much left of the budget in every process.

        Args:
            phase: The phase in which that block was; by default the present one.
            before: The place of the event; by default the next one.
        """
        if not self.journal.resumed:
            return
        with _phase(current_phase() if phase is None else phase):
            for key, reply in self.journal.paid_before(self.journal.place if before is None else before):
                if key not in self._shared.charged:
                    self._shared.charged.add(key)
                    self.ledger.replay(reply.get("usage") or _EMPTY)

    def _check_failure(self, key: str) -> None:
        failure = self.journal.failure(key, self.scope)
        if failure is not None:
            raise failure

    def record(self, kind: str, key: str, **fields: Any) -> bool:
        """Write a keyed event of this scope into the journal, as `Journal.record` does."""
        return self.journal.record(kind, key, scope=self.scope, **fields)

    def _charge(self, key: str, reply: Mapping[str, Any] | None) -> None:
        shared = self._shared
        if key not in shared.charged:
            with shared.lock:
                first = key not in shared.charged
                shared.charged.add(key)
            if first:
                if reply is None:
                    reply = self.journal.reply(key) or _EMPTY
                self.ledger.replay(reply.get("usage") or _EMPTY)
        self.journal.use(key, self.scope)

    def _enter(self) -> None:
        shared = self._shared
        with shared.lock:
            times = shared.opened[self.scope] = shared.opened.get(self.scope, 0) + 1
        self.journal.mark(self.scope, "open", times)

    def _leave(self) -> None:
        shared = self._shared
        with shared.lock:
            times = shared.closed[self.scope] = shared.closed.get(self.scope, 0) + 1
        self.journal.mark(self.scope, "close", times)

    def __repr__(self) -> str:
        return f"<ActiveRun {self.scope or 'run'} of {self.journal!r}>"


def cost_of(error: BaseException, usd: float | None) -> Mapping[str, Any] | None:
    """The usage that a call which brought no reply counts with against the budget; None if it does not.

    Args:
        error: How it ended.
        usd: Its price as it was estimated; what was given up cost nothing where calls are free, else it is not known.
    """
    if isinstance(error, LMError) and error.billed:
        return error.billed
    if may_be_paid(error):
        return {"usd": 0.0} if usd == 0 else {}
    return None


def _row() -> str:
    return "/".join(map(str, aio.row()))


def current() -> ActiveRun | None:
    """The active run as seen from here, or None outside of one."""
    return here.get().run


@contextmanager
def active(*, journal: Journal | None = None, ledger: Ledger | None = None, scope: str = "") -> Iterator[ActiveRun]:
    """Make a run active: every language-model call inside goes through its journal and its budget.

    It holds for this context, and for the tasks and worker threads started from it. Inside another run, only the
    inner one is active.

    Args:
        journal: Where replies are kept; by default a journal in memory, which lives as long as the block.
        ledger: The budget; by default none.
        scope: Name of the outermost scope.
    """
    journal = journal if journal is not None else Journal()
    ledger = ledger if ledger is not None else Ledger(journal=journal)
    made = ActiveRun(_Shared(journal, ledger), scope)
    with _within(made):
        yield made


@contextmanager
def scope(name: str | int) -> Iterator[ActiveRun | None]:
    """Name a logical part of the active run, such as `scope("trial/3")`; scopes nest. Does nothing outside of a run.

    The calls of a scope count in the canonical journal only once it has ended without an error, because how far an
    interrupted scope came depends on timing. A scope in which the budget refused a call is an interrupted one.

    Raises:
        ValueError: The name is empty, or begins or ends with '/'.
    """
    outer = here.get().run
    if outer is None:
        yield None
        return
    path = f"{outer.scope}/{name}" if outer.scope else str(name)
    if not path or path.startswith("/") or path.endswith("/") or "//" in path:
        raise ValueError(f"a scope needs a name that does not begin or end with '/', not {name!r}")
    with _within(ActiveRun(outer._shared, path)) as inner:
        yield inner


@contextmanager
def _within(run: ActiveRun) -> Iterator[ActiveRun]:
    token = here.set(replace(here.get(), run=run))
    try:
        run._enter()
        yield run
        run._leave()
    finally:
        here.reset(token)
