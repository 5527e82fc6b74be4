"""The embedded model's replies as they are written: words, and markers between fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from promptgrad._patterns import late_pattern
from promptgrad.adapters._feed import FieldPiece, ReplyFeed

_PART = late_pattern(r"\[\[(\w+)\]\]|\s+|[^\s\[]+|\[(?!\[|\Z)|\[\[(?!\w{0,40}\]?\Z)")


class PocketFeed(ReplyFeed):
    """Streams texts word by word, with one blank between words; what comes twice or is a list is read at the end.

    Args:
        first: The marker that the prompt ends with.
        fields: The text that each marker begins, by the names of the markers.
    """

    def __init__(self, first: str, fields: Mapping[str, str]) -> None:
        self._first = first
        self._fields = dict(fields)
        self._text = ""
        self._field = self._fields.pop(first, "")
        self._given: list[str] = []
        self._blank = ""

    def feed(self, text: str) -> Iterable[FieldPiece]:
        """The pieces that are certain now."""
        self._text += text
        at = 0
        while (part := _PART.match(self._text, at)) is not None:
            at = part.end()
            if part[1] is not None:
                if self._given or part[1] != self._first:
                    if self._given and self._field:
                        yield FieldPiece("value", self._field, "".join(self._given))
                    self._field, self._given = self._fields.pop(part[1], ""), []
            elif part[0].isspace():
                self._blank = " "
                continue
            elif self._field:
                word = self._blank + part[0] if self._given else part[0]
                self._given.append(word)
                yield FieldPiece("delta", self._field, word)
            self._blank = ""
        self._text = self._text[at:]
