"""A given reply in tokens, as a local model would write it: with the end of its turn, and nothing after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from promptgrad.errors import InputError
from promptgrad.lm._local_tools import template_messages
from promptgrad.lm._message import Message
from promptgrad.lm._parts import Content, ToolCall, text_of


def reply_ids(
    tokenizer: Any, messages: Sequence[Message], reply: Content, tools: Sequence[Mapping[str, Any]] = ()
) -> list[int]:
    """Tokens of a reply to messages, up to the end of the turn, as the chat template writes an assistant message.

    Args:
        tokenizer: The tokenizer.
        messages: The messages.
        reply: The reply: a text, or a text and calls of tools.
        tools: The tools that the request declares.

    Raises:
        InputError: The reply has calls, and the template does not write them behind the prompt.
    """
    ends = _end_ids(tokenizer)
    text = _templated(tokenizer, messages, reply, tools)
    if text is None:
        text = text_of(reply)
        if not isinstance(reply, str) and any(isinstance(part, ToolCall) for part in reply):
            raise InputError(
                "the chat template of the model does not write calls of tools behind its prompt, so such a reply has "
                "no tokens: leave it out, or use a model whose template has a place for them"
            )
    ids: list[int] = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    for place, token in enumerate(ids):
        if token in ends:
            return ids[: place + 1]  # what a template writes after the end is never generated
    return [*ids, ends[0]] if ends else ids


def _templated(
    tokenizer: Any, messages: Sequence[Message], reply: Content, tools: Sequence[Mapping[str, Any]]
) -> str | None:
    """What the chat template adds for the reply; None where it does not simply follow the prompt."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    told = {"tools": list(tools)} if tools else {}
    *plain, last = template_messages([*messages, Message("assistant", reply)])
    before: str = tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True, **told)
    after: str = tokenizer.apply_chat_template([*plain, last], tokenize=False, **told)
    return after[len(before) :] if after.startswith(before) else None


def _end_ids(tokenizer: Any) -> Sequence[int]:
    end = tokenizer.eos_token_id
    return [] if end is None else [end] if isinstance(end, int) else list(end)
