"""The compact adapter's replies as they are written: fields behind their labels, which begin lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from promptgrad._patterns import late_pattern
from promptgrad.adapters._feed import FieldPiece, TextBody, TypedBody
from promptgrad.adapters._sections import opens_fence
from promptgrad.adapters._shield import EDGE, unguard, unguard_start
from promptgrad.adapters._stepped_feed import SteppedFeed
from promptgrad.adapters._values import is_verbatim

if TYPE_CHECKING:
    from promptgrad.adapters._compact import CompactFormat

_HEAD = late_pattern(r"([ \t]*)(\\*)")
_WINDOW = 300
"""Longest label with the blanks and backslashes before it, in characters."""
_FENCE = late_pattern(r"\s*```\w*[ \t]*\n\s*")


class CompactFeed(SteppedFeed):
    """Streams what stands behind each label, a line at a time held only as long as it may be one.

    Before the first label stands nothing, a fence, or a line that announces it. A reply in another form is read at its
    end.
    """

    def __init__(self, form: CompactFormat) -> None:
        super().__init__(self._before)
        self._form = form
        names = "|".join(map(_beginning_of, sorted(form.signature.fields, key=len, reverse=True)))
        self._may_be_label = re.compile(rf"(?:{names})?[ \t]*\Z", re.IGNORECASE)
        self._label = re.compile(form.label.pattern.removeprefix(r"^[ \t]*"), re.IGNORECASE)
        self._fenced = False
        self._opened: set[str] = set()
        self._line_starts = False
        self._only_escapes = False  # right behind a label is its line's rest, which may be an escaped label
        self._is_inside = False

    def feed(self, text: str) -> Iterable[FieldPiece]:
        """The pieces that are certain now."""
        if self._is_inside and "\n" not in text and self._body is not None:
            return self._body.grow(text)  # inside a line
        return self._read(text)

    def _read(self, text: str) -> Iterator[FieldPiece]:
        yield from self._advance(text)
        is_plain = not (self._text or self._line_starts or self._only_escapes)
        self._is_inside = self._step == self._in_lines and is_plain

    def _before(self) -> Iterator[FieldPiece]:
        """Before the first label, which is that of an output."""
        found = self._form.label.search(self._text)
        if found is not None:
            before, name = self._text[: found.start()], self._form.field_of(found[1])
            announced = ":\n" in before and not self._form.is_announced_as_other(self._text)
            is_plain = not before.strip() or announced or _FENCE.fullmatch(before) is not None
            if name not in self._form.signature.outputs or not is_plain:
                self._stop()
                return
            self._fenced = opens_fence(before)
            self._text = self._text[found.end() :]
            self._open(name)
            self._step = self._in_lines
        elif len(self._text) > 2 * _WINDOW:
            self._stop()
        yield from ()

    def _open(self, name: str) -> None:
        self._opened.add(name)
        self._body = None if name in self._closed else self._body_of(name)
        self._line_starts, self._only_escapes = False, True

    def _body_of(self, name: str) -> TextBody | TypedBody:
        """What reads the body of an output; lines that were escaped have lost their backslash."""
        field, read = self._form.signature.outputs[name], self._form.readers[name]
        if not is_verbatim(field):
            return TypedBody(field, _whole, read or str)
        return TextBody(name, _whole, f"{EDGE}`", unguard_start, read)

    def _in_lines(self) -> Iterator[FieldPiece]:
        while self._text:
            if self._line_starts or self._only_escapes:
                head = _HEAD.match(self._text)
                blanks, slashes, end = head[1], head[2], head.end()  # type: ignore[index, union-attr]
                label = self._label.match(self._text, end) if slashes or self._line_starts else None
                if label is not None:
                    self._text = self._text[label.end() :]
                    if slashes:
                        yield from self._grow(blanks + slashes[1:] + label[0])
                        self._line_starts = self._only_escapes = False
                    else:
                        yield from self._at_label(label[1], blanks + label[0])
                        if self._step != self._in_lines:
                            return
                    continue
                rest = self._text[end : end + _WINDOW]
                if len(self._text) < _WINDOW and (
                    not rest or ((slashes or self._line_starts) and self._may_be_label.match(rest))
                ):
                    return
                self._line_starts = self._only_escapes = False
            line, newline, rest = self._text.partition("\n")
            yield from self._grow(line + newline)
            self._text, self._line_starts = rest, bool(newline)

    def _at_label(self, label: str, written: str) -> Iterator[FieldPiece]:
        """A label at the beginning of a line."""
        outputs, name = self._form.signature.outputs, self._form.field_of(label)
        if name in outputs:
            yield from self._close()
            self._open(name)
        elif len(self._opened) == len(outputs):  # an input begins another example
            if not self._fenced:
                yield from self._close()
            self._stop()
        else:
            yield from self._grow(written)
            self._line_starts = False

    def _grow(self, text: str) -> Iterator[FieldPiece]:
        if self._body is not None and text:
            yield from self._body.grow(text)


def _whole(body: str) -> str:
    return unguard(body.strip())


def _beginning_of(name: str) -> str:
    """The pattern of a beginning of a name."""
    pattern = ""
    for letter in reversed(name):
        pattern = f"{re.escape(letter)}(?:{pattern})?" if pattern else re.escape(letter)
    return pattern
