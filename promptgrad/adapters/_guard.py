"""Images that a format would lose: one that writes text alone is refused before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from promptgrad.adapters._pieces import MEDIA, may_hold_media
from promptgrad.errors import InputError
from promptgrad.lm import Content
from promptgrad.signature import Signature

Write = Callable[..., Content]


def losing_nothing(write: Write, signature: Signature, adapter: str) -> Write | None:
    """A `Format.user` that refuses to lose an image, a sound or a file of its inputs; None where there is none to lose.

    Args:
        write: The `user` of a format, which may be anybody's.
        signature: Its signature.
        adapter: Name of its adapter, for the message.
    """
    names = [name for name, field in signature.inputs.items() if may_hold_media(field.annotation, any_may=False)]
    if not names:
        return None

    def user(inputs: Mapping[str, Any], *, remind: bool = False) -> Content:
        content = write(inputs, remind=remind)
        parts = () if isinstance(content, str) else content
        for name in names:
            for media in _media(inputs[name]):
                if not any(part is media or part == media for part in parts):
                    raise InputError(
                        f"field {name!r} holds {media!r}, which the adapter {adapter!r} did not write as a part of the "
                        "message: use adapter='chat', or return parts from its Format.user"
                    )
        return content

    return user


def _media(value: Any) -> Iterator[Any]:
    if isinstance(value, MEDIA):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _media(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _media(item)
