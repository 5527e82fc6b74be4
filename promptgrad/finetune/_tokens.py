"""Conversations as token ids, the way a local model reads its prompts and ends its replies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from promptgrad.errors import DataError
from promptgrad.finetune._conversation import Conversation
from promptgrad.lm import Local, Request, Tokens

Encoded = TypeVar("Encoded")


def encode(local: Local, sample: Conversation) -> Tokens:
    """The prompt exactly as the model gets it in a call, then the reply and the end of the turn."""
    prompt = local.encode(Request(tail=sample.messages))
    reply = _reply_ids(local.tokenizer, sample)
    return Tokens((*prompt, *reply), len(prompt))


def limit_of(local: Local, max_length: int | None) -> int | None:
    """The most tokens of a sample: `max_length` or the model's context, whichever is less."""
    context = getattr(local.model.config, "max_position_embeddings", None)
    return min((limit for limit in (max_length, context) if limit), default=None)


def too_long(limit: int | None) -> str:
    """The reason of samples that are longer than a limit."""
    return f"longer than {limit} tokens"


def fitting(
    local: Local,
    encoded: Sequence[Encoded],
    length: Callable[[Encoded], int],
    *,
    max_length: int | None = None,
    skip_long: bool = False,
) -> list[Encoded]:
    """Those of the samples, in tokens, that are short enough.

    Raises:
        DataError: One is longer than `max_length` or than the model's context, and `skip_long` is off; or none is
            short enough.
    """
    limit = limit_of(local, max_length)
    if limit is None:
        return list(encoded)
    fit = [sample for sample in encoded if length(sample) <= limit]
    if len(fit) < len(encoded) and (not skip_long or not fit):
        raise DataError(
            f"{len(encoded) - len(fit)} of {len(encoded)} samples are longer than {limit} tokens (the longest has "
            f"{max(map(length, encoded))}): show fewer demos, raise max_length if the model allows it, or pass "
            "skip_long=True"
        )
    return fit


def _reply_ids(tokenizer: Any, sample: Conversation) -> list[int]:
    """Tokens of the reply with the end of the turn, as the chat template writes an assistant message."""
    ends = _end_ids(tokenizer)
    text = _templated(tokenizer, sample)
    ids: list[int] = list(tokenizer(sample.reply if text is None else text, add_special_tokens=False)["input_ids"])
    for place, token in enumerate(ids):
        if token in ends:
            return ids[: place + 1]  # what a template writes after the end is never generated
    return [*ids, ends[0]] if ends else ids


def _templated(tokenizer: Any, sample: Conversation) -> str | None:
    """What the chat template adds for the reply; None where it does not simply follow the prompt."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    messages = [{"role": m.role, "content": m.content} for m in sample.messages]
    before: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    after: str = tokenizer.apply_chat_template(
        [*messages, {"role": "assistant", "content": sample.reply}], tokenize=False
    )
    return after[len(before) :] if after.startswith(before) else None


def _end_ids(tokenizer: Any) -> Sequence[int]:
    end = tokenizer.eos_token_id
    return [] if end is None else [end] if isinstance(end, int) else list(end)
