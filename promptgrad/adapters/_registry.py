"""Adapters by name."""

from __future__ import annotations

import difflib
from functools import cache

from promptgrad.adapters._base import Adapter


@cache
def _named(name: str) -> Adapter:
    if name == "chat":
        from promptgrad.adapters._chat import ChatAdapter

        return ChatAdapter()
    if name == "json":
        from promptgrad.adapters._json import JSONAdapter

        return JSONAdapter()
    from promptgrad.adapters._pocket import PocketAdapter

    return PocketAdapter()


NAMES = ("chat", "json", "pocket")


def get_adapter(adapter: str | Adapter) -> Adapter:
    """The adapter of this name ("chat", "json" or "pocket"), shared by all callers; an adapter is returned as it is.

    Raises:
        ValueError: There is no adapter of this name.
        TypeError: The argument is neither a name nor an adapter.
    """
    if isinstance(adapter, str):
        if adapter in NAMES:
            return _named(adapter)
        close = difflib.get_close_matches(adapter, NAMES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"there is no adapter {adapter!r}; there are {', '.join(NAMES)}{hint}")
    if not isinstance(adapter, Adapter):
        raise TypeError(f"an adapter is one of the names {', '.join(NAMES)} or an Adapter, not {adapter!r}")
    return adapter
