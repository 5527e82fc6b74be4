"""The default settings of calls: those of the process, overridden by contexts."""

from __future__ import annotations

import os
import threading
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import Any

from promptgrad.lm._base import LM


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a call that does not set its own; None stands for "not set".

    Attributes:
        lm: The language model, used where no module has one of its own.
        critic: The language model that divides blame in `backward()`.
        adapter: Name of an adapter, or an adapter, in place of the one that the LM speaks.
        concurrency: Most calls that `map` and `evaluate` have in flight.
        replicate: Replicate number of calls.
        cache: Folder of the disk cache given to LMs made from names.
        override: A language model that is used even where a module has one of its own.
        fallback: A language model that is used where none is set; `replay` sets it to the one that was recorded.
    """

    lm: LM | None = None
    critic: LM | None = None
    adapter: Any = None
    concurrency: int | None = None
    replicate: int | None = None
    cache: str | os.PathLike[str] | None = None
    override: LM | None = None
    fallback: LM | None = None


_NAMES = tuple(f.name for f in fields(Settings))
_default = Settings()  # only `change_default` replaces it, never in part
_lock = threading.Lock()
overlay: ContextVar[Settings | None] = ContextVar("promptgrad.settings", default=None)


def default() -> Settings:
    """Return the settings of the process, without contexts."""
    return _default


def change_default(changes: dict[str, Any]) -> None:
    """Replace the settings of the process by a changed copy."""
    global _default
    with _lock:
        _default = replace(_default, **changes)


def current() -> Settings:
    """Return the settings that apply here: the process defaults with those of all open contexts over them."""
    over = overlay.get()
    if over is None:
        return _default
    laid = {name: value for name in _NAMES if (value := getattr(over, name)) is not None}
    return replace(_default, **laid)
