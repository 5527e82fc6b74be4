"""`most_tokens` and `likely_tokens`: how many tokens a text has, at most and by an estimate."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable
from math import ceil

from promptgrad._patterns import late_pattern

_LETTERS = bytes([*range(65, 91), *range(97, 123)])
_RUN = 7
"""Letters in a row that count one token more."""


def _table(kind: Callable[[str], str]) -> bytes:
    """For `bytes.translate`: the kind of each letter, and a blank for all else."""
    return bytes([ord(kind(chr(byte))) if byte in _LETTERS else 32 for byte in range(256)])


_SOUND = _table(lambda letter: "v" if letter in "aeiouAEIOU" else "y" if letter in "yY" else "c")
_CASE = _table(lambda letter: "a" if letter.islower() else "A")
_ANY = _table(lambda letter: "x")


def most_tokens(text: str) -> int:
    """Return a number of tokens that a text does not exceed, in the tokenizers in use.

    A tokenizer makes at most one token of a byte. Letters count a third, as words are made of pieces; everything else,
    blanks, digits, marks and all that is not ASCII, counts in full. What is not made of words has shorter pieces, and
    counts more: three consonants or vowels in a row, a capital after a small letter, long runs, letters by themselves.
    """
    raw = text.encode("utf-8", "surrogatepass")
    others = len(raw.translate(None, _LETTERS))
    letters = len(raw) - others
    sounds, runs = raw.translate(_SOUND), raw.translate(_ANY)
    odd = 2 * (sounds.count(b"ccc") + sounds.count(b"vvv")) + raw.translate(_CASE).count(b"aA")
    odd += runs.count(b"x" * _RUN) + runs.count(b" x ") * 4 // 3 + 2
    return min(letters, letters // 3 + odd) + others + 1


_WORD = late_pattern("[A-Z]?[a-z]+|[A-Z]+")
_DIGITS = late_pattern("[0-9]+")
_BLANKS = late_pattern(r"\s\s+|[\n\t]")
_MARKS = late_pattern(r"[!-/:-@\[-`{-~]+")
_ACCENTED = late_pattern("[\u00c0-\u024f\u1e00-\u1eff]")
_OTHER = late_pattern("[^\x00-\x7f]")
_STARTS = (0x250, 0x590, 0x700, 0xE00, 0x1100, 0x1E00, 0x2000, 0x2070, 0x3000, 0x4E00, 0xA000, 0xE000, 0x10000)
_COSTS = (1.0, 0.75, 1.15, 1.4, 1.9, 1.2, 1.3, 1.2, 2.2, 1.5, 1.6, 1.4, 1.6, 3.0)
"""Tokens of a sign by its place in Unicode: accented Latin, Greek and Cyrillic, Arabic, Indic, Thai, ..., emoji."""
_LONG = 16
"""Letters from which on a run of them is no word."""


def likely_tokens(text: str) -> int:
    """Estimate the tokens of a text: above what the tokenizers in use make of prose, code and JSON.

    Measured beside the largest count of GPT-4's, GPT-4o's, Claude's and DeepSeek's tokenizers: 1.4 times for English
    and for code, 1.0 to 1.4 times for the messages of an editor in 16 other languages. Single sentences of long words
    (Finnish), and letters that are no words, may be more than estimated; `most_tokens` is not exceeded, and is twice to
    three times the count for prose.
    """
    piece = 3 if 50 * len(_ACCENTED.findall(text)) > len(text) else 4
    size = 0.0
    for word in _WORD.findall(text):
        count = len(word)
        size += (1 if count <= piece else ceil(count / piece)) if count <= _LONG else 0.65 * count
        if count > 2 and word.isupper():
            size += 0.3 * count
    size += sum([max(2, len(digits)) for digits in _DIGITS.findall(text)])
    size += sum([1 + len(blanks) // 8 for blanks in _BLANKS.findall(text)])
    size += sum(
        [(len(marks) + 1) // 2 if len(set(marks)) > 1 else 1 + len(marks) // 4 for marks in _MARKS.findall(text)]
    )
    size += sum([_COSTS[bisect(_STARTS, ord(sign))] for sign in _OTHER.findall(text)])
    return ceil(1.08 * size) + 1
