"""LangChain's tools as tools of ours, by what they have and without importing LangChain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptgrad.errors import SignatureError


class Invoked:
    """The function of a tool of LangChain that is called in a thread."""

    __slots__ = ("tool",)

    def __init__(self, tool: Any) -> None:
        self.tool = tool

    def __call__(self, /, **arguments: Any) -> Any:
        return self.tool.invoke(arguments)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.tool is self.tool

    def __hash__(self) -> int:
        return hash((type(self), id(self.tool)))

    def __repr__(self) -> str:
        return f"<tool {self.tool.name!r} of LangChain>"


class AwaitedInvoked(Invoked):
    """The function of one that has a coroutine of its own."""

    __slots__ = ()

    async def __call__(self, /, **arguments: Any) -> Any:
        return await self.tool.ainvoke(arguments)


def parts_of(tool: Any) -> tuple[Invoked, str, str, dict[str, Any]]:
    """The function, name, description and schema of a tool of LangChain.

    Raises:
        SignatureError: It has none of them.
    """
    name = getattr(tool, "name", None)
    if not isinstance(name, str) or not callable(getattr(tool, "invoke", None)):
        raise SignatureError(
            f"a tool of LangChain has name, description, args_schema and invoke(...), and {type(tool).__name__} does "
            "not: a function is a Tool(function)"
        )
    made = AwaitedInvoked(tool) if _is_async(tool) else Invoked(tool)
    return made, name, str(getattr(tool, "description", "") or ""), _schema(tool)


def _schema(tool: Any) -> dict[str, Any]:
    for attribute in ("tool_call_schema", "args_schema"):  # the first leaves out what the program puts in
        schema = getattr(tool, attribute, None)
        if isinstance(schema, Mapping):
            return dict(schema)
        for method in ("model_json_schema", "schema"):
            make = getattr(schema, method, None)
            if callable(make):
                return {key: value for key, value in make().items() if key not in ("title", "description")}
    return {"type": "object", "properties": dict(getattr(tool, "args", None) or {})}


def _is_async(tool: Any) -> bool:
    """Whether a tool has a coroutine of its own; else LangChain would run it in its own threads."""
    if not callable(getattr(tool, "ainvoke", None)):
        return False
    if hasattr(tool, "coroutine"):
        return tool.coroutine is not None
    own = next((kind for kind in type(tool).__mro__ if "_arun" in vars(kind)), None)
    return own is not None and not own.__module__.startswith("langchain_core")
