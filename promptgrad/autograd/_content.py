"""Finding a text again inside another: what becomes of provenance that a format string, `json` or `re` has shed.

Words are compared, case-folded and without punctuation, so quotes, stripping, markdown and JSON escapes do not matter.
A producer is recognised by

* a whole field or list item of any length that equals one of its texts, or
* three words in a row, two of them not function words ("one of the" proves nothing), or
* a whole text of 16 or more characters, where there are no three such words: the longest that is there.

Where several producers qualify, the latest counts (of two that worked side by side, the later one in the program) and
the match is called ambiguous. Cost: linear in the words seen.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from promptgrad._patterns import late_pattern

K = TypeVar("K")
P = TypeVar("P")

SPAN = 3
LONG = 16

_WORD = late_pattern(r"\w+")
_ESCAPE = late_pattern(r"\\+(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_BARRIER = "\0"

_FUNCTION_WORDS = frozenset(
    words
    for line in (
        "a about after all also an and any are as at be because been before but by can could did do does for from had",
        "has have he her him his how i if in into is it its just may me more most my no not of on one only or other",
        "our out over she should so some such than that the their them then there these they this those to two up us",
        "was we were what when where which who will with would you your",
    )
    for words in line.split()
)


def words(text: str) -> list[str]:
    """The words of a text, case-folded, with JSON escapes undone."""
    if "\\" in text:
        text = _ESCAPE.sub(_unescape, text)
    return _WORD.findall(text.casefold())


def spans(found: list[str]) -> Iterator[tuple[str, ...]]:
    """Every three words in a row."""
    return zip(found, found[1:], found[2:], strict=False)


def _unescape(match: re.Match[str]) -> str:
    code = match.group(1)
    if len(code) == 5:
        return chr(int(code[1:], 16))
    return " " if code in "nrtbf" else code


def _telling(span: tuple[str, ...]) -> bool:
    return sum(word in _FUNCTION_WORDS for word in span) <= SPAN - 2


@dataclass(frozen=True)
class Match(Generic[P]):  # a NamedTuple cannot be generic before Python 3.11
    """A producer that was recognised."""

    producer: P
    ambiguous: bool


class Explained:
    """Texts that need no producer: inputs of the forward and constants of the program's code.

    Args:
        texts: The texts.
        known: Single words that need no producer either, where they occur among other words.
    """

    def __init__(self, texts: Iterable[str], known: Iterable[str] = ()) -> None:
        self._whole: set[str] = set()
        self._lengths: dict[tuple[str, ...], dict[int, None]] = {}  # of the passages with this beginning
        self._words: set[str] = set(known)
        for text in texts:
            found = words(text)
            joined = " ".join(found)
            if joined not in self._whole:
                self._whole.add(joined)
                self._words.update(found)
                if len(found) >= SPAN:
                    self._lengths.setdefault(tuple(found[:SPAN]), {})[len(found)] = None

    def covers(self, found: Sequence[str]) -> bool:
        """Whether these words, which are a complete text, need no producer."""
        return not found or " ".join(found) in self._whole

    def mask(self, found: list[str]) -> list[str]:
        """The words with every explained passage taken out."""
        taken = [
            (start, start + length)
            for start, span in enumerate(spans(found))
            if span in self._lengths
            for length in self._lengths[span]
            if " ".join(found[start : start + length]) in self._whole
        ]
        if not taken:
            return found
        rest: list[str] = []
        kept = 0
        for start, stop in taken:
            if stop > kept:
                rest += [*found[kept:start], _BARRIER]
                kept = stop
        return rest + found[kept:]

    def knows(self, found: Iterable[str]) -> bool:
        """Whether each of these words occurs in an explained text."""
        return all(word == _BARRIER or word in self._words for word in found)


class Index(Generic[P]):
    """The texts of producers, added in the order in which they finished.

    Args:
        replaces: Of two producers of the same passage, the old and the new one, whether the new one replaces the old.
    """

    def __init__(self, replaces: Callable[[P, P], bool] = lambda old, new: True) -> None:
        self._replaces = replaces
        self._whole: dict[str, Match[P]] = {}
        self._spans: dict[tuple[str, ...], Match[P]] = {}
        self._long: dict[str, Match[P]] = {}
        self._lengths: dict[str, list[int]] = {}  # of the long texts that begin so, the longest first

    def add(self, producer: P, text: str) -> None:
        """Add one text of a producer; the latest to add a passage is the one found by it."""
        found = words(text)
        if not found:
            return
        self._put(self._whole, " ".join(found), producer)
        telling = False
        for span in spans(found):
            if _telling(span):
                telling = True
                self._put(self._spans, span, producer)
        if not telling:
            joined = "".join(found)
            if len(joined) >= LONG:
                self._put(self._long, joined, producer)
                lengths = self._lengths.setdefault(joined[:LONG], [])
                if len(joined) not in lengths:
                    lengths.append(len(joined))
                    lengths.sort(reverse=True)

    def whole(self, found: Sequence[str]) -> Match[P] | None:
        """The producer that has a text of exactly these words."""
        return self._whole.get(" ".join(found))

    def find(self, found: list[str]) -> dict[P, bool]:
        """The producers that these words show traces of, in order of their place, each with whether it is ambiguous."""
        matches: dict[P, bool] = {}
        match = self._whole.get(" ".join(found))
        if match is not None:
            matches[match.producer] = match.ambiguous
            return matches
        if self._spans:
            for span in spans(found):
                match = self._spans.get(span)
                if match is not None:
                    matches[match.producer] = matches.get(match.producer, True) and match.ambiguous
        if self._long:
            joined = "".join(found)
            for start in range(len(joined) - LONG + 1):
                for length in self._lengths.get(joined[start : start + LONG], ()):
                    match = self._long.get(joined[start : start + length])
                    if match is not None:
                        matches[match.producer] = matches.get(match.producer, True) and match.ambiguous
                        break
        return matches

    def span(self, span: tuple[str, ...]) -> Match[P] | None:
        """The producer found by three words."""
        return self._spans.get(span)

    def _put(self, where: dict[K, Match[P]], key: K, producer: P) -> None:
        old = where.get(key)
        if old is None or old.producer is producer:
            where[key] = Match(producer, old is not None and old.ambiguous)
        else:
            where[key] = Match(producer if self._replaces(old.producer, producer) else old.producer, ambiguous=True)
