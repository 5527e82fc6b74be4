"""`Secret`: an API key that cannot be shown, saved or copied into a message by accident."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from promptgrad._patterns import late_pattern


class Secret:
    """Holds a secret text; `repr`, `str` and formatting show stars, pickling is refused."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text, for the one place that sends it."""
        return self._text

    def scrub(self, text: str) -> str:
        """Return `text` with every occurrence of the secret replaced by stars."""
        return text.replace(self._text, "***") if len(self._text) >= 4 else text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "Secret('***')"

    def __format__(self, spec: str) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an API key is never pickled; give it through the environment in the other process")


_NAMES = late_pattern(
    r"(?<!cache_)key$|secret|password|credential|authorization|headers$|token$|(?:access|auth|session|bearer|ad)_token",
    re.IGNORECASE,
)
_LOGIN = late_pattern(r"(?<=://)[^/@\s]+@")


def without_secrets(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without keys, headers and the like, and without user and password in addresses, at any depth."""
    return {name: _open(value) for name, value in settings.items() if not is_secret_name(name)}


def is_secret_name(name: str) -> bool:
    """Whether a setting or variable of this name holds a secret."""
    return _NAMES.search(name) is not None


def _open(value: Any) -> Any:
    if type(value) is str:
        return _LOGIN.sub("", value)
    return without_secrets(value) if type(value) is dict and all(isinstance(name, str) for name in value) else value


def sendable(text: str, what: str) -> str:
    """The text without the blanks around it, if it can stand in a header."""
    if not isinstance(text, str):
        raise TypeError(f"{what} is a str, not {type(text).__name__}")
    text = text.strip()
    if text and not (text.isascii() and text.isprintable()):
        raise ValueError(f"{what} holds characters that cannot be sent in a header")
    return text
