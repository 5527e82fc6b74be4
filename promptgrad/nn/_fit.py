"""`fit`: long values made short enough for a prompt, openly and evenly."""

from collections.abc import Mapping
from typing import Any

from promptgrad.content import IMAGE_TOKENS, Audio, File, Image

CHARACTERS = 4
"""Characters in a token, as in the estimates of usage where a provider reports none."""


def fit(value: Any, tokens: int) -> Any:
    """The value, its texts cut in the middle where all of them together are longer than `tokens`.

    The longest texts are cut first, all to one length, and each shows how much is missing. Texts inside lists and dicts
    are cut too; numbers stay. A value that is short enough is returned as it is.

    >>> fit({"a": "one two three", "b": "x" * 400}, 30)["a"]
    'one two three'
    """
    room = tokens * CHARACTERS
    room -= CHARACTERS * _media(value)
    lengths = sorted(_lengths(value))
    if sum(lengths) <= room:
        return value
    limit = 0
    for index, length in enumerate(lengths):  # the texts up to here are complete, the others share the rest
        limit = max(room, 0) // (len(lengths) - index)
        if length > limit:
            break
        room -= length
    return _cut(value, max(limit, 0))


def size(value: Any) -> int:
    """About how many tokens a value takes: its texts, and the images, sounds and files in it."""
    return sum(_lengths(value)) // CHARACTERS + _media(value)


def _media(value: Any) -> int:
    """About how many tokens the images, sounds and files in a value take."""
    if isinstance(value, (Image, Audio, File)):
        return value.tokens() or IMAGE_TOKENS
    if isinstance(value, Mapping):
        return sum(map(_media, value.values()))
    return sum(map(_media, value)) if isinstance(value, (list, tuple)) else 0


def _lengths(value: Any) -> "list[int]":
    if isinstance(value, str):
        return [len(value)]
    if isinstance(value, Mapping):
        return [length for item in value.values() for length in _lengths(item)]
    if isinstance(value, (list, tuple)):
        return [length for item in value for length in _lengths(item)]
    return []


def _cut(value: Any, limit: int) -> Any:
    if isinstance(value, str):
        if len(value) <= limit:
            return value
        head, tail = (limit + 1) // 2, limit // 2
        left_out = len(value) - head - tail
        return f"{value[:head]} [... {left_out} characters left out ...] {value[len(value) - tail :]}"
    if isinstance(value, Mapping):
        return {name: _cut(item, limit) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_cut(item, limit) for item in value]
    return value
