"""How texts are compared: as words, without what does not change the answer."""

import re
import unicodedata
from typing import Any

_NUMBER = r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\d])"
_WORD = re.compile(rf"{_NUMBER}|\.\d+|\w+", re.UNICODE)
_ARTICLES = frozenset({"a", "an", "the"})


def words(value: Any) -> list[str]:
    """Words of a text: without case, punctuation and English articles. Numbers keep their sign and decimals.

    If nothing else is left, articles and punctuation stay: the label "A" is not an article.

    >>> words("The answer is -1,234.5!")
    ['answer', 'is', '-1234.5']
    """
    text = unicodedata.normalize("NFKC", str(value)).casefold().replace("\N{MINUS SIGN}", "-")
    found = [_plain(word) for word in _WORD.findall(text)]
    return [word for word in found if word not in _ARTICLES] or found or text.split()


def _plain(word: str) -> str:
    return word.replace(",", "").lstrip("+") if word[-1].isdigit() else word
