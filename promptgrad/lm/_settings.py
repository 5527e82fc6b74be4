"""The default settings of calls: those of the process, overridden by contexts."""

from __future__ import annotations

import os
import threading
from contextvars import ContextVar, Token
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


class Overlay:
    """What the open contexts set, laid over the defaults of the process.

    Attributes:
        settings: What they set; None stands for "not set".
    """

    __slots__ = ("_known", "settings")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._known: tuple[Settings, Settings] | None = None  # the defaults, and these over them

    def current(self) -> Settings:
        """The settings that apply."""
        known = self._known
        if known is None or known[0] is not _default:
            base, over = _default, self.settings
            laid = {name: value for name in _NAMES if (value := getattr(over, name)) is not None}
            known = self._known = base, replace(base, **laid)
        return known[1]


_overlay: ContextVar[Overlay | None] = ContextVar("promptgrad.settings", default=None)
_NOTHING = Settings()

open_overlay = _overlay.get
"""What the open contexts set, and what was known of it; None where there is none."""


def lay(**changes: Any) -> Token[Overlay | None]:
    """Set some settings over those of the open contexts, until `lift`."""
    over = _overlay.get()
    return _overlay.set(Overlay(replace(_NOTHING if over is None else over.settings, **changes)))


lift = _overlay.reset


class Replicated:
    """Within the block, calls have this replicate number: `context(replicate=number)`, for what is done often.

    Args:
        number: The replicate number.
    """

    __slots__ = ("_number", "_token")

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> None:
        outer = _overlay.get()
        laid = Overlay(_replicated(_NOTHING if outer is None else outer.settings, self._number))
        base = _default
        laid._known = base, _replicated(base if outer is None else outer.current(), self._number)
        self._token = _overlay.set(laid)

    def __exit__(self, *raised: object) -> None:
        _overlay.reset(self._token)


def default() -> Settings:
    """Return the settings of the process, without contexts."""
    return _default


def change_default(changes: dict[str, Any]) -> None:
    """Replace the settings of the process by a changed copy."""
    global _default
    with _lock:
        _default = replace(_default, **changes)


def _replicated(s: Settings, number: int) -> Settings:
    """The settings with another replicate number: `replace`, without its loop over the fields."""
    return Settings(s.lm, s.critic, s.adapter, s.concurrency, number, s.cache, s.override, s.fallback)


def current() -> Settings:
    """Return the settings that apply here: the process defaults with those of all open contexts over them."""
    over = _overlay.get()
    return _default if over is None else over.current()
