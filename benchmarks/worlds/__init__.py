"""Worlds to be honest in: tasks with a simulated LM, seeded, over HTTP, for any framework. See README.md."""

from __future__ import annotations

from typing import Any

from worlds._server import Call, Refused, Server
from worlds._world import CRITIC, STUDENT, WRITER, World

__all__ = ["CRITIC", "NAMES", "STUDENT", "WRITER", "Call", "Refused", "Server", "World", "make"]

NAMES = ("W2",)


def make(name: str, seed: int, **options: Any) -> World:
    """A world by its name.

    Raises:
        ValueError: There is no world of that name.
    """
    if name == "W2":
        from worlds.policy import PolicyWorld

        return PolicyWorld(seed, **options)
    raise ValueError(f"no world is named {name!r}; there are {', '.join(NAMES)}")
