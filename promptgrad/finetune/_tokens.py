"""Conversations as token ids, the way a local model reads its prompts and ends its replies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from promptgrad.errors import DataError
from promptgrad.finetune._conversation import Conversation
from promptgrad.lm import Local, Request, Tokens

Encoded = TypeVar("Encoded")


def encode(local: Local, sample: Conversation) -> Tokens:
    """The prompt exactly as the model gets it in a call, then the reply and the end of the turn."""
    declared = (("tools", sample.tools),) if sample.tools else ()
    return local.target(Request(tail=sample.messages, extra=declared), sample.content).tokens()


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
    if len(fit) == len(encoded) or (skip_long and fit):
        return fit
    lengths = [length(sample) for sample in encoded]
    raised = limit == max_length
    do = ["show fewer demos", "raise max_length" if raised else "take a model that reads more"]
    if fit:
        which = f"{len(encoded) - len(fit)} of {len(encoded)} samples are longer than {limit} tokens"
        do.append("pass skip_long=True")
    else:
        left = ", so that skip_long=True would leave none" if skip_long else ""
        which = f"every sample (there are {len(encoded)}) is longer than {limit} tokens{left}"
    sizes = f"the longest has {max(lengths)}" if fit else f"the shortest has {min(lengths)}"
    raise DataError(f"{which} ({sizes}): {', '.join(do[:-1])}{',' * (len(do) > 2)} or {do[-1]}")
