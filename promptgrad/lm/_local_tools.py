"""Tools of a local model: declared and shown as its chat template does it, and called as the model writes it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from promptgrad._patterns import late_pattern
from promptgrad.errors import InputError
from promptgrad.lm._dialect import write_messages
from promptgrad.lm._json_grammar import json_rule
from promptgrad.lm._message import Message
from promptgrad.lm._parts import Content, Part, ReasoningPart, TextPart, ToolCall, ToolResult
from promptgrad.lm._request import Request
from promptgrad.lm._stream import Listener, TextDelta, ToolCallDelta

OPTIONS = ("tools", "tool_choice", "parallel_tool_calls")
"""Options of a request that are about tools."""

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_ARGUMENTS = late_pattern(r'"(?:arguments|parameters)"\s*:\s*')
_DECODER = json.JSONDecoder()
_CALL = late_pattern(rf"{_OPEN}\s*(\{{.*?\}})\s*(?:{_CLOSE}|\Z)", re.DOTALL)

_CALL_ENDS = late_pattern(rf"\}}\s*(?:{_CLOSE}|\Z)")


def tools_of(request: Request) -> list[dict[str, Any]]:
    """The tools that a request declares, as JSON objects; none where it forbids their use."""
    extra = dict(request.extra)
    if "tools" not in extra or extra.get("tool_choice") == '"none"':
        return []
    tools: list[dict[str, Any]] = json.loads(extra["tools"])
    return tools


def knows_tools(tokenizer: Any, tools: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the chat template of a tokenizer has a place for tools."""
    if not tokenizer.chat_template:
        return False
    template: str = tokenizer.get_chat_template(tools=list(tools) or [{}])
    return "tools" in template


def check_tools(name: str, tokenizer: Any, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> None:
    """Refuse tools, and messages that call them, for a model whose chat template has no place for them.

    Raises:
        InputError: It has none.
    """
    if not (tools or any(_uses_tools(message) for message in messages)) or knows_tools(tokenizer, tools):
        return
    raise InputError(
        f"the chat template of local model {name!r} has no place for tools, and the request has some: use a model that "
        "was trained for them, or describe them in words, as nn.ReAct does with native=False"
    )


def _uses_tools(message: Message) -> bool:
    return not isinstance(message.content, str) and any(
        isinstance(part, (ToolCall, ToolResult)) for part in message.content
    )


def template_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as chat templates read them: arguments of calls as objects, results with the names of their tools."""
    names: dict[str, str] = {}
    plain = []
    for message in write_messages(messages):
        content = message["content"]
        if isinstance(content, list):
            content = "".join(part["text"] for part in content)
        made = {"role": message["role"], "content": content or ""}
        if message.get("reasoning_content"):
            made["reasoning_content"] = message["reasoning_content"]
        for call in message.get("tool_calls", ()):
            function = call["function"]
            names[call["id"]] = function["name"]
            told = {"name": function["name"], "arguments": _object(function["arguments"])}
            made.setdefault("tool_calls", []).append({"id": call["id"], "type": "function", "function": told})
        if message["role"] == "tool":
            made |= {"tool_call_id": message["tool_call_id"], "name": names.get(message["tool_call_id"], "")}
        plain.append(made)
    return plain


def _object(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except ValueError:
        return text


def call_grammar(request: Request, tokenizer: Any) -> str | None:
    """The form of a reply that has to call a tool, as most chat templates say it; None where none has to be called."""
    choice = json.loads(dict(request.extra).get("tool_choice", "null"))
    tools = tools_of(request)
    if choice is None or choice == "auto" or not tools or _OPEN not in tokenizer.get_chat_template(tools=tools):
        return None
    forced = choice["function"]["name"] if isinstance(choice, dict) else ""
    functions = [tool["function"] for tool in tools if forced in ("", tool["function"]["name"])]
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": function["name"]},
                "arguments": function.get("parameters") or {"type": "object"},
            },
            "required": ["name", "arguments"],
        }
        for function in functions
    ]
    defined: dict[str, Any] = {}
    for call in calls:
        arguments = dict(call["properties"]["arguments"])  # type: ignore[index]
        defined |= arguments.pop("$defs", {})
        call["properties"]["arguments"] = arguments  # type: ignore[index]
    schema = {**(calls[0] if len(calls) == 1 else {"anyOf": calls}), **({"$defs": defined} if defined else {})}
    special = {*tokenizer.all_special_tokens}
    head, tail = (sign if sign in special else json.dumps(sign) for sign in (_OPEN, _CLOSE))
    return f'start: /[ \\n]{{0,2}}/ {head} "\\n" call "\\n" {tail}\ncall: {json_rule(schema)}\n'


def read_calls(text: str, number: str) -> Content:
    """A reply with the calls of tools in it, `<tool_call>{"name": ..., "arguments": ...}</tool_call>`, as parts.

    Args:
        text: The reply.
        number: What the ids of the calls begin with.
    """
    parts: list[Part] = []
    at = last = 0
    for end in _CALL_ENDS.finditer(text):
        last = end.end()
    for found in _CALL.finditer(text, 0, last):  # nothing that begins behind the last end is a call
        call = _call(found[1], f"{number}_{len(parts)}")
        if call is None:
            continue  # what cannot be read stays in the text
        if before := text[at : found.start()].strip():
            parts.append(TextPart(before))
        parts.append(call)
        at = found.end()
    if not parts:
        return text
    if rest := text[at:].strip():
        parts.append(TextPart(rest))
    texts = [part for part in parts if isinstance(part, TextPart)]
    return (*texts, *(part for part in parts if isinstance(part, ToolCall)))


def _call(text: str, number: str) -> ToolCall | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        return None
    arguments: Any = found.get("arguments", found.get("parameters", {}))
    return ToolCall(number, found["name"], _as_written(text, arguments))


def _as_written(text: str, arguments: Any) -> str:
    """The arguments in the text of a call, with its digits: 1e999 is no float, and 0.10 not 0.1."""
    if isinstance(arguments, str):
        return arguments
    for key in _ARGUMENTS.finditer(text):
        value, end = _DECODER.raw_decode(text, key.end())
        if value == arguments:
            return text[key.end() : end]
    return json.dumps(arguments, ensure_ascii=False)


class CallFeed:
    """Passes a reply that may call tools to a listener as it is written: texts as they come, a call when it is whole.

    Together the pieces are what `read_calls` makes of the whole.

    Args:
        listener: The listener.
        number: What the ids of the calls begin with.
    """

    def __init__(self, listener: Listener, number: str) -> None:
        self._listener = listener
        self._number = number
        self._pending = ""  # not told yet: it may be a call, or the beginning of one
        self._blanks = ""  # behind a text, which they belong to if more of it comes
        self._in_text = False
        self._parts = 0
        self._calls = 0

    def put(self, delta: TextDelta) -> None:
        """Add a piece of the text, with the signs of calls in it."""
        self._pending += delta.text
        while _OPEN in self._pending:
            before, _, rest = self._pending.partition(_OPEN)
            self._tell(before)
            self._pending = _OPEN + rest
            if _CLOSE not in rest:
                return
            inside, _, self._pending = rest.partition(_CLOSE)
            self._tell_call(f"{_OPEN}{inside}{_CLOSE}")
        held = next((size for size in range(len(_OPEN) - 1, 0, -1) if self._pending.endswith(_OPEN[:size])), 0)
        certain = len(self._pending) - held
        self._tell(self._pending[:certain])
        self._pending = self._pending[certain:]

    def close(self) -> None:
        """Tell what is left at the end: a call whose end is missing, or a text."""
        left, self._pending = self._pending, ""
        if left.startswith(_OPEN):
            self._tell_call(left)
        else:
            self._tell(left)

    def _tell(self, text: str) -> None:
        whole = self._blanks + text if self._in_text else text.lstrip()
        said = whole.rstrip()
        if said:
            self._in_text = True
            self._listener.put(TextDelta(said))
        self._blanks = whole[len(said) :] if self._in_text else ""

    def _tell_call(self, text: str) -> None:
        found = _CALL.fullmatch(text)
        call = None if found is None else _call(found[1], f"{self._number}_{self._parts}")
        if call is None:  # what cannot be read stays in the text
            self._tell(text)
            return
        self._listener.put(ToolCallDelta(self._calls, call.id, call.name, call.arguments))
        self._parts, self._calls = self._parts + self._in_text + 1, self._calls + 1
        self._in_text, self._blanks = False, ""


def of_message(message: Mapping[str, Any], number: str) -> Content:
    """A reply as transformers parses it by a model's response template, as parts."""
    parts: list[Part] = []
    thought = message.get("reasoning_content") or message.get("reasoning") or message.get("thinking")
    if thought:
        parts.append(ReasoningPart(str(thought)))
    if message.get("content"):
        parts.append(TextPart(str(message["content"])))
    for place, call in enumerate(message.get("tool_calls") or ()):
        function = call.get("function", call)
        arguments: Any = function.get("arguments") or {}
        said = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        parts.append(ToolCall(f"{number}_{place}", function["name"], said))
    if len(parts) == 1 and isinstance(parts[0], TextPart):
        return parts[0].text
    return tuple(parts) if parts else ""
