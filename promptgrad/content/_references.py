"""`References`: images that a text refers to, collected while pydantic writes it."""

from __future__ import annotations

from typing import Any


class References(list[tuple[str, Any]]):
    """Images, sounds and files that a text refers to by the labels "image 1", "image 2", "audio 1" ...

    It is the context in which pydantic writes a value: a label is then written in place of each.
    """

    def add(self, media: Any) -> str:
        """Note one, and return its label; equal ones have one label."""
        for label, other in self:
            if other == media:
                return label
        label = f"{media.kind} {sum(other.kind == media.kind for _, other in self) + 1}"
        self.append((label, media))
        return label


def written(value: Any, info: Any) -> Any:
    """It as pydantic writes it: by a label where references are collected, else in JSON types."""
    if not hasattr(value, "dump"):
        return value
    if isinstance(info.context, References):
        return info.context.add(value)
    return value.dump() if info.mode == "json" else value
