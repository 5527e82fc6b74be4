"""`words`: the words of a text, in any script, for comparison by words."""

from __future__ import annotations

from promptgrad._patterns import late_pattern

# Scripts without blanks between words: Thai, Lao, Myanmar, Khmer, Japanese kana, and the signs of Chinese and Japanese.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003134f"
)
_WORD = late_pattern(rf"[{_UNSPACED}]+|[^\W{_UNSPACED}]+")
_LONG = late_pattern(rf"[{_UNSPACED}]")


def words(text: str) -> list[str]:
    """The words of a text without case and signs; where a script has no blanks between words, pairs of its signs.

    >>> words("Type-2 diabetes, and 東京都")
    ['type', '2', 'diabetes', 'and', '東京', '京都']
    """
    found: list[str] = _WORD.findall(text.casefold())
    if text.isascii() or not _LONG.search(text):
        return found
    split: list[str] = []
    for word in found:
        if len(word) > 1 and _LONG.match(word):
            split += [word[place : place + 2] for place in range(len(word) - 1)]
        else:
            split.append(word)
    return split
