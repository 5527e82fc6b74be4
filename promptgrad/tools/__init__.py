"""Collections of tools, and tools of servers that speak the Model Context Protocol."""

from typing import TYPE_CHECKING

__all__ = ["MCPTools", "Toolset"]

if TYPE_CHECKING:
    from promptgrad.tools._mcp import MCPTools
    from promptgrad.tools._toolset import Toolset
else:
    from promptgrad._late import late

    _LATE = {"MCPTools": "_mcp", "Toolset": "_toolset"}

    __getattr__, __dir__ = late(__name__, _LATE)
