"""Collections of tools, and tools of servers that speak the Model Context Protocol."""

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = ["MCPTools", "Toolset"]

if TYPE_CHECKING:
    from promptgrad.tools._mcp import MCPTools
    from promptgrad.tools._toolset import Toolset
else:
    _LATE = {"MCPTools": "promptgrad.tools._mcp", "Toolset": "promptgrad.tools._toolset"}

    def __getattr__(name):
        if name in _LATE:
            return getattr(import_module(_LATE[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
