"""What a model that takes text alone refuses."""

from __future__ import annotations

from collections.abc import Sequence

from promptgrad.errors import InputError
from promptgrad.lm._message import Message
from promptgrad.lm._parts import TextPart


def refuse_parts(name: str, messages: Sequence[Message]) -> None:
    """Refuse messages that hold more than text.

    Raises:
        InputError: A message does.
    """
    for number, message in enumerate(messages, 1):
        if isinstance(message.content, str):
            continue
        for part in message.content:
            if not isinstance(part, TextPart):
                raise InputError(
                    f"local model {name!r} takes text alone, and message {number} ({message.role}) holds "
                    f"{part}: use an LM of a provider or a server (HTTP, LiteLLM) for it"
                )
