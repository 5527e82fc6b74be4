"""Tools in a call of `Predict`: their types in signatures, and what a request says of them."""

from collections.abc import Mapping
from typing import Any

from promptgrad.adapters import Compiled


def with_tool_types(signature: Any, types: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The types by name of a signature given as text, with `Tool` and `ToolCall` where it names them."""
    if not isinstance(signature, str) or "Tool" not in signature:
        return types
    from promptgrad.adapters import Tool
    from promptgrad.lm import ToolCall

    return {"Tool": Tool, "ToolCall": ToolCall, **(types or {})}


def for_call(
    compiled: Compiled, values: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[Compiled, dict[str, Any]]:
    """What reads the reply of a call with these inputs, and the options of its request; those that are given stay."""
    more = {**compiled.options_for(values), **dict(options.get("extra", ()))}
    extra = {"extra": tuple(sorted(more.items()))} if more else {}
    return compiled.for_call(values), {**options, **extra}
