"""Worlds to be honest in: tasks with a simulated LM, seeded, over HTTP, for any framework. See README.md."""

from __future__ import annotations

from typing import Any

from worlds._server import Call, Refused, Server
from worlds._world import CRITIC, STUDENT, WRITER, World, value_of

__all__ = ["CRITIC", "NAMES", "STUDENT", "WRITER", "Call", "Refused", "Server", "World", "make", "value_of"]

NAMES = ("W1", "W2", "W3", "W4", "N1", "N2")


def make(name: str, seed: int, **options: Any) -> World:
    """A world by its name.

    Raises:
        ValueError: There is no world of that name.
    """
    if name == "W1":
        from worlds.items import ItemWorld

        return ItemWorld(seed, **options)
    if name == "W2":
        from worlds.policy import PolicyWorld

        return PolicyWorld(seed, **options)
    if name == "W3":
        from worlds.embedded import EmbeddedWorld

        return EmbeddedWorld(seed, **options)
    if name == "W4":
        from worlds.pipeline import PipelineWorld

        return PipelineWorld(seed, **options)
    if name in ("N1", "N2"):
        from worlds.null import DownhillWorld, FlatWorld

        return (FlatWorld if name == "N1" else DownhillWorld)(seed, **options)
    raise ValueError(f"no world is named {name!r}; there are {', '.join(NAMES)}")
