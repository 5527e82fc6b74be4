"""`written_as`: how an input stands in a prompt, by its type."""

from __future__ import annotations

from typing import NamedTuple, get_args, get_origin

from promptgrad.adapters._kinds import bare, holds, members
from promptgrad.adapters._pieces import is_media, may_hold_media
from promptgrad.adapters._tool import Tool
from promptgrad.adapters._turns import is_history
from promptgrad.adapters._values import choices
from promptgrad.content import Document, History
from promptgrad.signature import Field


class Written(NamedTuple):
    """How an input stands in a prompt.

    Attributes:
        kind: "text" for its text, and "json"; "image", "audio", "file" and "document" for one among the texts; "turns"
            for messages of their own, "tools" for what stands beside the messages; "parts" for what holds images or
            documents in another way.
        many: Whether it is a list of images, sounds, files or documents.
    """

    kind: str
    many: bool = False


def written_as(field: Field) -> Written:
    """How an input stands in a prompt; one that may be None as one that may not.

    Args:
        field: The input.
    """
    if is_history(field.annotation):
        return Written("turns")
    if holds(field.annotation, Tool):
        return Written("tools")
    first, *others = [kind for kind in members(field.annotation) if kind is not type(None)] or [None]
    many = get_origin(first) is list
    kind = bare(get_args(first)[0]) if many else first
    if not others and (kind is Document or is_media(kind)):
        return Written("document" if kind is Document else kind.kind, many)
    if any(holds(field.annotation, kind) for kind in (Document, History)) or may_hold_media(
        field.annotation, any_may=False
    ):
        return Written("parts")
    return Written("text" if field.is_text or choices(field) is not None else "json")
