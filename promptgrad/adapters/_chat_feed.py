"""The chat adapter's replies as they are written: fields in sections, streamed below their markers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from promptgrad._patterns import late_pattern
from promptgrad.adapters._feed import FieldPiece, TextBody, TypedBody
from promptgrad.adapters._object_feed import ObjectFeed, ObjectFields
from promptgrad.adapters._sections import as_text, ends_in_fence, loose_body
from promptgrad.adapters._shield import EDGE, unguard, unguard_start
from promptgrad.adapters._stepped_feed import SteppedFeed
from promptgrad.adapters._values import is_verbatim
from promptgrad.errors import ParseError

if TYPE_CHECKING:
    from promptgrad.adapters._chat import ChatFormat

_BEHIND = "*_` \t:"  # what may stand behind a marker in another form
_SIGNS = ">*#_`~-"  # what may stand around one
_WINDOW = 300
"""Longest marker with its decoration, in characters: how far back one may begin."""
_HEAD = late_pattern(r"([ \t]*)(\\*)")
_MAY_BE_MARKER = late_pattern(r"\[(?:\[[ \t]*(?:#(?:#[ \t]*[^\]\n#]*(?:#(?:#[ \t]*\]?)?)?)?)?)?\Z")
"""The beginning of a marker at the end of what has come."""
_ESCAPES = late_pattern(r"\[\[[ \t]*##")
_MAY_BE_ESCAPED = late_pattern(r"(?:\[(?:\[[ \t]*#?)?)?\Z")
_MAY_BE_LOOSE = late_pattern(r"\[(?:\[[ \t#]{0,9}[\w -]{0,100}[ \t#]{0,9}\]?)?\Z")
"""The beginning of a marker in any of its forms, anywhere in a line."""
_AT_LINE_START = late_pattern(r"(?:\A|\n)[ \t>*#_`~-]*\Z")
_OBJECT = late_pattern(r"\s*(?:```\w*[ \t]*\n\s*)?\{")
_MAY_BE_OBJECT = late_pattern(r"\s*(?:`{0,3}|```\w*[ \t]*(?:\n\s*)?)\Z")


class ChatFeed(SteppedFeed):
    """Streams sections as they are asked for, with bold or cut-down markers, in a code fence, or a JSON object.

    A reply in any other form, such as one without a marker, is read at its end.
    """

    def __init__(self, form: ChatFormat) -> None:
        super().__init__(self._begin)
        self._form = form
        self._loose = form.loose_marker
        self._fenced = False
        self._line_starts = False
        self._only_escapes = False  # right below a marker's line is its line's rest, which may be an escaped marker
        self._opened: set[str] = set()
        self._aside: list[str] | None = None  # text behind what may be a marker in another form
        self._suspects: set[str] = set()  # the fields of such markers
        self._is_inside = False
        self._object: ObjectFeed | None = None

    def feed(self, text: str) -> Iterable[FieldPiece]:
        """The pieces that are certain now."""
        if self._is_inside and "[" not in text and "\n" not in text and self._body is not None:
            return self._body.grow(text)  # inside a line of a section
        return self._read(text)

    def _read(self, text: str) -> Iterator[FieldPiece]:
        yield from self._advance(text)
        self._is_inside = (
            self._step == self._in_sections
            and not (self._text or self._line_starts or self._only_escapes)
            and self._aside is None
        )

    # --- before the first marker ---

    def _begin(self) -> Iterator[FieldPiece]:
        self._text = self._text.lstrip()
        if _OBJECT.match(self._text):
            self._object = ObjectFeed(self._as_object())
            self._step = self._in_object
        elif len(self._text) > _WINDOW or not _MAY_BE_OBJECT.match(self._text):
            self._step = self._in_preamble
        yield from ()

    def _in_object(self) -> Iterator[FieldPiece]:
        text, self._text = self._text, ""
        if self._object is not None:
            yield from self._object.feed(text)

    def _in_preamble(self) -> Iterator[FieldPiece]:
        strict = next((m for m in self._form.marker.finditer(self._text) if self._form.known(m[1])), None)
        loose = next((m for m in self._loose.finditer(self._text) if self._form.is_output(m[1])), None)
        if strict is not None and (loose is None or strict.start() <= loose.start()):
            self._text = self._text[strict.end() :]
            self._open(self._form.known(strict[1]))
            self._step = self._in_sections
        elif loose is not None and _AT_LINE_START.search(self._text[: loose.start()]):
            self._fenced = ends_in_fence(self._text[: loose.start()])
            self._text = self._text[loose.end() :]
            self._open(self._form.is_output(loose[1]), loose=True)
            self._step = self._in_loose_sections
        elif len(self._text) > 2 * _WINDOW:
            kept = self._text.rfind("\n", -2 * _WINDOW, -_WINDOW)
            self._text = self._text[kept:] if kept >= 0 else f".{self._text[-_WINDOW:]}"
        yield from ()

    def _open(self, name: str, *, loose: bool = False) -> None:
        self._opened.add(name)
        self._body = None if name in self._closed else self._body_of(name, loose=loose)
        self._line_starts, self._only_escapes = False, True

    def _body_of(self, name: str, *, loose: bool) -> TextBody | TypedBody:
        """What reads the body of an output; lines that were escaped have lost their backslash."""
        field, read = self._form.signature.outputs[name], self._form.readers[name]
        whole = partial(_loose_whole, fenced=self._fenced) if loose else _whole
        if not is_verbatim(field):
            return TypedBody(field, whole, read or str)
        return TextBody(name, whole, f"{EDGE}{_SIGNS}", _loose_start if loose else unguard_start, read)

    def _as_object(self) -> ObjectFields:
        """The outputs as keys of an object."""
        names = self._form.signature.outputs
        return ObjectFields(names, lambda key: key if key in names else self._form.is_output(key), self._from_object)

    def _from_object(self, name: str, value: Any) -> Any:
        field, read = self._form.signature.outputs[name], self._form.readers[name]
        if value is None and field.is_text:
            raise ParseError(f"output {name!r} is null", reason=f"`{name}` is null")
        text = as_text(field, value)
        return text if read is None else read(text)

    # --- sections as they are asked for ---

    def _in_sections(self) -> Iterator[FieldPiece]:
        while self._text:
            if self._line_starts or self._only_escapes:
                head = _HEAD.match(self._text)
                blanks, slashes, end = head[1], head[2], head.end()  # type: ignore[index, union-attr]
                marker = None if slashes or self._only_escapes else self._form.marker.match(self._text)
                if marker is not None:
                    self._text = self._text[marker.end() :]
                    yield from self._at_marker(marker[1])
                    if self._step != self._in_sections:
                        return
                    continue
                rest = self._text[end : end + _WINDOW]
                if slashes and (sign := _ESCAPES.match(rest)):
                    yield from self._grow(blanks + slashes[1:] + sign[0])
                    self._text = self._text[end + sign.end() :]
                elif end >= _WINDOW:
                    pass  # no marker stands behind so many blanks or backslashes
                elif not rest:
                    return
                elif slashes or not self._only_escapes:
                    may_be = (_MAY_BE_ESCAPED if slashes else _MAY_BE_MARKER).match(rest)
                    if may_be is not None and len(rest) < _WINDOW:
                        return
                self._line_starts = self._only_escapes = False
            line, newline, rest = self._text.partition("\n")
            found = self._loose.search(line)
            if found is not None:
                yield from self._grow(line[: found.start()])
                self._suspect(found[1])
                yield from self._grow(found[0])
                self._text = line[found.end() :] + newline + rest
                continue
            if not newline and (may := _MAY_BE_LOOSE.search(line)):
                yield from self._grow(line[: may.start()])
                self._text = line[may.start() :]
                return
            yield from self._grow(line + newline)
            self._text, self._line_starts = rest, bool(newline)

    def _suspect(self, name: str) -> None:
        """Hold what follows a marker in another form, if it may be that of the end or of a field that has not begun."""
        output = self._form.is_output(name)
        is_new = bool(output) and output not in self._opened
        if is_new:
            self._suspects.add(output)
        if (is_new or self._form.is_end(name)) and self._aside is None:
            self._aside = []

    def _grow(self, text: str) -> Iterator[FieldPiece]:
        if self._aside is not None:
            self._aside.append(text)
        elif self._body is not None and text:
            yield from self._body.grow(text)

    def _at_marker(self, name: str) -> Iterator[FieldPiece]:
        """A marker at the beginning of a line."""
        known, is_end = self._form.known(name), self._form.is_end(name)
        if self._aside is not None and (is_end or known):
            if self._suspects - {known}:
                self._stop()  # a field may have begun under a marker in another form
                return
            text, self._aside = "".join(self._aside), None
            self._suspects.clear()
            yield from self._grow(text)
        yield from self._close()
        if is_end:
            self._stop()
        else:
            self._body = None
            if known:
                self._open(known)
            else:
                self._only_escapes = True

    # --- sections under markers in other forms ---

    def _in_loose_sections(self) -> Iterator[FieldPiece]:
        while (found := self._loose.search(self._text)) is not None:
            yield from self._grow(self._text[: found.start()])
            self._text = self._text[found.end() :]
            yield from self._close()
            name = self._form.is_output(found[1])
            if name:
                self._open(name, loose=True)
            elif self._form.is_end(found[1]):
                self._stop()
                return
        may = _MAY_BE_LOOSE.search(self._text, max(0, len(self._text) - _WINDOW))
        kept = len(self._text) if may is None else may.start()
        text, self._text = self._text[:kept], self._text[kept:]
        yield from self._grow(text)


def _whole(body: str) -> str:
    return unguard(body.strip())


def _loose_whole(body: str, *, fenced: bool) -> str:
    return loose_body(body.lstrip(_BEHIND), fenced=fenced)


def _loose_start(body: str) -> str:
    return body.lstrip(_BEHIND).lstrip()
