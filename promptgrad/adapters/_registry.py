"""Adapters by name."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import import_module

from promptgrad.adapters._base import Adapter

_HOME = {
    "chat": ("_chat", "ChatAdapter"),
    "json": ("_json", "JSONAdapter"),
    "xml": ("_xml", "XMLAdapter"),
    "tools": ("_tools", "ToolsAdapter"),
    "compact": ("_compact", "CompactAdapter"),
    "two_step": ("_two_step", "TwoStepAdapter"),
    "pocket": ("_pocket", "PocketAdapter"),
}
NAMES = tuple(_HOME)
_MADE = {"template": "template('Q: {question}\\nA:')"}


@cache
def _named(name: str) -> Adapter:
    module, kind = _HOME[name]
    made: Adapter = getattr(import_module(f"promptgrad.adapters.{module}"), kind)()
    return made


def get_adapter(adapter: str | Adapter) -> Adapter:
    """The adapter of this name ("chat", "json", "xml", ...), shared by all callers; an adapter is returned as it is.

    Raises:
        ValueError: There is no adapter of this name.
        TypeError: The argument is neither a name nor an adapter.
    """
    if isinstance(adapter, str):
        if adapter in NAMES:
            return _named(adapter)
        if adapter in _MADE:
            raise ValueError(f"the adapter {adapter!r} has arguments: pass promptgrad.adapters.{_MADE[adapter]}")
        close = difflib.get_close_matches(adapter, NAMES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"there is no adapter {adapter!r}; there are {', '.join(NAMES)}{hint}")
    if not isinstance(adapter, Adapter):
        raise TypeError(f"an adapter is one of the names {', '.join(NAMES)} or an Adapter, not {adapter!r}")
    return adapter
