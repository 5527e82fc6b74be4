"""What is refused before it is sent: anything but text, or but what the way to a model can carry."""

from __future__ import annotations

from collections.abc import Sequence

from promptgrad.errors import InputError
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
)

_DEAF = ("anthropic", "claude")
_LOADED_HERE = frozenset({"gemini", "vertex_ai", "vertex_ai_beta", "bedrock", "ollama", "ollama_chat"})
"""Providers that take bytes alone, for which litellm would load addresses in this process."""


def refuse_parts(name: str, messages: Sequence[Message]) -> None:
    """Refuse messages that hold more than text, beside calls of tools, their results, and thoughts.

    Raises:
        InputError: A message does.
    """
    for number, message in enumerate(messages, 1):
        if isinstance(message.content, str):
            continue
        for part in message.content:
            if not (isinstance(part, TextPart) or _is_of_tools(message.role, part)):
                raise InputError(
                    f"local model {name!r} takes text alone, and message {number} ({message.role}) holds "
                    f"{part}: use an LM of a provider or a server (HTTP, LiteLLM) for it"
                )


def _is_of_tools(role: str, part: Part) -> bool:
    """Whether a part is one that a chat template may have a place for."""
    if role == "tool":
        return isinstance(part, ToolResult) and all(isinstance(one, TextPart) for one in _parts(part.content))
    return role == "assistant" and isinstance(part, (ToolCall, ReasoningPart))


def _parts(content: Content) -> Sequence[Part]:
    return () if isinstance(content, str) else content


def refuse_lost(model: str, messages: Sequence[Message]) -> None:
    """Refuse what litellm would leave out of a request to a model of Anthropic, without a word.

    Raises:
        InputError: A message holds a sound, or one of the assistant an image or a file.
    """
    if not any(word in model.lower() for word in _DEAF):
        return
    for number, message in enumerate(messages, 1):
        for part in () if isinstance(message.content, str) else message.content:
            if isinstance(part, AudioPart):
                raise InputError(
                    f"{model!r} takes no sound, and message {number} ({message.role}) holds {part}: write down what is "
                    "said, or use a model that hears, such as 'gemini/...' or 'openai/gpt-audio'"
                )
            if message.role == "assistant" and isinstance(part, (ImagePart, FilePart)):
                raise InputError(
                    f"{model!r} takes texts alone of the assistant, and message {number} holds {part}: show it in a "
                    "turn of the user, or use a model that draws, such as 'gemini/...'"
                )


def refuse_addresses(model: str, messages: Sequence[Message]) -> None:
    """Refuse addresses of images and files for providers that do not load them: litellm would load them here.

    An address may come from anywhere, and what it names may be meant for this machine alone.

    Raises:
        InputError: A message holds one.
    """
    loaded = "http:" if any(word in model.lower() for word in _DEAF) else ""
    loaded = "http" if model.partition("/")[0] in _LOADED_HERE else loaded
    if not loaded:
        return
    for number, message in enumerate(messages, 1):
        for part in () if isinstance(message.content, str) else message.content:
            if isinstance(part, (ImagePart, AudioPart, FilePart)) and part.url.startswith(loaded):
                raise InputError(
                    f"{model!r} loads nothing from {part}, in message {number} ({message.role}), and nothing is loaded "
                    f"here: load it yourself, and pass its bytes, {type(part).__name__}(data)"
                )
