"""JSON as models write it: objects and lists that are not quite JSON, in a text that holds other things too.

Only what has a single reading is mended: single quotes, commas before an end, words of Python and JavaScript, keys
without quotes, comments, line breaks in texts. What a reply lacks is never made up, with one exception: the bracket
that closes an object after its last whole value. Time and memory grow with the length of the text alone.
"""

from __future__ import annotations

import json
import re
from typing import Any

from promptgrad._json_pairs import once
from promptgrad._patterns import late_pattern

_TOKENS = 10_000
"""Most tokens of a reply that are mended; longer texts are read where they are JSON."""
_STARTS = 20
"""Most places in a text at which something is read that turns out not to be JSON."""
_VALUES = 500
"""Most objects and lists beside one another in a text, as each is tried."""
_DEEPEST = 60

_BLANK = late_pattern(
    r"(?:\s+|//[^\n]{0,500}(?=\n|\Z)|/\*(?:[^*]|\*(?!/)){0,2000}\*/|#[^\n]{0,500}(?=\n))*"  # none longer is a comment
)
_CLOSED_TEXT = {
    '"': late_pattern(r'"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL),
    "'": late_pattern(r"'([^'\\]*(?:\\.[^'\\]*)*)'", re.DOTALL),
    "“": late_pattern(r"“([^“”]*)”"),
    "«": late_pattern(r"«([^«»]*)»"),
    "「": late_pattern(r"「([^「」]*)」"),
    "`": late_pattern(r"`([^`\n]*)`"),
}
_NUMBER = late_pattern(r"[-+]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?=[\s,\]}/#]|\Z)", re.ASCII)
_DECIMAL = late_pattern(r"(?<![\d.,])\d+,\d+(?!\d)", re.ASCII)
_NEXT_NUMBER = late_pattern(r"\d,\s+[-+]?\d", re.ASCII)
_KEY = late_pattern(r"[A-Za-z_$][\w$-]*|-?\d+(?:\.\d+)?")
_WORD = late_pattern(r"[A-Za-z_$][\w$-]*")
_WORDS = {
    "true": True, "false": False, "null": None, "True": True, "False": False, "None": None, "TRUE": True,
    "FALSE": False, "NULL": None, "undefined": None, "nil": None, "NaN": float("nan"), "Infinity": float("inf"),
}  # fmt: skip
_BARE = late_pattern(r"[^\[\]{},:\"'`\n]+")
_DOUBT = late_pattern(
    r"[/#*]\s*or\b|\b(?:wait|should be|must be|actually|correct(?:ion|ed)|wrong|incorrect|typo|placeholder|draft|dummy|"
    r"todo|fixme|instead|change (?:this|to)|replace|not sure|unsure|maybe|perhaps)\b",
    re.IGNORECASE,
)
_OPENS = late_pattern(r"[\[{]")
_LIST = late_pattern(r"\[[^\[\]]*\]")
_BRACKETS = late_pattern(r"[\[\]{}]")


class Odd(ValueError):
    """A text is not JSON, and has no single reading as JSON."""


class TooLong(Odd):
    """It has more parts, or is deeper, than what is mended."""


def loads(text: str) -> Any:
    """The value of a JSON text. A key that comes twice with different values has no single reading.

    Raises:
        Odd: It is not JSON.
    """
    try:
        value = _decoder.decode(text)
    except RecursionError:
        raise Odd("it is nested too deeply") from None
    except ValueError as error:
        raise Odd(str(error)) from None
    _check_escapes(text)
    return value


def loads_nearly(text: str) -> Any:
    """The value of a text that is one object or list and nothing else, in nearly JSON.

    Raises:
        TooLong: It is too long or too deep to be mended.
        Odd: It has no single reading.
    """
    if not text.lstrip().startswith(("{", "[")):
        raise Odd("it is no object and no list")
    reader = _Reader(text, bare=True)
    value, end = reader.read(0)
    if reader.blank(end) < len(text):
        raise Odd("something follows")
    return value


def values_in(text: str, *, too_long: bool = False) -> list[tuple[int, int, Any]]:
    """The objects and lists in a text, each with its place; those inside others are not listed.

    Args:
        text: The text.
        too_long: Whether what begins at its first bracket was found `TooLong` before, and is not tried again.

    Raises:
        Odd: A bracket does not close, so that what is there may be a part of something that was cut; or there are very
            many.
    """
    ends: dict[int, int] | None = None
    found: list[tuple[int, int, Any]] = []
    at, failed, left = 0, 0, _TOKENS
    while (opened := _OPENS.search(text, at)) is not None:
        start = opened.start()
        try:
            value, at = _decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            if too_long and not found and not failed:
                raise TooLong("it is too long or too deep to be mended") from None
            reader = _Reader(text, left)
            try:
                value, at = reader.read(start)
            except Odd:
                ends = _closings(text) if ends is None else ends
                failed, left = failed + 1, left - reader.used
                if failed > _STARTS or left <= 0 or start not in ends:
                    raise Odd("it has brackets that hold no value") from None
                at = ends[start] + 1
                continue
            left -= reader.used
        else:
            _check_escapes(text[start:at])
        found.append((start, at, value))
        if len(found) > _VALUES:
            raise Odd(f"it holds more than {_VALUES} objects and lists")
    return found


def has_torn_numbers(text: str) -> bool:
    """Whether the commas of a list may stand within its numbers.

    "[1,000, 2]" is one thousand and two, or three; and so are the decimals of "[0,5, 1,5]".
    """
    if _DECIMAL.search(text) is None or (opened := _OPENS.search(text)) is None:
        return False
    bare = _CLOSED_TEXT['"'].sub('""', text[opened.start() :])
    return any(_DECIMAL.search(items) and _NEXT_NUMBER.search(items) for items in _LIST.findall(bare))


def _closings(text: str) -> dict[int, int]:
    """Where each bracket closes that does."""
    ends: dict[int, int] = {}
    opened: list[int] = []
    for count, match in enumerate(_BRACKETS.finditer(text)):
        if count > _TOKENS:
            raise Odd("it has too many brackets")
        sign, at = match[0], match.start()
        if sign in "[{":
            opened.append(at)
        elif opened and (text[opened[-1]] == "[") is (sign == "]"):
            ends[opened.pop()] = at
        else:
            opened.clear()
    return ends


class Exact(float):
    """A number whose text says more than its value as a float."""

    __slots__ = ("text",)

    text: str


def _float(text: str) -> float:
    value = float(text)
    if repr(value) == text:
        return value
    exact = Exact(value)
    exact.text = text
    return exact


_decoder = json.JSONDecoder(object_pairs_hook=once, parse_float=_float, strict=False)


class _Reader:
    """Reads one value of nearly JSON.

    Args:
        text: The text.
        left: Most tokens.
        bare: Whether texts may lack their quotes, and the last brackets may be missing: only where the text holds
            nothing else.
    """

    def __init__(self, text: str, left: int = _TOKENS, *, bare: bool = False) -> None:
        self.text = text
        self.left = left
        self.used = 0
        self.bare = bare

    def read(self, at: int, depth: int = 0) -> tuple[Any, int]:
        self.used += 1
        if self.used > self.left or depth > _DEEPEST:
            raise TooLong("it is too long or too deep to be mended")
        text = self.text
        at = self.blank(at)
        sign = text[at : at + 1]
        if sign == "{":
            return self._read_object(at + 1, depth)
        if sign == "[":
            return self._read_list(at + 1, depth)
        if sign in _CLOSED_TEXT:
            return self._read_text(at)
        number = _NUMBER.match(text, at)
        if number is not None:
            return _number(number[0]), number.end()
        word = _WORD.match(text, at)
        if word is not None and word[0] in _WORDS and self._sign(word.end()) in ("", ",", "]", "}"):
            return _WORDS[word[0]], word.end()
        bare = _BARE.match(text, at) if self.bare else None
        if bare is not None and bare[0].strip() and "..." not in bare[0] and "…" not in bare[0]:
            return bare[0].strip(), bare.end()
        raise Odd("it is not a value")

    def blank(self, at: int) -> int:
        """Where blanks and comments end."""
        sign = self.text[at : at + 1]
        if sign == " ":  # what stands between most values
            at += 1
            sign = self.text[at : at + 1]
        if not sign or not (sign in "/#" or sign.isspace()):
            return at
        found = _BLANK.match(self.text, at)
        if found is None:
            return at
        if not found[0].isspace() and _DOUBT.search(found[0]):
            raise Odd("a comment beside a value may change it")
        if self.text.startswith(("//", "/*"), found.end()):
            raise Odd("a comment does not end")
        return found.end()

    def _sign(self, at: int) -> str:
        """The next sign that counts."""
        at = self.blank(at)
        return self.text[at : at + 1]

    def _read_text(self, at: int) -> tuple[str, int]:
        found = _CLOSED_TEXT[self.text[at]].match(self.text, at)
        if found is None:
            raise Odd("a text does not end")
        if self._sign(found.end()) not in ("", ",", "]", "}", ":"):
            raise Odd("a text ends before its end")
        _check_escapes(found[1])
        return _unescaped(found[1]), found.end()

    def _read_list(self, at: int, depth: int) -> tuple[list[Any], int]:
        items: list[Any] = []
        while True:
            at = self.blank(at)
            if self.text[at : at + 1] == "]":
                return items, at + 1
            item, at = self.read(at, depth + 1)
            items.append(item)
            at = self._comma(at, "]")

    def _read_object(self, at: int, depth: int) -> tuple[dict[str, Any], int]:
        pairs: list[tuple[str, Any]] = []
        while True:
            at = self.blank(at)
            if self.text[at : at + 1] == "}":
                return self._made(pairs), at + 1
            if at >= len(self.text) and pairs and depth == 0 and self._is_whole(pairs[-1][1]):
                return self._made(pairs), at
            if self.text[at : at + 1] in _CLOSED_TEXT:
                key, at = self._read_text(at)
            else:
                word = _KEY.match(self.text, at)
                if word is None:
                    raise Odd("it is not a key")
                key, at = word[0], word.end()
            at = self.blank(at)
            if self.text[at : at + 1] != ":":
                raise Odd("a key has no value")
            value, at = self.read(at + 1, depth + 1)
            pairs.append((key, value))
            at = self._comma(at, "}")

    def _is_whole(self, value: Any) -> bool:
        """Whether the last value before the end of the text, where an object's bracket is missing, has its own end."""
        if not self.bare or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            return False  # a number may have lost digits
        return not isinstance(value, str) or self.text.rstrip()[-1] in "\"'”`"

    def _comma(self, at: int, end: str) -> int:
        at = self.blank(at)
        sign = self.text[at : at + 1]
        if sign == ",":
            if self._sign(at + 1) == ",":
                raise Odd("an item is missing")
            return at + 1
        if sign == end or (not sign and end == "}"):
            return at
        raise Odd("a comma is missing")

    @staticmethod
    def _made(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        try:
            return once(pairs)
        except ValueError as error:
            raise Odd(str(error)) from None


def _number(text: str) -> int | float:
    plain = text.replace("_", "").lstrip("+")
    if len(plain) > 400:
        raise Odd("it is not a number")
    try:
        return int(plain)
    except ValueError:
        return _float(plain)


_LATEX = late_pattern(
    r"(?<!\\)(?:\\\\)*\\(?:frac|forall|flat|beta|bar|binom|begin|big[glr]?|boxed|bmod|because|bf|bot|"
    r"theta|times|text(?:bf|it|rm|tt)?|tilde|triangle|tfrac|nabla|neq(?!\.)|notin|rho|right(?:arrow)?|rangle|rfloor|rceil)"
    r"(?![A-Za-z])"
)
"""Commands of LaTeX that begin like the escapes of JSON: "\\frac" would be a form feed and "rac"."""
_NO_ESCAPE = late_pattern(r"(?<!\\)(?:\\\\)*\\[ac-eg-mo-qsv-zA-Z]")
_OF_PATTERN_OR_PATH = late_pattern(r"(?<!\\)(?:\\\\)*(?:\\[bf][A-Za-z]|(?<![A-Za-z])[A-Za-z]:\\[nrt][A-Za-z])")


def _check_escapes(text: str) -> None:
    """Refuse texts of JSON whose backslashes are those of LaTeX, a regular expression or a path.

    Raises:
        Odd: Some of them are read as control signs, which nobody meant.
    """
    if "\\" in text and (_LATEX.search(text) or (_OF_PATTERN_OR_PATH.search(text) and _NO_ESCAPE.search(text))):
        raise Odd("a backslash in a text is that of an escape: write each that belongs to the text twice")


_ESCAPE = late_pattern(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_SIGNS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "\n": ""}


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    made = _ESCAPE.sub(_unescape, text)
    return made.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")  # halves become one sign


def _unescape(match: re.Match[str]) -> str:
    sign = match[1]
    if len(sign) == 5:
        return chr(int(sign[1:], 16))
    if sign in _SIGNS:
        return _SIGNS[sign]
    return sign if sign in "\"'\\/`" else match[0]


def in_fence(text: str) -> str:
    """The inside of a code fence around a whole text; any other text as it is."""
    if not text.startswith("```") or not text.endswith("```") or len(text) < 7 or text.find("```", 3) != len(text) - 3:
        return text
    head, _, body = text[3:-3].partition("\n")
    return body.strip() if body.strip() and not set(head) & set("[{\"'") else text[3:-3].strip()
