"""A reply that is one JSON object with the outputs as keys, as it is written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from promptgrad._patterns import late_pattern
from promptgrad.adapters._feed import FieldPiece
from promptgrad.adapters._nearly_json import Odd, loads
from promptgrad.adapters._partial import PartialReader
from promptgrad.adapters._shield import THOUGHTS, is_beginning, may_be_shielded
from promptgrad.adapters._stepped_feed import SteppedFeed
from promptgrad.adapters._values import is_verbatim
from promptgrad.errors import ParseError
from promptgrad.signature import Field

_KEY = late_pattern(r'\s*"((?:[^"\\]|\\.)*)"\s*:\s*', re.DOTALL)
_MAY_BE_KEY = late_pattern(r'\s*(?:"(?:[^"\\]|\\.)*(?:\\?\Z|"\s*\Z))?', re.DOTALL)
_START = late_pattern(r"\s*(?:```\w*[ \t]*\n\s*)?\{")
_MAY_BE_START = late_pattern(r"\s*(?:`{0,3}|```\w*[ \t]*(?:\n\s*)?)\Z")
_PLAIN = late_pattern(r'[^"\\]+')
_SIMPLE = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_UNICODE = late_pattern(r"\\u([0-9a-fA-F]{4})")
_AFTER = late_pattern(r"\s*([,}])")
_WINDOW = 500


class ObjectFields(NamedTuple):
    """The outputs that an object is to hold, for the reader of a growing one.

    Attributes:
        outputs: The fields by name.
        name_of: Function that gives the output that a key stands for; "" for none.
        value_of: Function that gives the value of an output, by its name, from its value in the object.
    """

    outputs: Mapping[str, Field]
    name_of: Callable[[str], str]
    value_of: Callable[[str, Any], Any]


class ObjectFeed(SteppedFeed):
    """Streams the values of an object: texts character by character, lists and objects by their complete parts.

    Prose and a fence before the object are passed over. Whatever is not JSON ends the stream: the reply is then read at
    its end, with tolerance.

    Args:
        fields: The outputs.
    """

    def __init__(self, fields: ObjectFields) -> None:
        super().__init__(self._before)
        self._fields = fields
        self._name = ""
        self._given: list[str] = []
        self._start = ""  # the beginning of a text that may be a thought
        self._is_thought = False
        self._parts: PartialReader | None = None
        self._raw: list[str] = []
        self._depth = 0
        self._quoted = self._escaped = False

    def feed(self, text: str) -> Iterable[FieldPiece]:
        """The pieces that are certain now."""
        return self._advance(text)

    def _before(self) -> Iterator[FieldPiece]:
        self._text = self._text.lstrip()
        start = _START.match(self._text)
        if start is not None:
            self._text, self._step = self._text[start.end() :], self._at_key
        elif len(self._text) > _WINDOW or not _MAY_BE_START.match(self._text):
            self._step = self._in_prose
        yield from ()

    def _in_prose(self) -> Iterator[FieldPiece]:
        """Look for an object whose first key is an output."""
        while (at := self._text.find("{")) >= 0:
            key = _KEY.match(self._text, at + 1)
            if key is not None and self._fields.name_of(key[1]):
                self._text, self._step = self._text[at + 1 :], self._at_key
                return
            if key is None and _may_be_key(self._text, at + 1):
                self._text = self._text[at:]
                return
            self._text = self._text[at + 1 :]
        self._text = ""
        yield from ()

    def _at_key(self) -> Iterator[FieldPiece]:
        key = _KEY.match(self._text)
        if key is None:
            if not _may_be_key(self._text, 0):
                self._step = self._off  # the end of the object, or no JSON
            return
        if key.end() == len(self._text):
            self._text = self._text.rstrip()
            return  # the value has not begun
        try:
            name = self._fields.name_of(json.loads(f'"{key[1]}"', strict=False))
        except ValueError:
            self._step = self._off
            return
        self._text = self._text[key.end() :]
        self._name = "" if name in self._closed else name
        field = self._fields.outputs.get(self._name)
        if field is not None and is_verbatim(field) and self._text[0] == '"':
            self._text, self._step = self._text[1:], self._in_text
            self._given, self._start, self._is_thought = [], "", False
            return
        self._parts = PartialReader.of(field) if field is not None and not field.is_text else None
        self._raw, self._depth, self._quoted, self._escaped = [], 0, False, False
        self._step = self._in_value
        yield from ()

    def _in_text(self) -> Iterator[FieldPiece]:
        """The value of a text."""
        made: list[str] = []
        at, text = 0, self._text
        ended = False
        while at < len(text):
            plain = _PLAIN.match(text, at)
            if plain is not None:
                made.append(plain[0])
                at = plain.end()
                continue
            if text[at] == '"':
                after = _AFTER.match(text, at + 1)
                if after is None:
                    text = text[: at + 1] + text[at + 1 :].lstrip()
                    if len(text) > at + 1:
                        self._step = self._off  # a quote inside the text
                ended = after is not None
                break
            read = _read_escape(text, at)
            if read is None:
                break  # not complete
            sign, at = read
            if not sign:
                self._step = self._off  # an escape that JSON does not know
                break
            made.append(sign)
        self._text = text[at:]
        yield from self._give("".join(made))
        if ended:
            if not self._start and not self._is_thought:
                yield from self._end("".join(self._given))
            self._text = self._text[1:]
            self._step = self._after

    def _give(self, text: str) -> Iterator[FieldPiece]:
        if not text or self._is_thought:
            return
        if not self._given:
            text, self._start = self._start + text, ""
            self._is_thought = text.startswith(THOUGHTS)
            if not self._is_thought and (is_beginning(text) or may_be_shielded(text)):
                self._start = text  # it may become one
            if self._is_thought or self._start:
                return
        self._given.append(text)
        yield FieldPiece("delta", self._name, text)

    def _end(self, value: Any) -> Iterator[FieldPiece]:
        self._closed.add(self._name)
        try:
            found = self._fields.value_of(self._name, value)
        except ParseError:
            return  # the whole reply will say so
        yield FieldPiece("value", self._name, found)

    def _in_value(self) -> Iterator[FieldPiece]:
        """The value of a field that is no text, or of a key that is none of the outputs."""
        text, end = self._text, -1
        for at, sign in enumerate(text):
            if self._quoted:
                if self._escaped:
                    self._escaped = False
                elif sign == "\\":
                    self._escaped = True
                elif sign == '"':
                    self._quoted = False
            elif sign == '"':
                self._quoted = True
            elif sign in "[{":
                self._depth += 1
            elif sign in "]}" and self._depth:
                self._depth -= 1
            elif sign in ",}]" and not self._depth:
                end = at
                break
        grown = text if end < 0 else text[:end]
        if self._name:
            self._raw.append(grown)
            if self._parts is not None:
                for part in self._parts.feed(grown):
                    yield FieldPiece("partial", self._name, part)
        self._text = "" if end < 0 else text[end:]
        if end < 0:
            return
        if self._name:
            try:
                yield from self._end(loads("".join(self._raw)))
            except Odd:
                self._step = self._off
                return
        self._step = self._after

    def _after(self) -> Iterator[FieldPiece]:
        """Between a value and the next key."""
        found = _AFTER.match(self._text)
        if found is not None and found[1] == ",":
            self._text, self._step = self._text[found.end() :], self._at_key
        elif found is not None or self._text.strip():
            self._step = self._off  # the end of the object, or no JSON
        else:
            self._text = ""
        yield from ()


def _may_be_key(text: str, start: int) -> bool:
    found = _MAY_BE_KEY.match(text, start)
    return len(text) - start < _WINDOW and found is not None and found.end() == len(text)


def _read_escape(text: str, at: int) -> tuple[str, int] | None:
    """The character that an escape stands for, and its end; None if it is not complete, "" if it is not an escape."""
    if at + 1 >= len(text):
        return None
    if text[at + 1] != "u":
        return _SIMPLE.get(text[at + 1], ""), at + 2
    first = _UNICODE.match(text, at)
    if first is None:
        return None if re.fullmatch(r"\\u[0-9a-fA-F]{0,3}", text[at:]) else ("", at)
    code = int(first[1], 16)
    if not 0xD800 <= code < 0xE000:
        return chr(code), first.end()
    second = _UNICODE.match(text, first.end())
    if second is None:
        return None if re.fullmatch(r"(?:\\(?:u[0-9a-fA-F]{0,3})?)?", text[first.end() :]) else ("", at)
    low = int(second[1], 16)
    if code >= 0xDC00 or not 0xDC00 <= low < 0xE000:
        return "", at  # half of a character
    return chr(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)), second.end()
