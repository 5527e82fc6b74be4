"""The XML adapter's replies as they are written: fields between their tags."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from promptgrad._patterns import late_pattern
from promptgrad.adapters._feed import SLICE, FieldPiece, ReplyFeed, TextBody, TypedBody
from promptgrad.adapters._shield import EDGE, unguard, unguard_start

if TYPE_CHECKING:
    from promptgrad.adapters._xml import XMLFormat

_MAY_BE_TAG = late_pattern(r"<\\{0,50}(?:/?(?:[^<>\s]{1,80}(?:[ \t][^<>\n]{0,200})?)?)?\Z")
"""What may be the beginning of a tag, of an escaped one or of CDATA, at the end of what has come."""
_CDATA = "<![CDATA["


class XMLFeed(ReplyFeed):
    """Streams what stands between the tags of each output; a reply without tags, or with CDATA, is read at its end."""

    def __init__(self, form: XMLFormat) -> None:
        self._form = form
        self._text = ""  # not processed yet
        self._is_off = False
        self._within = ""
        self._body: TextBody | TypedBody | None = None
        self._has_begun = False  # the body holds more than blanks
        self._closed: set[str] = set()
        self._aside: list[str] | None = None  # text behind the tag of another field, which may be in the body

    def feed(self, text: str) -> Iterable[FieldPiece]:
        """The pieces that are certain now."""
        for at in range(0, len(text), SLICE):
            if self._is_off:
                return
            self._text += text[at : at + SLICE]
            yield from self._read()

    def _read(self) -> Iterator[FieldPiece]:
        text, at = self._text, 0
        while not self._is_off:
            opens = text.find("<", at)
            yield from self._grow(text[at:] if opens < 0 else text[at:opens])
            if opens < 0:
                at = len(text)
                break
            at = opens
            tag, escaped = self._form.tag.match(text, at), self._form.escaped_tag.match(text, at)
            if tag is not None:
                at = tag.end()
                yield from self._at_tag(self._form.field_of(tag[2]), tag[0], closes=bool(tag[1]))
            elif escaped is not None:
                at = escaped.end()
                yield from self._grow(f"<{escaped[1]}{escaped[2]}")
            elif _MAY_BE_TAG.match(text, at):
                break
            elif text.startswith(_CDATA, at) and not self._has_begun:
                self._body, self._has_begun = None, True
            else:
                at += 1
                yield from self._grow("<")
        self._text = text[at:]

    def _grow(self, text: str) -> Iterator[FieldPiece]:
        self._has_begun = self._has_begun or bool(text.strip())
        if self._aside is not None:
            self._aside.append(text)
        elif self._body is not None and text:
            yield from self._body.grow(text)

    def _at_tag(self, name: str, written: str, *, closes: bool) -> Iterator[FieldPiece]:
        if not self._within:
            if closes or name in self._closed or name not in self._form.signature.outputs:
                self._is_off = True  # a reply in another form
                return
            self._within, self._body, self._has_begun = name, self._body_of(name), False
        elif closes and name == self._within:
            aside, self._aside = "".join(self._aside or ()), None
            yield from self._grow(aside)
            if self._body is not None:
                yield from self._body.close()
            self._closed.add(name)
            self._within, self._body = "", None
        else:
            if not closes and self._aside is None:
                self._aside = []  # if its own end does not come, the other field begins here
            yield from self._grow(written)

    def _body_of(self, name: str) -> TextBody | TypedBody:
        """What reads the body of an output; tags that were escaped have lost their backslash."""
        field, read = self._form.signature.outputs[name], self._form.readers[name]
        if not field.is_text:
            return TypedBody(field, _whole, read or str)
        return TextBody(name, _whole, EDGE, unguard_start, read)


def _whole(body: str) -> str:
    return unguard(body.strip())
