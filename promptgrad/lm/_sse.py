"""Server-sent events, and a reply of OpenAI's chat dialect put together from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from promptgrad.lm._citations import GROUNDING
from promptgrad.lm._stream import Listener, ReasoningDelta, TextDelta, ToolCallDelta

DONE = "[DONE]"
"""The data of the event after the last one."""


class EventReader:
    """Finds the events in the pieces of a stream of bytes."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterable[str]:
        """The data of the events that end in this piece."""
        plain = chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") and chunk.find(b"\n") == len(chunk) - 2
        if plain and not self._pending and not self._data:  # one event, as most pieces are
            return (chunk[6:-2].decode("utf-8", "replace"),)
        return self._lines(chunk)

    def _lines(self, chunk: bytes) -> list[str]:
        pending = self._pending
        found: list[str] = []
        pending += chunk
        end = pending.rfind(b"\n", max(len(pending) - len(chunk), 0)) + 1
        if not end:
            return found
        lines = pending[:end].decode("utf-8", "replace").split("\n")
        del pending[:end]
        for line in lines[:-1]:
            line = line.removesuffix("\r")
            if line.startswith("data:"):
                self._data.append(line[5:].removeprefix(" "))
            elif not line and self._data:
                found.append(self._data[0] if len(self._data) == 1 else "\n".join(self._data))
                self._data.clear()
        return found

    def rest(self) -> list[str]:
        """The data of the last event, which may lack its end."""
        if self._pending.startswith(b"data:"):
            self._data.append(self._pending[5:].decode("utf-8", "replace").strip())
        return ["\n".join(self._data)] if self._data else []


_TEXT_ALONE = frozenset({"content", "role"})


class Assembly:
    """A reply that comes in chunks. The listener receives each; together they are what a server sends at once.

    Attributes:
        ended: True once the server has given the reason for the end; without it the reply was cut.
    """

    def __init__(self, listener: Listener) -> None:
        self.ended = False
        self._listener = listener
        self._message: dict[str, Any] = {"content": None}
        self._choice: dict[str, Any] = {"message": self._message}
        self._reply: dict[str, Any] = {"choices": [self._choice]}
        self._texts: list[str] = []
        self._size = 0
        self._calls: list[dict[str, Any]] = []
        self._logprobs: list[Any] = []

    @property
    def size(self) -> int:
        """Number of characters of text so far."""
        return self._size

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Add the next chunk.

        Raises:
            KeyError, TypeError, AttributeError: It is not a chunk of this dialect.
        """
        for name in ("model", "usage", GROUNDING):
            if chunk.get(name):
                self._reply[name] = chunk[name]
        for choice in chunk.get("choices") or ():
            if choice.get("index"):
                continue  # a choice other than the first, which was not requested
            delta = choice.get("delta") or {}
            content = delta.get("content")
            if content and content.__class__ is str and (len(delta) == 1 or delta.keys() <= _TEXT_ALONE):
                self._add_text(content)
            else:
                self._add_delta(delta)
            if logprobs := choice.get("logprobs"):
                self._logprobs += logprobs.get("content") or ()
            for name in ("finish_reason", "native_finish_reason"):
                if choice.get(name):
                    self._choice[name] = choice[name]
                    self.ended = True

    def _add_delta(self, delta: Mapping[str, Any]) -> None:
        message, listener = self._message, self._listener
        for name in ("reasoning_content", "reasoning"):
            if delta.get(name):
                message[name] = message.get(name, "") + delta[name]
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if thought:
            listener.put(ReasoningDelta(thought))
        content = delta.get("content")
        if content:
            text = content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)
            self._add_text(text)
        if delta.get("refusal"):
            message["refusal"] = message.get("refusal", "") + delta["refusal"]
        for block in delta.get("thinking_blocks") or ():
            _merge_block(message.setdefault("thinking_blocks", []), block)
        for detail in delta.get("reasoning_details") or ():
            _merge_detail(message.setdefault("reasoning_details", []), detail)
        for name in ("images", "annotations"):
            if delta.get(name):
                message.setdefault(name, []).extend(delta[name])
        own = delta.get("provider_specific_fields")
        if own and own.get("citation"):  # litellm's, one at a time
            message.setdefault("provider_specific_fields", {"citations": []})["citations"].append([own["citation"]])
        for call in delta.get("tool_calls") or ():
            self._add_call(call)

    def _add_text(self, text: str) -> None:
        self._texts.append(text)
        self._size += len(text)
        if text:
            self._listener.put(TextDelta(text))

    def _add_call(self, piece: Mapping[str, Any]) -> None:
        function = piece.get("function") or {}
        place = piece.get("index")
        if place is None or place >= len(self._calls):
            place = len(self._calls) - (place is None and not piece.get("id") and bool(self._calls))
        elif piece.get("id") and self._calls[place]["id"] not in ("", piece["id"]):
            place = len(self._calls)  # some servers give every call the index 0
        if place == len(self._calls):
            self._calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        call = self._calls[place]
        for name, value in piece.items():
            if name not in ("index", "function", "type") and value:
                call[name] = value
        call["function"]["name"] = call["function"]["name"] or function.get("name") or ""
        arguments = function.get("arguments") or ""
        call["function"]["arguments"] += arguments
        self._listener.put(ToolCallDelta(place, piece.get("id") or "", function.get("name") or "", arguments))

    def reply(self) -> dict[str, Any]:
        """Return the complete reply."""
        if self._texts:
            self._message["content"] = "".join(self._texts)
        if self._calls:
            self._message["tool_calls"] = self._calls
        if self._logprobs:
            self._choice["logprobs"] = {"content": self._logprobs}
        return self._reply


def _merge_block(blocks: list[dict[str, Any]], block: Mapping[str, Any]) -> None:
    """Merge the pieces of a block of reasoning; the last piece has the signature."""
    last = blocks[-1] if blocks else {}
    if block.get("type") == last.get("type") == "thinking" and not last.get("signature"):
        last["thinking"] = (last.get("thinking") or "") + (block.get("thinking") or "")
        last["signature"] = block.get("signature")
    else:
        blocks.append(dict(block))


def _merge_detail(details: list[dict[str, Any]], detail: Mapping[str, Any]) -> None:
    """Merge the pieces of a detail: they have the same type and index, and their texts are concatenated."""
    last = details[-1] if details else {}
    if "index" in detail and (last.get("type"), last.get("index")) == (detail.get("type"), detail["index"]):
        for name, value in detail.items():
            grows = name in ("text", "summary", "data") and isinstance(value, str)
            if value is not None:
                last[name] = (last.get(name) or "") + value if grows else value
    else:
        details.append(dict(detail))
