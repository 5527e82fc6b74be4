"""Images, sounds and files in the rows that a writer is shown: as they are, or by their captions."""

from collections.abc import Sequence
from typing import Any

from promptgrad.content import Audio, File, Image, captioned
from promptgrad.errors import NoLMError
from promptgrad.lm import LM, resolve_lm
from promptgrad.nn import Predict

MOST_MEDIA = 8
"""Most images, sounds and files that one prompt of a writer holds; of all further ones it has the captions."""

_KINDS = frozenset({"image", "audio", "file"})


def sight(writer: Predict, lm: LM | None, own: LM | None) -> frozenset[str]:
    """The kinds of media that a writer's language model takes, as far as is known; those of the program, if it is its.

    Args:
        writer: The program that writes.
        lm: The language model of the call; None for that of the writer, or of the context.
        own: That of the program; None for that of the context.
    """
    try:
        asked = resolve_lm(lm, writer._lm)
        if asked.media is not None:
            return asked.media
        return _KINDS if asked.transport is resolve_lm(own).transport else frozenset()
    except NoLMError:
        return frozenset()


def seen(rows: Sequence[Any], media: frozenset[str]) -> list[Any]:
    """Rows with the first media of some kinds as they are, and all others by their captions."""
    found: list[Any] = []
    return [_seen(row, media, found) for row in rows]


def _seen(value: Any, media: frozenset[str], found: list[Any]) -> Any:
    if isinstance(value, (Image, Audio, File)):
        if value.kind in media and value not in found and len(found) < MOST_MEDIA:
            found.append(value)
        return captioned(value, media if value in found else ())
    if isinstance(value, dict):
        return {name: _seen(item, media, found) for name, item in value.items()}
    return [_seen(item, media, found) for item in value] if isinstance(value, list) else value
