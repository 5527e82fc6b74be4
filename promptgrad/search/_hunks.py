"""Structured edits: hunks that insert, replace or delete at a quoted anchor. They apply exactly, or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

from promptgrad.errors import HunkError

_SHOWN = 40


# The docstring is part of a prompt: it stands in the schema that `Amend` sends.
@dataclass(frozen=True)
class Hunk:
    """One edit of a text, at a place that is told by quoting it.

    Attributes:
        op: "insert" puts `text` directly after the anchor, "replace" puts it in the anchor's place, "delete" takes the
            anchor away.
        anchor: A piece of the text, quoted exactly, that occurs in it once. Of an insert it may be empty: the start.
        text: What is inserted, blanks included; none for "delete".
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    op: Literal["insert", "replace", "delete"]
    anchor: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.op}{' after' if self.op == 'insert' else ''} {_quote(self.anchor)}"


def apply_hunks(text: str, hunks: Sequence[Hunk]) -> str:
    """The text with all hunks applied. Each anchor is looked up in the text as given, so their order does not matter.

    Nothing is repaired or guessed: one hunk that does not fit refuses them all.

    Cost: no LM call; a few passes over the text for each hunk.

    Raises:
        HunkError: There is no hunk; or an anchor is missing, occurs more than once, or overlaps that of another hunk;
            or a hunk contradicts itself, such as a "delete" that has a text.

    >>> apply_hunks("Name the first word.", [Hunk("replace", "first", "last"), Hunk("insert", "word", " in capitals")])
    'Name the last word in capitals.'
    """
    if not hunks:
        raise HunkError("there is no hunk")
    spans = sorted((*_span(text, hunk, number), number) for number, hunk in enumerate(hunks))
    for (first, end, number), (start, stop, other) in pairwise(spans):
        if start < end or first == stop:
            raise _refusal(hunks[other], other, f"overlaps hunk {number + 1} ({hunks[number]})")
    parts: list[str] = []
    done = 0
    for start, end, number in spans:
        hunk = hunks[number]
        parts += [text[done : end if hunk.op == "insert" else start], hunk.text]
        done = end
    return "".join([*parts, text[done:]])


def _span(text: str, hunk: Hunk, number: int) -> tuple[int, int]:
    """Where the anchor begins and ends."""
    reason = ""
    if hunk.op not in ("insert", "replace", "delete"):
        reason = 'is none of "insert", "replace" and "delete"'
    elif hunk.op == "delete" and hunk.text:
        reason = f"brings the text {_quote(hunk.text)}, and a delete has none"
    elif hunk.op != "delete" and not hunk.text:
        reason = "brings no text"
    elif not hunk.anchor:
        if hunk.op == "insert":
            return 0, 0
        reason = "has no anchor"
    elif (start := text.find(hunk.anchor)) < 0:
        reason = "does not apply: its anchor is not in the text"
    elif text.find(hunk.anchor, start + 1) >= 0:
        reason = "does not apply: its anchor occurs more than once"
    else:
        return start, start + len(hunk.anchor)
    raise _refusal(hunk, number, reason)


def _refusal(hunk: Hunk, number: int, reason: str) -> HunkError:
    return HunkError(f"hunk {number + 1} ({hunk}) {reason}", index=number, hunk=hunk)


def _quote(text: str) -> str:
    shown = repr(str(text))
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."
