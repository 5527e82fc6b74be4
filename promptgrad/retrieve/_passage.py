"""`Passage`: a text that an index found, with its id, its score and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptgrad.autograd import Text
from promptgrad.content import Document
from promptgrad.errors import DataError

ID_KEYS = ("id", "doc_id", "_id")
_MOST_SHOWN = 60


class Passage(Text):
    """A `Text` that an index found. It goes anywhere a `str` goes, so `list[str]` is the type of a field of them.

    The text of a passage with a title begins with the title, on a line of its own.

    Args:
        value: The text.
        id: Its id in the index.
        score: How well it fits the query, by the measure of the index that found it; higher is better.
        metadata: What else is known of it; `title` and `source` are among it. Do not change it.
        grad_fn: What produced it.
    """

    __slots__ = ("id", "metadata", "score")

    id: str
    score: float
    metadata: Mapping[str, Any]

    def __new__(
        cls,
        value: object = "",
        id: str = "",
        score: float = 0.0,
        metadata: Mapping[str, Any] | None = None,
        grad_fn: Any = None,
    ) -> Passage:
        passage: Passage = super().__new__(cls, value, grad_fn)  # type: ignore[assignment]
        passage.id = id
        passage.score = score
        passage.metadata = {} if metadata is None else metadata
        return passage

    @property
    def document(self) -> Document:
        """It as a `Document`, for fields whose replies cite: `documents: list[Document] -> answer, citations`."""
        title = str(self.metadata.get("title", ""))
        text = self.removeprefix(f"{title}\n") if title else self
        return Document(text, title, str(self.metadata.get("source", "")))

    def scored(self, score: float) -> Passage:
        """The same passage with another score."""
        return Passage(str(self), self.id, score, self.metadata, self.grad_fn)

    def _produced_by(self, grad_fn: Any) -> Passage:
        return Passage(str(self), self.id, self.score, self.metadata, grad_fn)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Passage, (str(self), self.id, self.score, dict(self.metadata)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Passage:
        return Passage(str(self), self.id, self.score, self.metadata)

    def __repr__(self) -> str:
        flat = " ".join(self.split())
        shown = flat if len(flat) <= _MOST_SHOWN else f"{flat[: _MOST_SHOWN - 3]}..."
        return f"Passage({shown!r}, id={self.id!r}, score={self.score:.4g})"


def read_passage(item: Any, place: int) -> tuple[str, str | None, dict[str, Any] | None]:
    """The text, the id and the metadata of what a user gave as a passage.

    Args:
        item: A text; a mapping, or anything else with keys, that has a `text`; or a `Document`.
        place: Its number among those given, for errors.

    Raises:
        DataError: It is none of these, its text is none, or its id is neither a text nor a whole number.
    """
    if isinstance(item, Passage):
        return str(item), item.id or None, dict(item.metadata) or None
    if isinstance(item, str):
        return str(item), None, None
    if isinstance(item, Document):
        said = {name: value for name, value in (("title", item.title), ("source", item.source)) if value}
        return str(item), None, said or None
    if not (hasattr(item, "keys") and hasattr(item, "__getitem__")):
        raise DataError(
            f"passage {place} is of type {type(item).__name__}: a passage is a text, a mapping with a 'text', or a "
            "promptgrad.Document"
        )
    fields = {str(key): item[key] for key in item.keys()}  # noqa: SIM118 - an Example too
    if not isinstance(fields.get("text"), str):
        raise DataError(f"passage {place} has no text under 'text', only {', '.join(fields) or 'nothing'}")
    text = str(fields.pop("text"))
    key = next((name for name in ID_KEYS if name in fields), None)
    ident = None if key is None else fields.pop(key)
    if ident is not None and (isinstance(ident, bool) or not isinstance(ident, (str, int))):
        raise DataError(f"the {key} of passage {place} is {ident!r}: an id is a text or a whole number")
    inner = fields.pop("metadata", None)
    if inner is not None:
        if not isinstance(inner, Mapping):
            raise DataError(f"the metadata of passage {place} is of type {type(inner).__name__}: it is a mapping")
        fields = {**fields, **{str(name): value for name, value in inner.items()}}
    title = fields.get("title")
    if title is not None and not isinstance(title, str):
        raise DataError(f"the title of passage {place} is {title!r}: a title is a text")
    return (f"{title}\n{text}" if title else text), (None if ident is None else str(ident)), fields or None


def as_passage(item: Any, place: int) -> Passage:
    """A passage that a search of a user's own found: what `read_passage` reads; its `score`, if it is a number.

    Raises:
        DataError: It is no passage.
    """
    if isinstance(item, Passage):
        return item
    text, ident, metadata = read_passage(item, place)
    known = dict(metadata or {})
    score = known.get("score")
    has = isinstance(score, (int, float)) and not isinstance(score, bool)
    if has:
        del known["score"]
    return Passage(text, str(place) if ident is None else ident, float(score or 0.0) if has else 0.0, known)
