"""A given reply in tokens, as a local model would write it: with the end of its turn, and nothing after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from promptgrad.lm._local_tools import template_messages

if TYPE_CHECKING:
    from promptgrad.lm._message import Message


def reply_ids(tokenizer: Any, messages: Sequence[Message], reply: str) -> list[int]:
    """Tokens of a reply to messages, up to the end of the turn, as the chat template writes an assistant message."""
    ends = _end_ids(tokenizer)
    text = _templated(tokenizer, messages, reply)
    ids: list[int] = list(tokenizer(reply if text is None else text, add_special_tokens=False)["input_ids"])
    for place, token in enumerate(ids):
        if token in ends:
            return ids[: place + 1]  # what a template writes after the end is never generated
    return [*ids, ends[0]] if ends else ids


def _templated(tokenizer: Any, messages: Sequence[Message], reply: str) -> str | None:
    """What the chat template adds for the reply; None where it does not simply follow the prompt."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    plain = template_messages(messages)
    before: str = tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
    after: str = tokenizer.apply_chat_template([*plain, {"role": "assistant", "content": reply}], tokenize=False)
    return after[len(before) :] if after.startswith(before) else None


def _end_ids(tokenizer: Any) -> Sequence[int]:
    end = tokenizer.eos_token_id
    return [] if end is None else [end] if isinstance(end, int) else list(end)
