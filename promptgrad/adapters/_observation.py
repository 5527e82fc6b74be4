"""What a language model is shown of a value that code gave, such as the result of a tool."""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import islice
from types import GeneratorType
from typing import Any, TypeAlias

from promptgrad._error_text import error_text
from promptgrad.autograd import Record
from promptgrad.content import Audio, File, Image

Media: TypeAlias = Image | Audio | File
_MEDIA = (Image, Audio, File)
_MOST_MEDIA = 16
_DEEPEST = 64


def observed(value: Any, max_chars: int) -> tuple[str, tuple[Media, ...]]:
    """A value as it is shown: its text, and the images, sounds and files in it, which the text names in their places.

    It is cut while it is written, so that the work is bounded by what is shown, however large the value. Only of a set
    all items are looked at, since they are sorted, and what has a form of its own (`model_dump`, `to_dict`) makes it.

    Args:
        value: What code gave: a text, which is shown as it is; a list of texts and images, one below the other;
            an error, by its name and message; anything else, as JSON.
        max_chars: Most characters of the text. What is left out of a text is counted in its place.

    Raises:
        RecursionError: It holds itself, or is nested more than 64 levels deep.
    """
    writer = _Writer(max_chars)
    try:
        if isinstance(value, str):
            writer.text(value)
        elif isinstance(value, BaseException):
            writer.text(error_text(value))
        elif isinstance(value, (list, tuple)) and any(isinstance(item, _MEDIA) for item in islice(value, max_chars)):
            for number, item in enumerate(value):
                writer.add("\n" if number else "")
                writer.text(item) if isinstance(item, str) else writer.value(item, 0)
        else:
            writer.value(value, 0)
    except _Full as full:
        writer.parts.append(f"... ({full})")
    text = "".join(writer.parts)
    return text.encode("utf-8", "backslashreplace").decode("utf-8"), tuple(writer.media)  # half a character cannot go


class _Full(Exception):
    """There is no room for more; it says what was left out."""


class _Writer:
    """Writes values until there is no room for more.

    Attributes:
        parts: What is written.
        media: The images, sounds and files that it names.
    """

    def __init__(self, most: int) -> None:
        self.parts: list[str] = []
        self.media: list[Media] = []
        self._most = self._left = most

    def add(self, piece: str) -> None:
        """Write a piece.

        Raises:
            _Full: There is no room for all of it.
        """
        self.parts.append(piece[: self._left])
        self._left -= len(piece)
        if self._left < 0:
            raise _Full(f"cut after {self._most} characters")

    def text(self, text: str) -> None:
        """Write a text as it is.

        Raises:
            _Full: There is no room for all of it.
        """
        missing = len(text) - self._left
        if missing > 0:
            self.parts.append(str.__getitem__(text, slice(self._left)))
            raise _Full(f"{missing} characters more")
        self.add(str.__str__(text))

    def value(self, value: Any, depth: int) -> None:
        """Write a value as JSON: records become objects, sets sorted lists, and what has no form of its own its text.

        Raises:
            _Full: There is no room for all of it.
            RecursionError: It is nested too deep.
        """
        if isinstance(value, str):
            self.add(json.dumps(str.__getitem__(value, slice(self._left + 1)), ensure_ascii=False))
        elif isinstance(value, _MEDIA):
            name = self._named(value)
            self.add(json.dumps(name, ensure_ascii=False) if depth else name)
        elif value is None or isinstance(value, (bool, int, float)):
            self.add(json.dumps(value))
        elif depth > _DEEPEST:
            raise RecursionError(f"it is nested more than {_DEEPEST} levels deep")
        elif isinstance(value, (list, tuple, deque, GeneratorType)):
            self._items(value, depth)
        elif isinstance(value, (set, frozenset)):
            self._items(sorted(value, key=_written), depth)
        else:
            self._other(value, depth)

    def _items(self, items: Iterable[Any], depth: int) -> None:
        self.add("[")
        for number, item in enumerate(items):
            self.add(", " if number else "")
            self.value(item, depth + 1)
        self.add("]")

    def _other(self, value: Any, depth: int) -> None:
        kind = type(value)
        fields: Mapping[Any, Any] | None = value if isinstance(value, Mapping) else None
        if issubclass(kind, Record):
            fields = value.__record__()[1]
        if fields is None:
            for name in ("model_dump", "to_dict"):
                dump = getattr(kind, name, None)
                if callable(dump):
                    self.value(dump(value), depth + 1)
                    return
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        if fields is not None:
            self._fields(fields, depth)
            return
        if isinstance(value, (bytes, bytearray)):
            value = bytes(value[: self._left + 1])
        self.add(json.dumps(_simple(value), ensure_ascii=False, default=str))

    def _fields(self, fields: Mapping[Any, Any], depth: int) -> None:
        self.add("{")
        for number, (key, item) in enumerate(fields.items()):
            self.add(", " if number else "")
            self.value(str(key), depth + 1)
            self.add(": ")
            self.value(item, depth + 1)
        self.add("}")

    def _named(self, item: Media) -> str:
        if len(self.media) < _MOST_MEDIA:
            self.media.append(item)
            return str(item)
        return f"{item} (not shown: {_MOST_MEDIA} are the most)"


def _written(item: Any) -> str:
    """An item of a set as JSON, by which it is sorted."""
    writer = _Writer(1_000)
    with suppress(_Full):
        writer.value(item, 1)
    return "".join(writer.parts)


def _simple(value: Any) -> Any:
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value, fallback=str, bytes_mode="base64")
