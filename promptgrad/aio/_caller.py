"""Warnings that point at the user's line, whatever thread they come from."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_PACKAGE = str(Path(__file__).parents[1]) + os.sep


class Caller:
    """The innermost line that is not of this package, as the stack is when this is made."""

    def __init__(self) -> None:
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
            frame = frame.f_back
        self.file = frame.f_code.co_filename
        self.line = frame.f_lineno
        self.module = str(frame.f_globals.get("__name__", "<unknown>"))
        self.registry = frame.f_globals.setdefault("__warningregistry__", {})

    @classmethod
    def here(cls) -> "Caller":
        """The innermost line that is not of this package; on a loop of ours, that which waits for what runs there."""
        made, outer = cls(), _caller.get()
        return made if outer is None or _LOOP not in made.file else outer


_LOOP = f"{os.sep}asyncio{os.sep}"
_caller: ContextVar[Caller | None] = ContextVar("promptgrad.caller", default=None)


@contextmanager
def pointing_at(caller: Caller) -> Iterator[None]:
    """Within the block, in this context, `warn` points there."""
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)


def warn(message: str, category: type[Warning]) -> None:
    """Warn with the user's line as the source: the one given to `pointing_at`, else the innermost on the stack."""
    at = _caller.get() or Caller()
    warnings.warn_explicit(message, category, at.file, at.line, at.module, at.registry)
