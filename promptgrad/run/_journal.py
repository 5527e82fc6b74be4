"""The journal of a run: an append-only file of JSON lines from which the run can be replayed."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from promptgrad.content import apart, together
from promptgrad.errors import BudgetExceeded, DeadlineError, JournalError, LMError
from promptgrad.run._canonical import fold
from promptgrad.run._event import (
    BY_ROW,
    EXHAUSTED,
    SCHEMA,
    SEALED,
    amounts,
    cause,
    check,
    differences,
    encode,
    jsonable,
    show,
    timeless,
)
from promptgrad.run._failures import Failures, asker
from promptgrad.run._journal_file import JournalFile, version


class Journal(JournalFile):
    """The events of a run, one JSON line each, written to the file before `append` returns.

    There are four sorts of event:

    - *ordered* events (`append`): decisions, candidates, proposals - whatever a run does one after the other. In a
      resumed run, each `append` is compared with what the earlier process wrote at the same place; new events are
      written only past the place where that process ended.
    - *keyed* events (`record`), of which only the first with a key is kept: cells, and anything else that
      concurrent tasks write in no particular order.
    - *paid calls*, with scope and reply, written by the active run. The bytes of an image, sound or file in a reply
      stand once in the file, as an event of the kind `blob` before the first call that has them.
    - *notes* (`note`): events of this process that are not part of the run: starts, calls sent, calls failed; and,
      with a key, facts that are worth reading though they follow from the other events: a trial of the history.

    The file survives `kill -9` at any byte: a torn last line is cut when it is opened next. Each line has a checksum,
    so that a journal which was altered, by a fault of the disk or by hand, is refused. (After a power failure
    the last lines may be missing; the file is handed to the operating system, not forced to the disk.) It has one
    writer at a time; a second one is refused. Fields whose name says that they hold a secret (`api_key`,
    `authorization`, ...) are written without their value.

    Args:
        path: File to open or create, with its folder; None keeps the journal in memory.
        readonly: Only read. This works while another process writes; a torn last line is ignored rather than cut.
        clock: Function that returns seconds, by which the run's time is counted; tests pass their own.

    Attributes:
        path: The file, or None.
        resumed: Whether the file held events of an earlier process.
        lost: Calls that were in flight when an earlier process died, or when the run was stopped, as by Ctrl-C: they
            may have been paid and are sent again. Those that were cancelled and without which the run went on are not
            among them.
        paid: Number of paid calls on record.

    Raises:
        JournalError: The file is not a journal, is damaged, has a newer schema, or has a writer.
    """

    def __init__(
        self,
        path: "str | os.PathLike[str] | None" = None,
        *,
        readonly: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.resumed = False
        self.lost = 0
        self._calls: dict[str, tuple[int, int]] = {}
        self._blobs: dict[str, tuple[int, int]] = {}
        self._uses: set[tuple[str, str]] = set()
        self._keys: dict[tuple[str, str], tuple[int, int]] = {}
        self._passed: set[tuple[str, str]] = set()  # keyed events of earlier processes that observers got again
        self._ordered: list[dict[str, Any]] = []
        self._next = 0  # place of the next ordered event of this process
        self._scopes: dict[str, list[int]] = {}  # how often opened, how often closed
        self._flying: dict[str, int] = {}
        self._failures = Failures()
        self._totals = [0, 0, 0, 0]  # calls, tokens, 1e-12 usd, calls without a price
        self._billed = [0, 0, 0, 0]  # the same of calls that failed
        self._given_up: list[tuple[int, ...]] = []  # the same of each that was cancelled since the last decision
        super().__init__(path, readonly=readonly, clock=clock)
        if not readonly and self._size == 0:
            self._write({"kind": "header", "schema": SCHEMA, "promptgrad": version(), "date": _now()})
        elif not readonly:
            self.resumed = True
            self.lost = self._count_lost()
            self._write({"kind": "process", "schema": SCHEMA, "date": _now(), "lost": self.lost})
        self._earlier = self._size if self.resumed else 0  # where the part of this process begins

    # ---------------------------------------------------------------------------------------------- writing

    def append(self, kind: str, **fields: Any) -> None:
        """Write the next ordered event, or, in the part that is replayed, check that it is the recorded one.

        Only code that runs alone may append: between blocks of concurrent work, never inside.

        Raises:
            JournalError: The resumed run diverges here from the recorded one, because its code, data or seed changed;
                or the file cannot be written.
        """
        check(kind, fields)
        event = jsonable({"kind": kind, **fields})
        with self._lock:
            self._check_writable()
            self._repair()
            place = self._next
            recorded = self._ordered[place] if place < len(self._ordered) else None
            if recorded is None:
                self._write({"kind": kind, "seq": place, "t": self.elapsed, **event})
            self._next = place + 1
        if recorded is not None:
            self._compare(place, event, recorded)
            if self._observers.subscriptions:
                self._observers.put(encode(recorded), replayed=True)
        self._hand_over()

    def _compare(self, place: int, event: Mapping[str, Any], recorded: Mapping[str, Any]) -> None:
        """Check that an event of a resumed run is the recorded one."""
        now, then = timeless(event), timeless({k: v for k, v in recorded.items() if k != "seq"})
        if now != then:
            raise JournalError(
                f"the resumed run diverges from the recorded one at event {place}{differences(then, now)}. "
                + self._why_it_diverges(then, now)
            )

    def _why_it_diverges(self, then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
        if self._begun_by not in ("", version()):
            return (
                f"promptgrad {self._begun_by} began the run, and this is {version()}, which may decide otherwise: "
                "resume it with that version, or start a new run in another folder"
            )
        changed = cause(then, now, self._ordered[0]["kind"])
        if self._begun_as < BY_ROW and self._failures.overtaken:
            changed += (
                f"; or two rows asked the same, and one was refused and the other one answered, which a journal of "
                f"schema {self._begun_as} cannot tell apart"
            )
        return f"{changed}: resume with what it was started with, or start a new run in another folder"

    def record(self, kind: str, key: str, *, scope: str = "", **fields: Any) -> bool:
        """Write a keyed event unless one of this kind and key is on record. Returns whether it was written."""
        check(kind, fields)
        return self._write_once(kind, key, {"key": key, "scope": scope}, fields)

    def note(self, kind: str, *, key: str = "", **fields: Any) -> None:
        """Write an event that is not part of the canonical journal; one with a key is written once a run."""
        check(kind, fields)
        if key:
            self._write_once(kind, key, {"key": key}, fields)
        else:
            self._write({"kind": kind, "t": self.elapsed, **jsonable(fields)})
            self._hand_over()

    def _write_once(self, kind: str, key: str, own: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
        with self._lock:
            known = self._keys.get((kind, key))
            if known is None:
                self._write({"kind": kind, **own, "t": self.elapsed, **jsonable(fields)})
            else:
                self._pass(kind, key, known)
        self._hand_over()
        return known is None

    # ------------------------------------------------------------------------------------------- observing

    def _pass(self, kind: str, key: str, where: tuple[int, int]) -> None:
        """Queue a keyed event or call of an earlier process for the observers, the first time this process needs it."""
        if self._observers.subscriptions and where[0] < self._earlier and (kind, key) not in self._passed:
            self._passed.add((kind, key))
            self._observers.put(self._line(where), replayed=True)

    # --------------------------------------------------------------------------------- for the active run

    def call(self, key: str, scope: str, reply: Mapping[str, Any]) -> None:
        """Write a paid call. The active run calls this before any code uses the reply."""
        with self._lock:
            if key not in self._calls:
                found = jsonable(reply)
                if "content" in found:  # else it is text alone
                    blobs: dict[str, str] = {}
                    found = apart(found, blobs)
                    for digest, data in blobs.items():
                        if digest not in self._blobs:
                            self._write({"kind": "blob", "key": digest, "data": data})
                self._write({"kind": "call", "key": key, "scope": scope, "t": self.elapsed, "reply": found})
        self._hand_over()

    def use(self, key: str, scope: str) -> None:
        """Write that a scope used a paid call of another scope."""
        if (scope, key) in self._uses and not self._observers.subscriptions:
            return  # as most are: a scope asks again for what it asked before
        with self._lock:
            self._pass("call", key, self._calls[key])
            if (scope, key) not in self._uses:
                self._write({"kind": "use", "key": key, "scope": scope})
        self._hand_over()

    def sending(self, key: str) -> None:
        """Write that a call is about to be sent, so that calls lost in a crash can be counted."""
        self._write({"kind": "send", "key": key, "t": self.elapsed})
        self._hand_over()

    def failed(self, key: str, scope: str, error: BaseException, billed: Mapping[str, Any] | None = None) -> None:
        """Write that a call that was sent brought no reply, and its usage if it counts against the budget.

        It is lost if it was cancelled and the run ended there; if the run went on, it is one of those that count.
        """
        usage = {} if billed is None else {"usage": dict(billed)}
        self._write({"kind": "fail", "key": key, "scope": scope, "t": self.elapsed, **Failures.facts(error), **usage})
        self._hand_over()

    def withdraw(self, key: str | None = None) -> None:
        """Write that the run did not go on without a call that failed, or any that did at this place: see `failure`."""
        for failed in self._failures.calls(len(self._ordered)):
            if key is None or (key == failed["key"] and "row" not in failed):
                self._write({"kind": "fail", **failed, "t": self.elapsed, "error": "withdrawn"})
        self._hand_over()

    @property
    def has_failed_rows(self) -> bool:
        """Whether some row went on without an answer at this place, in this process or an earlier one."""
        return self._failures.has_rows(self._next)

    def went_without(
        self, key: str, scope: str, row: str, turn: int, error: BaseException, waited: float | None = None
    ) -> None:
        """Write that a row got no answer to what it asked, whatever others got; in the part that is replayed it is."""
        facts = {**Failures.facts(error), **({} if waited is None else {"waited": waited})}
        call = {} if (known := getattr(error, "call", key)) == key else {"call": known}
        with self._lock:
            told = self._failures.of_row(self._next, key, scope, row, turn) or {}
            if not (self.replaying or facts.items() <= told.items()):
                own = {"key": key, "scope": scope, **asker(row, turn), "t": self.elapsed}
                self._write({"kind": "fail", **own, **call, **facts})
        self._hand_over()

    def got_after_all(self, key: str, scope: str, row: str, turn: int) -> None:
        """Write that a row got an answer to what it had got none to before, if it had."""
        with self._lock:
            if not self.replaying and self._failures.of_row(self._next, key, scope, row, turn) is not None:
                own = {"key": key, "scope": scope, **asker(row, turn), "t": self.elapsed}
                self._write({"kind": "fail", **own, "error": "withdrawn"})
        self._hand_over()

    def mark(self, scope: str, event: str, times: int) -> None:
        """Write that a scope was opened or closed for the `times`-th time, unless an earlier process wrote it."""
        with self._lock:
            if times > self._scopes.get(scope, [0, 0])[event == "close"]:
                self._write({"kind": "scope", "scope": scope, "event": event, "t": self.elapsed})
        self._hand_over()

    # ---------------------------------------------------------------------------------------------- reading

    def reply(self, key: str) -> dict[str, Any] | None:
        """The reply of a paid call, or None where there is none on record."""
        where = self._calls.get(key)
        if where is None:
            return None
        reply: dict[str, Any] = self._event(where)["reply"]
        return together(reply, self._blob) if self._blobs and "content" in reply else reply

    def _blob(self, digest: str) -> str | None:
        """The bytes that are known by a digest, as base64; None where there are none."""
        where = self._blobs.get(digest)
        data: str | None = None if where is None else self._event(where)["data"]
        return data

    def paid_before(self, place: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """The paid calls, each with its reply, that earlier processes wrote before the ordered event of a place."""
        for event in self.events():
            if event.get("seq") == place:
                return
            if event["kind"] == "call":
                yield event["key"], event["reply"]

    def failure(self, key: str, scope: str, row: str | None = None, turn: int = 0) -> LMError | DeadlineError | None:
        """The error with which a call failed for good at this place of the run; None if it is to be answered or sent.

        It did if it got no reply before the next ordered event, and that event is on record or a keyed event names it
        as its `call`. With a `row`, the error without whose answer that row went on, when it had asked `turn` times.
        """
        return self._failures.at(self._next, key, scope, row, turn, decided=self.replaying)

    def given_up_after(self, key: str, scope: str, row: str, turn: int) -> float | None:
        """How long a row waited that gave a call up and went on without it; None where it did not."""
        return (
            (self._failures.of_row(self._next, key, scope, row, turn) or {}).get("waited") if self.replaying else None
        )

    def has(self, key: str) -> bool:
        """Whether a paid call is on record."""
        return key in self._calls

    @property
    def paid(self) -> int:
        """Number of paid calls on record."""
        return self._totals[0]

    @property
    def billed(self) -> tuple[int, int, int, int]:
        """The sums over all calls that brought no reply and count against the budget: see `totals`.

        The server says what it charged for them, or they were given up and it is not known. One that was cancelled is
        among them if the run went on: an ordered event follows, of the same process.
        """
        calls, tokens, money, unpriced = self._billed
        return calls, tokens, money, unpriced

    @property
    def totals(self) -> tuple[int, int, int, int]:
        """The sums over all paid calls on record: calls, tokens, 1e-12 dollars, and calls whose price is unknown."""
        calls, tokens, money, unpriced = self._totals
        return calls, tokens, money, unpriced

    def upcoming(self) -> dict[str, Any] | None:
        """The ordered event that an earlier process wrote at the place of this one; None past the last."""
        with self._lock:
            return dict(self._ordered[self._next]) if self._next < len(self._ordered) else None

    def coming(self) -> Iterator[dict[str, Any]]:
        """The ordered events that earlier processes wrote from the place of this one on."""
        with self._lock:
            events = self._ordered[self._next :]
        yield from map(dict, events)

    def ended(self) -> BudgetExceeded | None:
        """The error with which the budget ended the block of work here in an earlier process; None where it did not."""
        recorded = self.upcoming()
        if recorded is None or recorded["kind"] != EXHAUSTED:
            return None
        return BudgetExceeded("an earlier process of this run ended the search here", kind=recorded["of"])

    @property
    def place(self) -> int:
        """How many ordered events this process wrote, or met in the part that is replayed."""
        return self._next

    @property
    def replaying(self) -> bool:
        """Whether earlier processes wrote ordered events that this one has not reached yet."""
        return self._next < len(self._ordered)

    def canonical(self) -> list[dict[str, Any]]:
        """The events without times: the same for the same seed and replies, at any concurrency, killed or not.

        The ordered events come first, in their order; then the keyed events and the paid calls, sorted, one entry for
        each scope that used a call. Those of a scope that did not end are left out (`unfinished`), since how far it
        came depends on timing; so are those of scopes inside it. Times and notes are left out.
        """
        return fold(self.events())[0]

    def unfinished(self) -> list[dict[str, Any]]:
        """The keyed events and paid calls that `canonical` leaves out because their scope did not end."""
        return fold(self.events())[1]

    def digest(self) -> str:
        """Digest of the canonical journal."""
        state = hashlib.blake2b(digest_size=16)
        for event in self.canonical():
            state.update(json.dumps(event, sort_keys=True, separators=(",", ":")).encode())
        return state.hexdigest()

    # ---------------------------------------------------------------------------------------- what is on record

    def _index(self, event: dict[str, Any], offset: int, length: int) -> None:
        kind = event["kind"]
        if "seq" in event:
            if event["seq"] != len(self._ordered):
                raise JournalError(
                    f"{self.path} is damaged: event {len(self._ordered)} is missing before {show(event)}"
                )
            self._ordered.append(event)
            for given_up in self._given_up:
                self._count_billed(given_up)
            self.lost -= len(self._given_up)
            self._given_up.clear()
        elif kind == "call":
            key = event["key"]
            self._calls[key] = offset, length
            self._uses.add((event["scope"], key))
            self._flying.pop(key, None)
            self._failures.read(len(self._ordered), event)
            usage = event["reply"].get("usage") or {}
            for place, amount in enumerate(amounts(usage)):
                self._totals[place] += amount
        elif kind == "blob":
            self._blobs[event["key"]] = offset, length
        elif kind == "use":
            self._uses.add((event["scope"], event["key"]))
            self._failures.read(len(self._ordered), event)
        elif kind == "send":
            self._flying[event["key"]] = self._flying.get(event["key"], 0) + 1
        elif kind == "fail":
            if "row" not in event:  # else it is said of who asked, not of a call
                self._flying.pop(event["key"], None)
                billed = event.get("usage")
                if event.get("lost") is True:
                    self._given_up.append(amounts(billed or {}))
                    self.lost += 1
                elif billed is not None:
                    self._count_billed(amounts(billed))
            self._failures.read(len(self._ordered), event)
        elif kind == "scope":
            self._scopes.setdefault(event["scope"], [0, 0])[event["event"] == "close"] += 1
        elif kind in ("header", "process"):
            self._check_schema(event)
            if event["schema"] >= SEALED and self._sealed_from is None:
                self._sealed_from = offset
            if kind == "process":
                self._given_up.clear()
                self.lost = self._count_lost()
        elif "key" in event:
            self._keys[kind, event["key"]] = offset, length
            self._failures.read(len(self._ordered), event)

    def _count_billed(self, used: tuple[int, ...]) -> None:
        self._billed = [sum(pair) for pair in zip(self._billed, used, strict=True)]

    def _count_lost(self) -> int:
        self.lost += sum(self._flying.values())
        self._flying.clear()
        return self.lost

    def _repair(self) -> None:
        if self._dirty:
            known = len(self._ordered)
            super()._repair()
            self._next += len(self._ordered) - known

    def __repr__(self) -> str:
        where = "in memory" if self.path is None else str(self.path)
        return f"<Journal {where}: {self.paid} paid calls, {len(self._ordered)} ordered events>"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
