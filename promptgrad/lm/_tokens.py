"""`most_tokens`: how many tokens a text has at most, in whichever tokenizer."""

from __future__ import annotations

from collections.abc import Callable

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
