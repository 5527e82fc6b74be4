"""`written_out` and `read_in`: values that hold images, documents and conversations, in JSON types and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptgrad.content._document import Citation, Document
from promptgrad.content._history import History, restored
from promptgrad.content._media import Media

_KINDS = ("image", "audio", "file", "history")
_RECORDS: dict[str, type[Document | Citation]] = {"document": Document, "citation": Citation}


def written_out(value: Any) -> Any:
    """A value with the JSON form of each image, sound, file, document, citation and conversation in its place."""
    if isinstance(value, (Media, History)):
        return value.dump()
    if isinstance(value, (Document, Citation)):
        return {"type": type(value).__name__.lower(), **value.to_dict()}
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
        if form.get("type") in _RECORDS:
            return _record(form)
        return {name: read_in(item) for name, item in form.items()}
    return [read_in(item) for item in form] if isinstance(form, list) else form


def _record(form: Mapping[str, Any]) -> Document | Citation:
    given = {name: value for name, value in form.items() if name != "type"}
    texts = {name: value for name, value in given.items() if name != "document"}
    number = given.get("document", 0)
    if type(number) is not int or not all(isinstance(value, str) for value in texts.values()):
        raise ValueError(f"the fields of a {form['type']} are texts, and its number a whole number")
    try:
        return _RECORDS[form["type"]](**given)
    except TypeError as error:
        raise ValueError(f"it is no {form['type']}: {error}") from None
