"""OpenAI's chat dialect, which `HTTP` and `LiteLLM` speak: messages with parts as JSON, and replies back into parts."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from promptgrad.lm._citations import read_citations, write_document
from promptgrad.lm._completion import Completion, TokenLogprob
from promptgrad.lm._finish import message_of, reason_of
from promptgrad.lm._message import Message
from promptgrad.lm._parts import (
    AudioPart,
    Content,
    FilePart,
    ImagePart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolResult,
    flat,
    json_text,
    text_of,
)

_AUDIO_FORMATS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav", "mp4": "m4a", "x-m4a": "m4a"}
_CALL_FIELDS = frozenset({"id", "type", "function", "index"})


def write_messages(messages: Iterable[Message], *, documents: bool = False) -> list[dict[str, Any]]:
    """Return messages in the form of OpenAI's dialect; with `documents`, those to be cited in Anthropic's form.

    Each tool result becomes a separate message, before the other parts of its message. A failed result begins with
    "Error: ", because the dialect has no other mark for it.

    Raises:
        ValueError: A part is not allowed in its message.
    """
    written: list[dict[str, Any]] = []
    for message in messages:
        content = message.content if documents else flat(message.content)
        if isinstance(content, str):
            written.append({"role": message.role, "content": content})
            continue
        rest = []
        for part in content:
            if isinstance(part, ToolResult):
                written.append(_write_result(part))
            else:
                rest.append(part)
        if rest and message.role == "tool":
            raise ValueError(f"a message of the role 'tool' holds ToolResult parts alone, not {rest[0]}")
        if rest and message.role == "assistant":
            written.append(_write_assistant(rest))
        elif rest or not content:
            write = _write_cited if documents else _write_part
            written.append({"role": message.role, "content": [write(part) for part in rest]})
    return written


def _write_cited(part: Part) -> dict[str, Any]:
    document = write_document(part) if isinstance(part, (TextPart, FilePart)) else None
    return _write_part(part) if document is None else document


def _write_result(result: ToolResult) -> dict[str, Any]:
    content: Any = result.content
    if result.is_error:
        content = f"Error: {content}" if isinstance(content, str) else (TextPart("Error: "), *content)
    if not isinstance(content, str):
        content = [_write_part(part) for part in content]
    return {"role": "tool", "tool_call_id": result.id, "content": content}


def _write_assistant(parts: Sequence[Part]) -> dict[str, Any]:
    thoughts = [part for part in parts if isinstance(part, ReasoningPart)]
    calls = [part for part in parts if isinstance(part, ToolCall)]
    others = [part for part in parts if not isinstance(part, (ReasoningPart, ToolCall))]
    content: Any = text_of(tuple(others)) or None
    if not all(isinstance(part, TextPart) for part in others):
        content = [_write_part(part) for part in others]
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
                **(json.loads(call.data) if call.data else {}),
            }
            for call in calls
        ]
    text = "".join(part.text for part in thoughts)
    if text:
        message["reasoning_content"] = text
    blocks: list[Any] = []
    details: list[Any] = []
    for part in thoughts:
        if part.signature:
            blocks.append({"type": "thinking", "thinking": part.text, "signature": part.signature})
        if part.data:
            found = json.loads(part.data)
            details.extend(found) if isinstance(found, list) else blocks.append(found)
    if blocks:
        message["thinking_blocks"] = blocks
    if details:
        message["reasoning_details"] = details
    return message


def _write_part(part: Part) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, ImagePart):
        detail = {"detail": part.detail} if part.detail else {}
        return {"type": "image_url", "image_url": {"url": part.data_url, **detail}}
    if isinstance(part, AudioPart):
        if part.url:
            return {"type": "audio_url", "audio_url": {"url": part.url}}
        form = part.media_type.partition("/")[2]
        sound = {"data": b64encode(part.data).decode("ascii"), "format": _AUDIO_FORMATS.get(form, form)}
        return {"type": "input_audio", "input_audio": sound}
    if isinstance(part, FilePart):
        named = {"filename": part.name} if part.name else {}
        return {
            "type": "file",
            "file": {**named, **({"file_id": part.url} if part.url else {"file_data": part.data_url})},
        }
    raise ValueError(f"{part} stands in the message of an assistant, not in one of another role or in a tool's result")


def read_message(message: Mapping[str, Any]) -> tuple[Content, str]:
    """Return the content of a reply, and its refusal ("" for none). Reasoning comes first, tool calls last.

    Raises:
        KeyError, TypeError, ValueError: It is not a message of this dialect.
    """
    content = message["text"] if "content" not in message and "text" in message else message.get("content")
    refusal = _text(refused) if (refused := message.get("refusal")) else ""
    if isinstance(content, str) and message.keys().isdisjoint(_MORE):
        return content, refusal
    parts: list[Part] = [*_read_reasoning(message)]
    if isinstance(content, str):
        parts += [TextPart(content)] if content else []
    elif isinstance(content, list):
        for item in content:
            if item.get("type") == "refusal":
                refusal = refusal or _text(item["refusal"])
            else:
                parts += _read_part(item)
    elif content is not None:
        raise TypeError(f"content is {type(content).__name__}")
    elif message.keys().isdisjoint(_MORE | {"content", "refusal"}):
        raise KeyError("content")
    for image in message.get("images") or ():
        parts += _read_part(image)
    sound = message.get("audio")
    if sound:
        parts += [TextPart(_text(sound["transcript"]))] if sound.get("transcript") else []
        parts += [AudioPart(b64decode(sound["data"]), f"audio/{sound.get('format') or 'wav'}")]
    parts += [_read_call(call) for call in message.get("tool_calls") or ()]
    if all(isinstance(part, TextPart) for part in parts):
        return text_of(tuple(parts)), refusal
    return tuple(parts), refusal


_MORE = frozenset(
    {"tool_calls", "reasoning_content", "reasoning", "thinking_blocks", "reasoning_details", "images", "audio"}
)


def _read_reasoning(message: Mapping[str, Any]) -> list[ReasoningPart]:
    text = _text(message.get("reasoning_content") or message.get("reasoning") or "")
    blocks = message.get("thinking_blocks")
    if blocks:
        return [
            ReasoningPart(_text(block.get("thinking") or ""), _text(block.get("signature") or ""))
            if block.get("type") == "thinking"
            else ReasoningPart(data=json_text(block))
            for block in blocks
        ]
    details = message.get("reasoning_details")
    data = json_text(details) if details else ""
    return [ReasoningPart(text, data=data)] if text or data else []


def _read_part(item: Mapping[str, Any]) -> list[Part]:
    kind = item.get("type")
    if kind == "text":
        return [TextPart(_text(item["text"]))]
    if kind == "image_url":
        return [ImagePart(url=item["image_url"]["url"])]
    if kind == "thinking":
        thought = item["thinking"]
        text = thought if isinstance(thought, str) else "".join(piece.get("text", "") for piece in thought)
        return [ReasoningPart(text, _text(item.get("signature") or ""))]
    return []  # this version has no part for it


def _read_call(call: Mapping[str, Any]) -> ToolCall:
    function = call["function"]
    more = {name: value for name, value in call.items() if name not in _CALL_FIELDS and value is not None}
    arguments = function.get("arguments")
    if arguments is None:
        arguments = "{}"
    elif isinstance(arguments, Mapping):  # some servers send them as they are
        arguments = json_text(arguments)
    called = _text(call.get("id") or ""), _text(function["name"]), _text(arguments)
    return ToolCall(*called, json_text(more) if more else "")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} stands where a text is expected")
    return value


def read_logprobs(choice: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
    """Return the log-probabilities of a choice's tokens; empty where it has none."""
    found = choice.get("logprobs")
    items = found.get("content") if isinstance(found, Mapping) else None
    return tuple(
        TokenLogprob(
            item["token"],
            float(item["logprob"]),
            tuple((top["token"], float(top["logprob"])) for top in item.get("top_logprobs") or ()),
        )
        for item in items or ()
    )


def in_order(choices: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The choices of a reply by their numbers."""
    return sorted(choices, key=lambda choice: int(choice.get("index") or 0))


def read_more(choices: Sequence[Mapping[str, Any]]) -> tuple[Completion, ...]:
    """The further samples of a reply, which cost nothing of their own.

    Raises:
        KeyError, TypeError, ValueError: One is not a choice of this dialect.
    """
    found = []
    for choice in choices:
        reason = reason_of(choice)
        content, refusal = read_message(message := message_of(choice, reason))
        logprobs, citations = read_logprobs(choice), read_citations(message, {}, content)
        found.append(Completion(content, finish_reason=reason, refusal=refusal, logprobs=logprobs, citations=citations))
    return tuple(found)
