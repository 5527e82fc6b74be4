"""`References`: images that a text refers to, collected while pydantic writes it; `MediaPlaces`: put back after it."""

from __future__ import annotations

from collections.abc import Callable
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


class MediaPlaces(References):
    """The images, sounds and files in a model, which `filled` puts back into what pydantic made of it.

    A mark that no text has stands in for each while pydantic writes the model.
    """

    def add(self, media: Any) -> str:
        """Note one, and return its mark."""
        mark = f"\0{len(self)}\0"
        self.append((mark, media))
        return mark

    def filled(self, data: Any, shown: Callable[[Any], Any]) -> Any:
        """What was written, with what `shown` makes of each in its place."""
        return _filled(data, dict(self), shown) if self else data


def _filled(data: Any, held: dict[str, Any], shown: Callable[[Any], Any]) -> Any:
    if isinstance(data, str):
        return shown(held[data]) if data in held else data
    if isinstance(data, dict):
        return {name: _filled(item, held, shown) for name, item in data.items()}
    return [_filled(item, held, shown) for item in data] if isinstance(data, list) else data


def written(value: Any, info: Any) -> Any:
    """It as pydantic writes it: by a label where references are collected, else in JSON types."""
    if not hasattr(value, "dump"):
        return value
    if isinstance(info.context, References):
        return info.context.add(value)
    return value.dump() if info.mode == "json" else value
