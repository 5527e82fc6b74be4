"""`written_out` and `read_in`: values that hold images, documents and conversations, in JSON types and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptgrad.content._document import Document
from promptgrad.content._history import History, restored
from promptgrad.content._media import Media

_KINDS = ("image", "audio", "file", "history")
_DOCUMENT = "document"


def written_out(value: Any) -> Any:
    """A value with the JSON form of each image, sound, file, document and conversation in its place."""
    if isinstance(value, (Media, History)):
        return value.dump()
    if isinstance(value, Document):
        return {"type": _DOCUMENT, **value.to_dict()}
    if isinstance(value, Mapping):
        return {name: written_out(item) for name, item in value.items()}
    return [written_out(item) for item in value] if type(value) is list else value


def read_in(form: Any) -> Any:
    """The value that `written_out` was given.

    Raises:
        ValueError: A form is damaged.
    """
    if isinstance(form, Mapping):
        if form.get("type") in _KINDS:
            return restored(form)
        if form.get("type") == _DOCUMENT:
            return _document(form)
        return {name: read_in(item) for name, item in form.items()}
    return [read_in(item) for item in form] if isinstance(form, list) else form


def _document(form: Mapping[str, Any]) -> Document:
    fields = {name: value for name, value in form.items() if name != "type"}
    if fields.keys() != {"text", "title", "source"} or not all(isinstance(value, str) for value in fields.values()):
        raise ValueError(f"a document has a text, a title and a source, not {sorted(fields)}")
    return Document(**fields)
