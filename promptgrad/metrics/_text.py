"""The comparison of texts: by their words, without signs and words that do not change the answer."""

import re
import unicodedata
from typing import Any

from promptgrad._patterns import late_pattern

_NUMBER = r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\d])"
_MARKED = r"\w+(?:[+#*]+(?![\w+#*])|-(?=[\s.,;:!?'\")\]]|\Z))"  # C++, C#, A-
_SIGN = r"[+#*/=<>%&@^±\xd7\xf7√≠≈≤≥]"
_WORD = late_pattern(rf"{_NUMBER}|\.\d+|{_MARKED}|\w+|{_SIGN}", re.UNICODE)
_BULLET = late_pattern(r"^[ \t]*(?:\*|#{1,6})[ \t]+", re.MULTILINE)
_EMPHASIS = late_pattern(r"(?<![\w*])(\*{1,3})([^\s*](?:[^*\n]*[^\s*])?)\1(?![\w*])")
_ARTICLES = frozenset({"a", "an", "the"})


def words(value: Any) -> list[str]:
    """Words of a text: without case, English articles, punctuation of sentences, quotes, brackets and currency signs.

    Other signs count ("C++" is not "C#", "x/y" not "x y", "5%" not "5"), but for the asterisks and number signs of
    Markdown. A hyphen counts at the end of a word ("A-"), not inside. Numbers keep their sign and decimals. If nothing
    else is left, articles and punctuation stay: the label "A" is not an article.

    >>> words("The answer is -1,234.5!")
    ['answer', 'is', '-1234.5']
    """
    text = unicodedata.normalize("NFKC", str(value)).casefold()
    text = text.replace("\N{MINUS SIGN}", "-").replace("\N{FRACTION SLASH}", "/")
    plain = _EMPHASIS.sub(r"\2", _BULLET.sub("", text)) if "*" in text or "#" in text else text
    found = [_plain(word) for word in _WORD.findall(plain)]
    return [word for word in found if word not in _ARTICLES] or found or text.split()


def _plain(word: str) -> str:
    return word.replace(",", "").lstrip("+") if word[-1].isdigit() else word
