"""Documents that a reply may cite, and citations by quoted passages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_SHORT = 40
_ALIKE = {"\N{LEFT SINGLE QUOTATION MARK}": "'", "\N{RIGHT SINGLE QUOTATION MARK}": "'",
          "\N{LEFT DOUBLE QUOTATION MARK}": '"', "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
          "\N{EN DASH}": "-", "\N{EM DASH}": "-", "\N{NO-BREAK SPACE}": " "}  # fmt: skip
_MOST_QUOTED = 10_000


@dataclass(frozen=True, slots=True, repr=False)
class Document:
    """A text with a title, as the value of a field. Several in a list are numbered from 1, for citations.

    Args:
        text: The text.
        title: Its title.
        source: Where it is from, such as an address. It is not shown to the model.
    """

    text: str
    title: str = ""
    source: str = ""

    def find(self, quote: str) -> tuple[int, int] | None:
        """Where the text has a quotation: start and end. Blanks, case, the forms of quotes and dashes may differ."""
        words = [re.escape(word) for word in _alike(quote[:_MOST_QUOTED]).split()]
        found = re.search(r"\s+".join(words), _alike(self.text), re.IGNORECASE) if words else None
        return None if found is None else found.span()

    def to_dict(self) -> dict[str, Any]:
        """It in JSON types."""
        return {"text": self.text, "title": self.title, "source": self.source}

    def __str__(self) -> str:
        return f"{self.title}\n{self.text}" if self.title else self.text

    def __repr__(self) -> str:
        named = self.title or " ".join(self.text.split())
        named = named if len(named) <= _SHORT else f"{named[: _SHORT - 3]}..."
        return f"Document({named!r}, {len(self.text):,} characters)"


@dataclass(frozen=True, slots=True)
class Citation:
    """A passage that a reply cites, for outputs such as `citations: list[Citation]`.

    Args:
        document: The number of the document in its list, from 1.
        quote: Its words, as the model gave them.
    """

    document: int
    quote: str

    def passage(self, documents: Sequence[Document]) -> str | None:
        """The cited words as the document has them; None if it does not, or if there is no such document.

        Args:
            documents: The documents that the model was given.
        """
        if not 1 <= self.document <= len(documents):
            return None
        found = documents[self.document - 1].find(self.quote)
        return None if found is None else documents[self.document - 1].text[slice(*found)]

    def to_dict(self) -> dict[str, Any]:
        """It in JSON types."""
        return {"document": self.document, "quote": self.quote}


def _alike(text: str) -> str:
    """A text of the same length in which signs that are often exchanged are one."""
    return "".join([_ALIKE.get(sign, sign) for sign in text])
