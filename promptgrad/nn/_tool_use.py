"""Tools in a signature of `Predict`: their types by name."""

from collections.abc import Mapping
from typing import Any


def with_tool_types(signature: Any, types: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The types by name of a signature given as text, with `Tool` and `ToolCall` where it names them."""
    if not isinstance(signature, str) or "Tool" not in signature:
        return types
    from promptgrad.adapters import Tool
    from promptgrad.lm import ToolCall

    return {"Tool": Tool, "ToolCall": ToolCall, **(types or {})}
