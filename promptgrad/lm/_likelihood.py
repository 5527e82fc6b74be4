"""Log-probabilities of the replies of a batch; what their prompts begin with in common is computed once.

All samples of one module begin with the same instruction and demos. That prefix goes through the model once, with its
graph; its keys and values are expanded over the rows; the rest of each row follows behind them. The gradient is exact:
each part's backward pass adds to the gradient of the keys and values, and the prefix's own backward pass takes it on.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptgrad._accepts import Accepts, is_seq2seq

if TYPE_CHECKING:
    import torch

PART_TOKENS = 8192
"""Most places of one part, padding included; a shared place of a row counts an eighth, since only its keys are kept."""

PASS_TOKENS = 64
"""What one more forward and backward pass costs beside its tokens, in tokens."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """One conversation in tokens: the prompt, then the reply.

    Attributes:
        ids: Prompt and reply.
        start: Where the reply begins; only tokens from there on count in a loss.
        temperature: The temperature at which the log-probabilities of the reply are wanted.
    """

    ids: tuple[int, ...]
    start: int
    temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class Scored:
    """Some rows of a batch after their forward pass.

    Attributes:
        rows: Places in the batch.
        logprobs: Log-probability of each reply token, in nats; 0 at padding. Shape: (rows, longest reply or more).
        mask: True at reply tokens, same shape.
    """

    rows: tuple[int, ...]
    logprobs: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True, slots=True)
class Shared:
    """Rows that share their first `prefix` tokens, in parts of bounded size."""

    prefix: int
    parts: tuple[tuple[int, ...], ...]


def reply_logprobs(
    model: Any, batch: Sequence[Tokens], *, shared: bool = True, limit: int = PART_TOKENS
) -> Iterator[Scored]:
    """The rows of a batch, part by part, with the log-probabilities of their reply tokens.

    Call `backward` on what is made of a part before the next one is asked for, and go on to the end: the gradient of
    the shared prefixes is passed on between groups. Without gradients it just computes.

    Cost: for each group one pass over the prefix, and one over the rest of its rows.

    Args:
        model: A Hugging Face language model. The encoder of a sequence-to-sequence model reads each prompt of a part
            once, whole.
        batch: Conversations in tokens.
        shared: Compute common prefixes once where that pays. Layers whose state is no plain keys and values, and
            gradient checkpointing, do without.
        limit: Most places of one part, padding included; a single row may have more. It bounds the memory.
    """
    import torch

    if is_seq2seq(model):
        for rows in _cut_by_length([len(tokens.ids) for tokens in batch], range(len(batch)), limit):
            yield _seq2seq_part(model, batch, rows)
        return
    for group in plan(batch, shared=shared and _shares(model), limit=limit):
        prefix = _Prefix(model, batch[group.parts[0][0]].ids[: group.prefix]) if group.prefix else None
        for rows in group.parts:
            yield _part(model, batch, rows, prefix)
        if prefix is not None and torch.is_grad_enabled():
            prefix.backward()


def plan(batch: Sequence[Tokens], *, shared: bool = True, limit: int = PART_TOKENS) -> list[Shared]:
    """Groups of rows and parts of groups such that few tokens go through the model.

    Neighbours in the order of their tokens share most, so groups are runs of that order; and parts are runs of the
    order of lengths. Both are cut where it costs least.
    """
    order = sorted(range(len(batch)), key=lambda row: batch[row].ids)
    if not shared:
        return [Shared(0, tuple(_cut_by_length([len(row.ids) for row in batch], order, limit)))]
    common = [_common(batch[a], batch[b]) for a, b in itertools.pairwise(order)]
    best: list[tuple[float, int, int]] = [(0.0, 0, 0)]
    for end in range(1, len(order) + 1):
        choices = []
        prefix = len(batch[order[end - 1]].ids)
        whole = 0
        for start in range(end - 1, -1, -1):
            row = batch[order[start]]
            prefix = min(prefix, row.start - 1, common[start] if start < end - 1 else prefix)
            whole += len(row.ids)
            used = max(prefix, 0) if end - start > 1 else 0
            cost = whole - used * (end - start) + (used + PASS_TOKENS if used else 0) + PASS_TOKENS
            choices.append((best[start][0] + cost, start, used))
            apart = best[start][0] + whole + PASS_TOKENS
            if used and apart < choices[-1][0]:
                choices[-1] = (apart, start, 0)
        best.append(min(choices))
    groups: list[Shared] = []
    end = len(order)
    while end:
        _, start, prefix = best[end]
        rows = order[start:end]
        lengths = [len(tokens.ids) - prefix for tokens in batch]
        groups.append(Shared(prefix, tuple(_cut_by_length(lengths, rows, limit, prefix / 8))))
        end = start
    return groups[::-1]


def _common(one: Tokens, other: Tokens) -> int:
    same = 0
    for a, b in zip(one.ids, other.ids, strict=False):
        if a != b:
            break
        same += 1
    return same


def _cut_by_length(
    lengths: Sequence[int], rows: Sequence[int], limit: int, held: float = 0.0
) -> Iterator[tuple[int, ...]]:
    """Rows in parts of similar length, each within the limit, with the least padding that is worth its passes."""
    order = sorted(rows, key=lambda row: (lengths[row], row))
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(order) + 1):
        width = lengths[order[end - 1]]
        choices = []
        for start in range(end - 1, -1, -1):
            places = (end - start) * width
            if start < end - 1 and places + (end - start) * held > limit:
                break
            choices.append((best[start][0] + places + PASS_TOKENS, start))
        best.append(min(choices))
    cuts = [len(order)]
    while cuts[-1]:
        cuts.append(best[cuts[-1]][1])
    for start, end in zip(cuts[:0:-1], cuts[-2::-1], strict=True):
        yield tuple(order[start:end])


def _shares(model: Any) -> bool:
    """Whether keys and values of a prefix can be kept with their graph and expanded over rows."""
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if any(getattr(module, "gradient_checkpointing", False) for module in base.modules()):
        return False
    layers = DynamicCache(config=model.config).layers
    return bool(layers) and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


class _Prefix:
    """The keys and values of a prefix, as leaves of the graphs behind it."""

    def __init__(self, model: Any, ids: Sequence[int]) -> None:
        import torch
        from transformers.cache_utils import DynamicCache

        device = model.device
        cache = DynamicCache(config=model.config)
        accepts = Accepts(model)
        model(input_ids=torch.tensor([ids], device=device), **accepts.cache(cache), **accepts.last(1))
        self.length = len(ids)
        self._cache = cache
        self._made = [state for layer in cache.layers for state in (layer.keys, layer.values)]
        self._leaves = [state.detach().requires_grad_(state.requires_grad) for state in self._made]

    def expanded(self, rows: int) -> Any:
        """A cache with the prefix in each of some rows."""
        cache = copy.copy(self._cache)
        cache.layers = [copy.copy(layer) for layer in self._cache.layers]
        for index, layer in enumerate(cache.layers):
            keys, values = self._leaves[2 * index : 2 * index + 2]
            layer.keys, layer.values = keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)
        return cache

    def backward(self) -> None:
        """Pass on to the weights what the parts have added to the gradient of the keys and values."""
        import torch

        pairs = [(made, leaf.grad) for made, leaf in zip(self._made, self._leaves, strict=True)]
        pairs = [(made, grad) for made, grad in pairs if grad is not None]
        if pairs:
            torch.autograd.backward([made for made, _ in pairs], [grad for _, grad in pairs])


def _part(model: Any, batch: Sequence[Tokens], rows: tuple[int, ...], prefix: _Prefix | None) -> Scored:
    import torch

    done = 0 if prefix is None else prefix.length
    width = max(len(batch[row].ids) for row in rows) - done
    first = min(batch[row].start for row in rows) - done  # the place before it foretells the first reply token
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    seen = torch.zeros((len(rows), done + width), dtype=torch.long)
    counts = torch.zeros((len(rows), width), dtype=torch.bool)
    for place, row in enumerate(rows):
        tokens = batch[row]
        length = len(tokens.ids) - done
        ids[place, :length] = torch.tensor(tokens.ids[done:])
        seen[place, : done + length] = 1
        counts[place, tokens.start - done : length] = True
    device = model.device
    ids, seen, counts = ids.to(device), seen.to(device), counts.to(device)
    accepts = Accepts(model)
    past = {"use_cache": False} if prefix is None else accepts.cache(prefix.expanded(len(rows)))
    kept = width - max(first - 1, 0)
    logits = model(input_ids=ids, attention_mask=seen, **past, **accepts.last(kept)).logits[:, -kept:-1]
    heat = torch.tensor([batch[row].temperature for row in rows], device=device)
    logits = logits.float() / heat[:, None, None]
    return _scored(rows, logits, ids[:, width - kept + 1 :], counts[:, width - kept + 1 :])


def _scored(rows: tuple[int, ...], logits: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> Scored:
    import torch

    logprobs = -torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.masked_fill(~mask, -100).flatten(), ignore_index=-100, reduction="none"
    )
    return Scored(rows, logprobs.view(mask.shape), mask)


def _seq2seq_part(model: Any, batch: Sequence[Tokens], rows: tuple[int, ...]) -> Scored:
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    prompts: dict[tuple[int, ...], int] = {}
    places = [prompts.setdefault(batch[row].ids[: batch[row].start], len(prompts)) for row in rows]
    replies = [batch[row].ids[batch[row].start :] for row in rows]
    starts = Accepts(model).starts
    ids, seen = _padded(list(prompts), model.device)
    targets, mask = _padded(replies, model.device)
    read = model.get_encoder()(input_ids=ids, attention_mask=seen).last_hidden_state
    chosen = torch.tensor(places, device=model.device)
    before = torch.tensor([starts] * len(rows), device=model.device)
    out = model(
        encoder_outputs=BaseModelOutput(last_hidden_state=read[chosen]),
        attention_mask=seen[chosen],
        decoder_input_ids=torch.cat([before, targets[:, :-1]], 1),
        use_cache=False,
    )
    heat = torch.tensor([batch[row].temperature for row in rows], device=model.device)
    return _scored(rows, out.logits[:, len(starts) - 1 :].float() / heat[:, None, None], targets, mask.bool())


def _padded(rows: Sequence[Sequence[int]], device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens in one tensor, and a mask of those that are."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=torch.long, device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    return ids, mask
