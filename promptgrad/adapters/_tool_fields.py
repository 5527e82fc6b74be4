"""Fields that are tools and calls of tools: they go beside the texts of a request and of its reply."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from promptgrad.adapters._base import Format, unreadable
from promptgrad.adapters._beside import InputFormat, with_beside
from promptgrad.adapters._kinds import holds, members
from promptgrad.adapters._tool import Tool
from promptgrad.adapters._values import missing_input
from promptgrad.errors import ParseError, RefusalError, SignatureError, ToolCallError
from promptgrad.lm import Completion, Content, TextPart, ToolCall
from promptgrad.signature import Field, Signature

if TYPE_CHECKING:
    from promptgrad.adapters._feed import ReplyFeed


def with_tools(signature: Signature, make: Callable[[Signature], Format]) -> Format:
    """The format of a signature, some of whose fields may be tools or calls of tools.

    Args:
        signature: The signature.
        make: Function that makes the format of a signature without them.

    Raises:
        SignatureError: There are calls without tools, or more than one field of calls.
    """
    tools = [field for field in signature.inputs.values() if holds(field.annotation, Tool)]
    calls = [field for field in signature.outputs.values() if holds(field.annotation, ToolCall)]
    if not tools and not calls:
        return with_beside(signature, make)
    if not tools:
        raise SignatureError(
            f"the output {calls[0].name!r} holds calls of tools, and no input holds the tools: add `tools: list[Tool]`"
        )
    if len(calls) != 1:
        what = "no output holds their calls: add `calls: list[ToolCall]`" if not calls else "several outputs hold calls"
        raise SignatureError(f"the input {tools[0].name!r} holds tools, and {what}")
    text = signature
    for field in tools:
        text = text.delete(field.name)
    if len(text.outputs) > 1:
        text = text.delete(calls[0].name)
        return ToolFieldsFormat(signature, with_beside(text, make), [field.name for field in tools], calls[0])
    return ToolFieldsFormat(signature, with_beside(text, InputFormat), [field.name for field in tools], calls[0])


class ToolFieldsFormat(Format):
    """A signature with tools, of which another format writes and reads the texts."""

    is_varied = True

    def __init__(self, signature: Signature, written: Format, tools: Sequence[str], calls: Field) -> None:
        super().__init__(signature)
        self.written = written
        self.escaping = written.escaping
        self.aside = written.aside
        self.begins = written.begins
        self.tools = tools
        self.calls = calls
        self.texts = [name for name in signature.outputs if name != calls.name]
        self.known: dict[str, Tool] = {}
        kinds = members(calls.annotation)
        self.is_one = ToolCall in kinds
        self.must = self.is_one and type(None) not in kinds

    @property
    def reply_signature(self) -> Signature | None:
        return self.written.reply_signature if self.texts else None

    def system(self, instruction: str) -> str:
        about = f": {self.calls.description}" if self.calls.description else ""
        if self.texts:
            said = f"Where a tool helps, call it (`{self.calls.name}`{about}); the text may then be empty."
        elif self.is_one:
            most = "one of" if self.must else "at most one of"
            said = f"Reply by calling {most} your tools (`{self.calls.name}`{about})."
        else:
            said = f"Reply by calling your tools (`{self.calls.name}`{about})."
        return "\n\n".join(filter(None, (self.written.system(instruction), said)))

    def user(self, inputs: Mapping[str, Any], *, remind: bool = False) -> Content:
        for name in self.tools:
            if name not in inputs:
                raise missing_input(name, self.signature)
        return self.written.user(inputs, remind=remind)

    def demo_user(self, inputs: Mapping[str, Any], missing: Sequence[str]) -> Content:
        shown = [name for name in missing if name in self.texts] if self.calls.name in missing else []
        return self.written.demo_user(inputs, shown)

    def assistant(self, outputs: Mapping[str, Any]) -> Content:
        said = self.written.assistant(outputs) if any(name in outputs for name in self.texts) else ""
        value = outputs.get(self.calls.name) or ()
        calls = [value] if isinstance(value, ToolCall) else list(value)
        if not calls:
            return said or "(no call)"
        before = (TextPart(said),) if isinstance(said, str) and said else () if isinstance(said, str) else said
        return (*before, *calls)

    def options(self, inputs: Mapping[str, Any]) -> dict[str, str]:
        tools = list(self._tools(inputs).values())
        if not tools:
            return {}
        found = {"tools": json.dumps([function_of(tool) for tool in tools], separators=(",", ":"))}
        if self.must:
            found["tool_choice"] = '"required"'
        return found

    def _tools(self, inputs: Mapping[str, Any]) -> dict[str, Tool]:
        found: dict[str, Tool] = {}
        for name in self.tools:
            value = inputs.get(name)
            for tool in [value] if isinstance(value, Tool) else value or ():
                if found.setdefault(tool.name, tool) is not tool:
                    raise SignatureError(f"two tools have the name {tool.name!r}: pass Tool(function, name=...)")
        return found

    def for_call(self, inputs: Mapping[str, Any]) -> Format:
        form = ToolFieldsFormat(self.signature, self.written, self.tools, self.calls)
        form.known = self._tools(inputs)
        return form

    def parse(self, completion: Completion) -> dict[str, Any]:
        if completion.refusal:
            raise unreadable(completion.refusal, "the model refused to answer", self.signature, RefusalError)
        calls = self._read_calls(completion)
        rest = replace(completion, content=tuple(part for part in completion.parts if not isinstance(part, ToolCall)))
        if not self.texts:
            found: dict[str, Any] = {}
        elif calls and not rest.text.strip():
            found = {name: self._empty(self.signature.outputs[name], completion) for name in self.texts}
        else:
            found = self.written.parse(rest if len(rest.parts) > 1 else replace(rest, content=rest.text))
        found[self.calls.name] = self.calls.validate(self._value(calls, completion))
        return {name: found[name] for name in self.signature.outputs}

    def _empty(self, field: Field, completion: Completion) -> Any:
        """The value of a field that was left out beside calls."""
        empty: tuple[Any, ...] = ("", None, [])
        for value in empty:
            try:
                return field.validate(value)
            except ParseError:
                continue
        reason = f"it calls tools, and the field `{field.name}` is missing"
        raise unreadable(completion.preview, reason, self.signature)

    def _read_calls(self, completion: Completion) -> list[ToolCall]:
        made: list[ToolCall] = []
        faults: list[str] = []
        for call in completion.tool_calls:
            tool = self.known.get(call.name)
            if tool is None:
                known = ", ".join(f"`{name}`" for name in self.known) or "none"
                faults.append(f"there is no tool `{call.name}`; there are {known}")
                continue
            try:
                made.append(tool.checked(call))
            except ToolCallError as error:
                faults.append(error.reason)
        if faults:
            raise unreadable(completion.preview, "; ".join(faults), self.signature, ToolCallError)
        return made

    def _value(self, calls: list[ToolCall], completion: Completion) -> Any:
        if not self.is_one:
            return calls
        if len(calls) > 1:
            raise unreadable(
                completion.preview, f"it calls {len(calls)} tools: call one", self.signature, ToolCallError
            )
        if not calls and self.must:
            raise unreadable(completion.preview, "it calls no tool", self.signature)
        return calls[0] if calls else None

    def read(self, reply: str) -> dict[str, Any]:
        return self.parse(Completion(reply))

    def feed(self) -> ReplyFeed | None:
        return self.written.feed() if self.texts else None


def function_of(tool: Tool) -> dict[str, Any]:
    """A tool as OpenAI's dialect declares it."""
    return {"type": "function", "function": {key: value for key, value in tool.to_dict().items() if value != ""}}
