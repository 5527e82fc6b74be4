"""The words and marks of a text: what every bound on the length of a text counts."""

from promptgrad._patterns import late_pattern

_TOKEN = late_pattern(r"\w+|[^\w\s]")


def tokens(text: str) -> list[str]:
    """The words and punctuation marks of `text`; white space separates and does not count.

    >>> tokens("Answer in one word.")
    ['Answer', 'in', 'one', 'word', '.']
    """
    return _TOKEN.findall(text)
