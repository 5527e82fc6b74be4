"""The calls without which a run went on: they fail again when it is resumed, though they might succeed now."""

from collections.abc import Iterator, Mapping
from typing import Any

from promptgrad.errors import LMError, LMStatusError, kind_of, recall


class Failures:
    """The failed calls of a journal, by place: the number of ordered events before them.

    A call that failed has no reply on record, and a run that went on without it would decide otherwise with one. So a
    resumed run must not ask again, unless the process ended while it waited for that call, perhaps to send it again.
    """

    def __init__(self) -> None:
        self._events: dict[tuple[int, str], Mapping[str, Any]] = {}  # of calls that no scope got a reply to
        self._own: dict[tuple[int, str, str], Mapping[str, Any]] = {}  # of calls that this scope got no reply to
        self._given_up: set[tuple[int, str]] = set()

    @staticmethod
    def facts(error: BaseException) -> dict[str, Any]:
        """What is written of an error; with a `message` if it is one of a language model, which `at` makes again."""
        if isinstance(error, LMError):
            status = {"status": error.status} if isinstance(error, LMStatusError) else {}
            return {"error": kind_of(error), "message": str(error), **status}
        # Ctrl-C and cancelled tasks do not say that the call failed: it may be answered, and paid
        return {"error": type(error).__name__, **({} if isinstance(error, Exception) else {"lost": True})}

    def read(self, place: int, event: Mapping[str, Any]) -> None:
        """Take note of an event that says how a call ended, or that it was given up."""
        kind, key, scope = event["kind"], event["key"], event.get("scope", "")
        if kind == "fail" and "message" in event:
            self._events[place, key] = self._own[place, scope, key] = event
        elif kind in ("call", "fail", "use"):
            self._events.pop((place, key), None)
            self._own.pop((place, scope, key), None)
        elif "call" in event:
            self._given_up.add((place, str(event["call"])))

    def calls(self, place: int) -> Iterator[tuple[str, str]]:
        """The calls that failed at a place, each with its scope."""
        return ((scope, key) for known, scope, key in list(self._own) if known == place)

    def at(self, place: int, key: str, scope: str, *, decided: bool) -> LMError | None:
        """The error of a call that failed for good, made again; `decided` where an ordered event follows.

        Scopes run side by side: one may have gone on without the reply that another one got to the same request.
        """
        event = self._events.get((place, key)) or self._own.get((place, scope, key))
        if event is None or not (decided or (place, key) in self._given_up):
            return None
        return recall({**event, "type": event.get("error")})
