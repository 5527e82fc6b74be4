"""Special tokens that end a turn, and that a server leaves in, in a reply that is being written."""

from __future__ import annotations

import re
from collections.abc import Iterable

from promptgrad._patterns import late_pattern
from promptgrad.adapters._debris import TURN_BEGINNINGS, TURN_ENDS
from promptgrad.adapters._feed import FieldPiece, ReplyFeed

_ENDS_SO_FAR = late_pattern(rf"(?:(?:{'|'.join(map(re.escape, TURN_ENDS))})\s*)+")
_LONGEST = 200
"""Most characters that are held."""


class TurnEndFeed(ReplyFeed):
    """A feed that is not given the special tokens at the end of a turn: what may become one is held.

    What is held when the reply ends is read with the whole reply.

    Args:
        feed: What reads the rest of the text.
    """

    def __init__(self, feed: ReplyFeed) -> None:
        self._feed = feed
        self._held = ""
        self._is_over = False

    def feed(self, text: str) -> Iterable[FieldPiece]:
        """The pieces that are certain now."""
        if not self._held and "<" not in text:
            return () if self._is_over else self._feed.feed(text)
        return self._sure(text)

    def feed_call(self, index: int, name: str, arguments: str) -> Iterable[FieldPiece]:
        """The pieces that are certain now that a call goes on."""
        return self._feed.feed_call(index, name, arguments)

    def _sure(self, text: str) -> Iterable[FieldPiece]:
        if self._is_over:
            return ()
        text = self._held + text
        start = text.find("<", max(0, len(text) - _LONGEST))
        while start >= 0 and (found := _state_of(text[start:])) is None:
            start = text.find("<", start + 1)
        if start < 0:
            self._held = ""
            return self._feed.feed(text)
        self._is_over = found is True
        sure, self._held = text[:start], text[start:]
        return self._feed.feed(sure) if sure else ()


def _state_of(text: str) -> bool | None:
    """Whether the end of a turn, with which a text begins, is followed by a turn; None where it begins otherwise."""
    ends = _ENDS_SO_FAR.match(text)
    rest = text if ends is None else text[ends.end() :]
    if ends is not None and rest.startswith(TURN_BEGINNINGS):
        return True
    known = TURN_ENDS if ends is None else (*TURN_ENDS, *TURN_BEGINNINGS)
    return False if any(token.startswith(rest) for token in known) else None
