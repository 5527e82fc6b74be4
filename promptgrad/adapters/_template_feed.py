"""The replies of a template as they are written: what stands between its literal texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from promptgrad.adapters._feed import SLICE, FieldPiece, ReplyFeed, TextBody, TypedBody
from promptgrad.adapters._shield import EDGE, THOUGHTS, unguard, unguard_start
from promptgrad.adapters._values import is_verbatim
from promptgrad.signature import Field

_AT_THE_START = (
    *("```think", "```thought", "```reason", "Thinking...", "analysis", "Here is my thought process", "<details"),
    *("Here's my thought process", "Here are my reasoning steps", "/think", "&lt;think", "[think"),
    *(
        "<reason",
        "<thought",
        "<analysis",
        "<reflection",
        "<scratch",
        "<inner",
        "<internal",
        "<monologue",
        "<chain",
        "<cot",
    ),
)
"""How thoughts begin that only the whole reply shows to be some; of a reply without words before its first place."""
_BLANKS = 100
"""Most blanks in and before a literal text: with more it is only found at the end of the reply."""


class TemplateFeed(ReplyFeed):
    """Streams the places of `reply=`, or the whole reply where it is the value of the only output.

    As many characters as the next literal text has are held, since they may be its beginning.

    Args:
        pieces: For each place, the literal text before it, the pattern that finds it, and the output; "" at the end.
        outputs: The fields.
        read: Function that gives the value of a field from its text.
    """

    def __init__(
        self,
        pieces: Sequence[tuple[str, re.Pattern[str] | None, str]],
        outputs: dict[str, Field],
        read: Callable[[Field, str], Any],
    ) -> None:
        self._left = [piece for piece in pieces if piece[1] is not None or piece[2]]
        self._outputs = outputs
        self._read = read
        self._text = ""
        self._at = 0  # what stands before it was given or is passed
        self._body: TextBody | TypedBody | None = None
        self._is_first = bool(self._left and not self._left[0][0].strip())  # a place with which the reply begins

    def feed(self, text: str) -> Iterable[FieldPiece]:
        """The pieces that are certain now."""
        for at in range(0, len(text), SLICE):
            self._text += text[at : at + SLICE]
            yield from self._take()

    def _take(self) -> Iterator[FieldPiece]:
        while self._left and (place := self._next()) is not None:
            yield from self._grow(place[0])
            if self._body is not None:
                yield from self._body.close()
            self._at = place[1]
            _, _, name = self._left.pop(0)
            self._body = self._body_of(name) if name else None
        sure = self._sure()
        if self._body is not None:
            yield from self._grow(sure)
        self._at = sure
        passed = max(0, sure - 1)  # the sign before says whether a line begins
        self._text, self._at = self._text[passed:], sure - passed

    def _next(self) -> tuple[int, int] | None:
        """Where the next literal text stands; None if it has not come."""
        mark = self._left[0][1]
        if mark is None:
            return self._at, self._at
        found = mark.search(self._text, self._at)
        return None if found is None else found.span()

    def _sure(self) -> int:
        """The end of what cannot belong to the next literal text, nor to few blanks before it."""
        text, end = self._text, len(self._text)
        left = len("".join(self._left[0][0].split())) if self._left else 0
        first = max(self._at, end - left - _BLANKS)
        while left and end > first:
            end -= 1
            left -= not text[end].isspace()
        return first + len(text[first:end].rstrip())

    def _grow(self, end: int) -> Iterator[FieldPiece]:
        if self._body is not None and end > self._at:
            yield from self._body.grow(self._text[self._at : end])
            self._at = end

    def _body_of(self, name: str) -> TextBody | TypedBody:
        field, thoughts = self._outputs[name], (THOUGHTS + _AT_THE_START if self._is_first else THOUGHTS)
        self._is_first = False

        def read(text: str) -> Any:
            return self._read(field, text)

        if not is_verbatim(field):
            return TypedBody(field, _whole, read)
        return TextBody(name, _whole, EDGE, unguard_start, read, thoughts)


def _whole(body: str) -> str:
    return unguard(body.strip())
