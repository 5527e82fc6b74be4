"""The calls without which a run went on: they fail again when it is resumed, though they might succeed now."""

from collections.abc import Iterator, Mapping
from typing import Any

from promptgrad.errors import DeadlineError, LMError, LMStatusError, kind_of, recall


def asker(row: str, turn: int) -> dict[str, Any]:
    """How an event names who asked."""
    return {"row": row, "turn": turn} if turn else {"row": row}


class Failures:
    """The failed calls of a journal, by place: the number of ordered events before them.

    A call that failed has no reply on record, and a run that went on without it would decide otherwise with one. So a
    resumed run must not ask again, unless the process ended while it waited for that call, perhaps to send it again.

    There are two records of a failure: that of a call that was sent, which may have been sent again, and, with a `row`,
    that of who asked and went on without a reply. Two rows may ask the very same, and one of them be refused and the
    other one answered a moment later. So may one row, or the same row of two blocks of work: a `turn` says how often
    the row had asked it before.

    Attributes:
        overtaken: Whether some call got a reply after it had failed: sent again, or asked by another row.
    """

    def __init__(self) -> None:
        self._events: dict[tuple[int, str], Mapping[str, Any]] = {}  # of calls that no scope got a reply to
        self._own: dict[tuple[int, str, str], Mapping[str, Any]] = {}  # of calls that this scope got no reply to
        self.overtaken = False
        self._given_up: set[tuple[int, str]] = set()
        self._rows: dict[
            int, dict[tuple[str, str, str, int], Mapping[str, Any]]
        ] = {}  # by place: scope, row, key, turn

    @staticmethod
    def facts(error: BaseException) -> dict[str, Any]:
        """What is written of an error; with a `message` if the run may go on without an answer, as `at` repeats it."""
        if isinstance(error, LMError):
            status = {"status": error.status} if isinstance(error, LMStatusError) else {}
            return {"error": kind_of(error), "message": str(error), **status}
        if isinstance(error, DeadlineError):
            return {"error": kind_of(error), "message": str(error), "seconds": error.seconds}
        # Ctrl-C and cancelled tasks do not say that the call failed: it may be answered, and paid
        return {"error": type(error).__name__, **({} if isinstance(error, Exception) else {"lost": True})}

    def read(self, place: int, event: Mapping[str, Any]) -> None:
        """Take note of an event that says how a call ended, or that it was given up."""
        kind, key, scope = event["kind"], event["key"], event.get("scope", "")
        if kind == "fail" and "row" in event:
            rows = self._rows.setdefault(place, {})
            asker = scope, event["row"], key, event.get("turn", 0)
            if "message" in event or "waited" in event:
                rows[asker] = event
            else:
                rows.pop(asker, None)
        elif kind == "fail" and "message" in event:
            self._events[place, key] = self._own[place, scope, key] = event
        elif kind in ("call", "fail", "use"):
            self.overtaken |= kind != "fail" and (place, scope, key) in self._own
            self._events.pop((place, key), None)
            self._own.pop((place, scope, key), None)
        elif "call" in event:
            self._given_up.add((place, str(event["call"])))

    def calls(self, place: int) -> Iterator[dict[str, Any]]:
        """The failures at a place: the scope and the key of each, and the row with its turn where it is known."""
        for known, scope, key in list(self._own):
            if known == place:
                yield {"key": key, "scope": scope}
        for scope, row, key, turn in list(self._rows.get(place, ())):
            yield {"key": key, "scope": scope, **asker(row, turn)}

    def has_rows(self, place: int) -> bool:
        """Whether some row got no answer at a place."""
        return place in self._rows

    def of_row(self, place: int, key: str, scope: str, row: str, turn: int) -> Mapping[str, Any] | None:
        """What is on record of a row that got no answer."""
        rows = self._rows.get(place)
        return None if rows is None else rows.get((scope, row, key, turn))

    def at(
        self, place: int, key: str, scope: str, row: str | None = None, turn: int = 0, *, decided: bool
    ) -> LMError | DeadlineError | None:
        """The error of a call that failed for good, made again; `decided` where an ordered event follows.

        Scopes and rows run side by side: one may have gone on without the reply that another one got to the same
        request. Without a `row`, it is the failure of the call.
        """
        if row is not None:
            event = self.of_row(place, key, scope, row, turn)
        else:
            event = self._events.get((place, key)) or self._own.get((place, scope, key))
        if (
            event is None
            or "message" not in event
            or not (decided or {(place, key), (place, event.get("call"))} & self._given_up)
        ):
            return None
        error = recall({**event, "type": event.get("error")})
        error.call = str(event.get("call", key))
        return error
