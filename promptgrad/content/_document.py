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

    Where a document is asked for, a text is one without a title.

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

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Its fields, or a text."""
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(_of_text, handler(source))

    def __str__(self) -> str:
        return f"{self.title}\n{self.text}" if self.title else self.text

    def __repr__(self) -> str:
        named = self.title or " ".join(self.text.split())
        named = named if len(named) <= _SHORT else f"{named[: _SHORT - 3]}..."
        return f"Document({named!r}, {len(self.text):,} characters)"


@dataclass(frozen=True, slots=True)
class Citation:
    """A passage that a reply cites, for outputs such as `citations: list[Citation]`.

    Where the provider gives citations of its own (Anthropic of documents, OpenAI, Perplexity and others of pages that
    they searched), they are the value; else the model writes them.

    Args:
        document: The number of the document in its list, from 1; 0 for what is none of the given ones, such as a page.
        quote: Its words, as the model or the provider gave them; empty where only the place is told.
        title: The title of the document or page, as the provider gave it.
        source: The address of a page, or the name or id of a file, as the provider gave it.
        said: The words of the reply that it supports, where the provider tells them.
    """

    document: int
    quote: str
    title: str = ""
    source: str = ""
    said: str = ""

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
        found = {"document": self.document, "quote": self.quote}
        told = {"title": self.title, "source": self.source, "said": self.said}
        return {**found, **{name: value for name, value in told.items() if value}}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Written as `to_dict` gives it, without what nobody told."""
        from pydantic_core import core_schema

        found = handler(source)
        found["serialization"] = core_schema.plain_serializer_function_ser_schema(_plain)
        return found

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        """What a model is asked for: the other fields are a provider's."""
        found = handler.resolve_ref_schema(handler(schema))
        found["properties"] = {name: found["properties"][name] for name in ("document", "quote")}
        found["required"] = ["document", "quote"]
        found["description"] = "A passage that a reply cites."
        made: dict[str, Any] = found
        return made


def _of_text(value: Any) -> Any:
    return {"text": str(value)} if isinstance(value, str) else value


def _alike(text: str) -> str:
    """A text of the same length in which signs that are often exchanged are one."""
    return "".join([_ALIKE.get(sign, sign) for sign in text])


def _plain(value: Any) -> Any:
    return value.to_dict() if isinstance(value, Citation) else value
