"""The adapter of native function calls: the outputs are the arguments of one call."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from promptgrad.adapters._base import Adapter, Format, unreadable
from promptgrad.adapters._feed import FieldPiece, ReplyFeed
from promptgrad.adapters._json import JSONFormat, response_schema
from promptgrad.adapters._tool_fields import ToolFieldsFormat, with_tools
from promptgrad.errors import ParseError, RefusalError, SignatureError, ToolCallError
from promptgrad.lm import Completion, Content, ToolCall
from promptgrad.signature import Signature

FUNCTION = "reply"
"""The function whose arguments are the outputs."""


class ToolsFormat(JSONFormat):
    """One signature as a function."""

    is_varied = True

    def __init__(self, signature: Signature) -> None:
        super().__init__(signature)
        self.reminder = f"{chr(10) * 2 if signature.inputs else ''}Reply by calling `{FUNCTION}`."
        form = response_schema(signature)["json_schema"]
        function = {
            "name": FUNCTION,
            "description": "The reply, with all of its fields.",
            "parameters": form["schema"],
            "strict": form["strict"],
        }
        self._options = {
            "tools": json.dumps([{"type": "function", "function": function}], separators=(",", ":")),
            "tool_choice": json.dumps({"type": "function", "function": {"name": FUNCTION}}, separators=(",", ":")),
        }

    def system(self, instruction: str) -> str:
        parts = [instruction] if instruction else []
        if self.signature.inputs:
            parts.append(self.inputs.describe())
        names = ", ".join(f"`{name}`" for name in self.signature.outputs)
        parts.append(f"Reply by calling the function `{FUNCTION}` once, with {names} as arguments.")
        return "\n\n".join(parts)

    def assistant(self, outputs: Mapping[str, Any]) -> Content:  # type: ignore[override]
        return (ToolCall("", FUNCTION, super().assistant(outputs)),)

    def options(self, inputs: Mapping[str, Any]) -> dict[str, str]:
        return self._options

    def feed(self) -> ReplyFeed:
        """What reads one reply as it is written: the arguments of the call, or the text in its place."""
        return ToolsFeed(super().feed)

    def parse(self, completion: Completion) -> dict[str, Any]:
        if completion.refusal:
            raise unreadable(completion.refusal, "the model refused to answer", self.signature, RefusalError)
        calls = [call for call in completion.tool_calls if call.name == FUNCTION]
        if not calls:
            return super().parse(completion)  # of an endpoint that takes no tools, or a model that writes instead
        try:
            found = [self.read(call.arguments) for call in calls]
        except ParseError as error:
            raise unreadable(completion.preview, error.reason, self.signature, ToolCallError) from error
        if any(values != found[0] for values in found):
            reason = f"it calls `{FUNCTION}` {len(calls)} times, with different values: call it once"
            raise unreadable(completion.preview, reason, self.signature, ToolCallError)
        return found[0]


class ToolsFeed(ReplyFeed):
    """Streams the arguments of the first call of `reply`; until one begins, an object in the text.

    Args:
        make: Function that makes what reads an object.
    """

    def __init__(self, make: Callable[[], ReplyFeed]) -> None:
        self._text = make()
        self._arguments = make()
        self._call: int | None = None

    def feed(self, text: str) -> Iterable[FieldPiece]:
        """The pieces that are certain now, unless a call has begun."""
        return self._text.feed(text) if self._call is None else ()

    def feed_call(self, index: int, name: str, arguments: str) -> Iterable[FieldPiece]:
        """The pieces that are certain now."""
        if self._call is None and name == FUNCTION:
            self._call = index
        return self._arguments.feed(arguments) if index == self._call else ()


class ToolsAdapter(Adapter):
    """The outputs are the arguments of one function call, as the provider speaks it.

    The request declares the function `reply` with the JSON schema of the outputs, strict where its types allow, and
    asks the model to call it. Its arguments are read as the JSON adapter reads a reply, and so is a text in place of a
    call. A signature with tools of its own (`tools: list[Tool]`) takes another adapter, which passes them as they are.
    """

    name = "tools"

    def make_format(self, signature: Signature) -> Format:
        """How a signature is written as a function.

        Raises:
            SignatureError: It has tools of its own.
        """
        form = with_tools(signature, ToolsFormat)
        if isinstance(form, ToolFieldsFormat):
            raise SignatureError(
                "the adapter 'tools' asks for the outputs as a call of its own function, and this signature has tools: "
                "use 'chat', 'json' or 'xml', which pass them natively"
            )
        return form
