"""What a language model is shown of a value that code gave, such as the result of a tool."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from promptgrad.autograd import Record
from promptgrad.content import Audio, File, Image
from promptgrad.errors import (
    AsyncUsageError,
    AuthenticationError,
    BillingError,
    BudgetExceeded,
    JournalError,
    MissingExtraError,
    NoLMError,
    UnknownPriceError,
)

Media: TypeAlias = Image | Audio | File
_MEDIA = (Image, Audio, File)
_MOST_MEDIA = 16
_DEEPEST = 64

FATAL = (
    NoLMError,
    MissingExtraError,
    AsyncUsageError,
    AuthenticationError,
    BillingError,
    BudgetExceeded,
    JournalError,
    UnknownPriceError,
)
"""Errors of a tool that are no result of it, since the next call would meet them as well."""


def observed(value: Any, max_chars: int) -> tuple[str, tuple[Media, ...]]:
    """A value as it is shown: its text, and the images, sounds and files in it, which the text names in their places.

    Args:
        value: What code gave: a text, which is shown as it is; a list of texts and images, one below the other;
            an error, by its name and message; anything else, as JSON.
        max_chars: Most characters of the text; what is left out is counted in its place.

    Raises:
        RecursionError: It holds itself, or is nested more than 64 levels deep.
    """
    media: list[Media] = []
    if isinstance(value, str):
        text = str.__str__(value)
    elif isinstance(value, BaseException):
        text = _told(value)
    elif isinstance(value, _MEDIA):
        text = _named(value, media)
    elif isinstance(value, (list, tuple)) and any(isinstance(item, _MEDIA) for item in value):
        text = "\n".join(item if isinstance(item, str) else _written(item, media) for item in value)
    else:
        text = _written(value, media)
    if len(text) > max_chars:
        text = f"{text[:max_chars]}... ({len(text) - max_chars} characters more)"
    return text.encode("utf-8", "backslashreplace").decode("utf-8"), tuple(media)  # half a character cannot be sent


def _told(error: BaseException) -> str:
    """An error as it is shown; one whose message cannot be made by the name of its class."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - the error is of foreign code, and so is its `__str__`
        return type(error).__name__


def _named(item: Media, media: list[Media]) -> str:
    if len(media) < _MOST_MEDIA:
        media.append(item)
        return str(item)
    return f"{item} (not shown: {_MOST_MEDIA} are the most)"


def _written(value: Any, media: list[Media]) -> str:
    if isinstance(value, _MEDIA):
        return _named(value, media)
    return json.dumps(_plain(value, media, 0), ensure_ascii=False, default=str)


def _plain(value: Any, media: list[Media], depth: int) -> Any:
    """A value in JSON types: records become dicts, sets sorted lists, and what has no form of its own its text."""
    if isinstance(value, str):
        return str.__str__(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if depth > _DEEPEST:
        raise RecursionError(f"it is nested more than {_DEEPEST} levels deep")
    if isinstance(value, _MEDIA):
        return _named(value, media)
    if isinstance(value, (list, tuple)):
        return [_plain(item, media, depth + 1) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(item, media, depth + 1) for item in value), key=json.dumps)
    kind = type(value)
    fields: Mapping[Any, Any] | None = value if isinstance(value, Mapping) else None
    if issubclass(kind, Record):
        fields = value.__record__()[1]
    if fields is None:
        for name in ("model_dump", "to_dict"):
            dump = getattr(kind, name, None)
            if callable(dump):
                return _plain(dump(value), media, depth + 1)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if fields is not None:
        return {str(key): _plain(item, media, depth + 1) for key, item in fields.items()}
    return _simple(value)


def _simple(value: Any) -> Any:
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value, fallback=str, bytes_mode="base64")
