"""Finding labelled tickets in any text: a ticket, and behind it what is said of the answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from worlds import _tickets
from worlds._rules import CODE, CODES
from worlds._tickets import Ticket

_CODE = CODE.pattern
_EXPECTED = re.compile(
    r"(?:expected|(?:right|correct) (?:answer|code)|should (?:be|have been)|ought to be|must be|gold)"
    rf"(?:(?!{_CODE})[^.\n]){{0,30}}({_CODE})",
    re.IGNORECASE,
)
_WRONG = re.compile(
    r"\b(?:wrong|incorrect|not right|not correct)\b|score\W{1,6}0(?:\.0+)?\b(?!\.)|right\W{1,4}false", re.I
)
_RIGHT = re.compile(r"\b(?:right|correct)\b|score\W{1,6}1(?:\.0+)?\b", re.IGNORECASE)
_SPAN = 1200


@dataclass(frozen=True)
class Shown:
    """One ticket as a prompt shows it, with what the prompt tells of its answer.

    Attributes:
        ticket: The ticket.
        allowed: The codes that may be right, as the prompt tells; every code where it says nothing.
        output: What was answered; None where the prompt does not say.
    """

    ticket: Ticket
    allowed: frozenset[str]
    output: str | None = None

    @property
    def label(self) -> str | None:
        """The right code, where it is known."""
        return next(iter(self.allowed)) if len(self.allowed) == 1 else None


def told(text: str) -> tuple[frozenset[str], str | None]:
    """What a text that follows a ticket says: the codes that may be right, and what was answered."""
    first = CODE.search(text)
    if first is None:
        return frozenset(CODES), None
    expected = _EXPECTED.search(text)
    output: str | None = first[0]
    if expected is not None:
        if expected.start(1) == first.start():  # the label stands before the answer, or there is no answer
            later = CODE.search(text, first.end())
            output = later[0] if later and not _EXPECTED.search(text, later.start() - 30, later.end()) else None
        return frozenset({expected[1].upper()}), output
    if _WRONG.search(text):
        return frozenset(CODES) - {first[0]}, output
    return frozenset({first[0]}), output


def find_rows(text: str, *, least: bool = False) -> list[Shown]:
    """Every ticket that a text shows with an answer, once; of its mentions the one that says most, or least.

    The ticket itself may stand apart from the mention with the answer, as where a run is shown from beginning to end.
    """
    found = _tickets.find(text)
    chosen: dict[int, Ticket] = {}
    for ticket, _, _ in found:
        chosen[ticket.number] = (min if least else max)(chosen.get(ticket.number, ticket), ticket, key=_said)
    rows: dict[int, Shown] = {}
    for index, (ticket, _, end) in enumerate(found):
        stop = found[index + 1][1] if index + 1 < len(found) else len(text)
        allowed, output = told(text[end : min(stop, end + _SPAN)])
        known = rows.get(ticket.number)
        if known is not None:
            sure = known.allowed & allowed or allowed
            rows[ticket.number] = Shown(chosen[ticket.number], sure, known.output or output)
        elif len(allowed) < len(CODES) or output is not None:
            rows[ticket.number] = Shown(chosen[ticket.number], allowed, output)
    return list(rows.values())


def without_tickets(text: str) -> str:
    """The text without the tickets in it."""
    parts, end = [], 0
    for _, start, stop in _tickets.find(text):
        parts.append(text[end:start])
        end = stop
    return "".join([*parts, text[end:]])


def is_right(text: str) -> bool:
    """Whether a text says of an answer that it is right."""
    return _RIGHT.search(text) is not None and _WRONG.search(text) is None


def _said(ticket: Ticket) -> int:
    return sum(getattr(ticket, name) is not None for name in _tickets.ATTRIBUTES)
