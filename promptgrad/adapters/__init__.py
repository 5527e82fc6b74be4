"""How a signature and its values become chat messages, and a reply becomes values."""

from typing import TYPE_CHECKING

from promptgrad.adapters._base import Adapter, Compiled, Format, unreadable
from promptgrad.adapters._chat import ChatAdapter
from promptgrad.adapters._json import JSONAdapter
from promptgrad.adapters._numbers import last_number
from promptgrad.adapters._registry import get_adapter
from promptgrad.adapters._values import describe

__all__ = [
    "Adapter",
    "ChatAdapter",
    "Compiled",
    "Format",
    "JSONAdapter",
    "PocketAdapter",
    "describe",
    "get_adapter",
    "last_number",
    "unreadable",
]

if TYPE_CHECKING:
    from promptgrad.adapters._pocket import PocketAdapter
else:

    def __getattr__(name):
        if name == "PocketAdapter":  # knows the words of the pocket world, which others need not load
            from promptgrad.adapters._pocket import PocketAdapter

            return PocketAdapter
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
