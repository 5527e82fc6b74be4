"""Log-probabilities of the replies of a batch; what their prompts begin with in common is computed once.

All samples of one module begin with the same instruction and demos, and the runs of one example have a whole prompt in
common. So rows are one sequence, in which each of these is once, and attention alone knows which tokens belong together
(`_tree.py`). Where a model's attention cannot be told, or all of it does not fit, the prefix goes through the model on
its own, with its graph; its keys and values are expanded over the rows, and the rest of each row follows behind them
(`_stem.py`): each part's backward pass adds to the gradient of the keys and values, and the prefix's own takes it on.
The gradient is exact in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptgrad._accepts import Accepts, is_seq2seq
from promptgrad.lm._prefix_plan import PART_TOKENS, Rows, cut_by_length, plan, segments
from promptgrad.lm._reply_places import ReplyPlaces
from promptgrad.lm._stem import Stem, keeps_stems
from promptgrad.lm._tree import Tree, attended, takes_trees

if TYPE_CHECKING:
    import torch


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


def reply_logprobs(
    model: Any, batch: Sequence[Tokens], *, shared: bool = True, limit: int = PART_TOKENS
) -> Iterator[Scored]:
    """The rows of a batch, part by part, with the log-probabilities of their reply tokens.

    Call `backward` on what is made of a part before the next one is asked for, and go on to the end: the gradient of
    the shared prefixes is passed on between groups. Without gradients it just computes.

    Cost: one pass for each group of rows, in which each token of prefixes and whole prompts that rows have in common
    goes through the model once, without padding. Where its attention cannot be told which tokens belong together (it
    has a window, say), or a group is larger than `limit`: one pass over the prefix, and one for each part of the rest.
    Logits are made of the places alone that foretell a token of a reply.

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
        for rows in cut_by_length([len(tokens.ids) for tokens in batch], range(len(batch)), limit):
            yield _seq2seq_part(model, batch, rows)
        return
    shared = shared and keeps_stems(model)
    for group in plan(batch, shared=shared, trees=shared and takes_trees(model), limit=limit):
        for rows in group.packs:
            yield _pack(model, batch, rows, group.prefix)
        if not group.parts:
            continue
        stem = Stem(model, batch[group.parts[0][0]].ids[: group.prefix]) if group.prefix else None
        for rows in group.parts:
            yield _part(model, batch, rows, stem)
        if stem is not None and torch.is_grad_enabled():
            stem.backward()


def passes(batch: Sequence[Tokens], *, limit: int = PART_TOKENS) -> int:
    """How many passes `reply_logprobs(model, batch, shared=False)` makes."""
    return sum(len(group.parts) for group in plan(batch, shared=False, limit=limit)) if batch else 0


def _pack(model: Any, batch: Sequence[Tokens], rows: Rows, prefix: int) -> Scored:
    """Some rows as one sequence, in which their common tokens are once."""
    import torch

    places: list[int] = []
    tree = Tree(batch[rows[0]].ids[:prefix], segments(batch, rows, prefix))
    for start, segment, row in zip(tree.starts[-len(rows) :], tree.segments[-len(rows) :], rows, strict=True):
        count = _count(batch[row])
        end = start + len(segment.ids) - 1  # the place before a token foretells it
        places += range(end - count, end)
    chosen = torch.tensor(places, device=model.device)
    rewind = _rewinder(model.device)
    with attended(model, tree, places), ReplyPlaces(model, chosen, (1, len(tree.ids))) as reply:
        out = model(**tree.options(model))
    if reply.void or not takes_trees(model):
        rewind()
        return _part(model, batch, rows, None)
    return _scored(batch, rows, reply.chosen(out.logits))


def _part(model: Any, batch: Sequence[Tokens], rows: Rows, stem: Stem | None) -> Scored:
    """Some rows behind a stem, or whole."""
    import torch

    done = 0 if stem is None else stem.length
    own = [batch[row].ids[done:] for row in rows]
    width = max(map(len, own))
    ids = torch.tensor([[*tokens, *[0] * (width - len(tokens))] for tokens in own], device=model.device)
    accepts = Accepts(model)
    past = {"use_cache": False} if stem is None else accepts.cache(stem.expanded(len(rows)))
    kept = width - min(len(tokens) - _count(batch[row]) - 1 for tokens, row in zip(own, rows, strict=True))
    shown = kept if accepts.last(kept) else width
    places: list[int] = []
    for number, (tokens, row) in enumerate(zip(own, rows, strict=True)):
        end = number * shown + len(tokens) - 1 - (width - shown)
        places += range(end - _count(batch[row]), end)
    rewind = _rewinder(model.device)
    with ReplyPlaces(model, torch.tensor(places, device=model.device), (len(rows), shown)) as reply:
        # no mask: what fills a row up is behind all that counts, which does not attend to it
        out = model(input_ids=ids, **past, **accepts.last(kept))
    if reply.void:
        rewind()
        return _part(model, batch, rows, stem)
    return _scored(batch, rows, reply.chosen(out.logits))


def _rewinder(device: Any) -> Callable[[], None]:
    """Sets torch's random numbers back to where they are now: a pass that is made again drops out the same.

    Models are found out once in a process, so a training that is killed and goes on in another one may not differ.
    """
    import torch

    before = torch.get_rng_state()
    of_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def rewind() -> None:
        torch.set_rng_state(before)
        if of_gpu is not None:
            torch.cuda.set_rng_state(of_gpu, device)

    return rewind


def _count(tokens: Tokens) -> int:
    """How many tokens of a reply have a probability: all, but for the first one of a row without a prompt."""
    return len(tokens.ids) - max(tokens.start, 1)


def _scored(batch: Sequence[Tokens], rows: Rows, logits: torch.Tensor) -> Scored:
    """The rows, from the logits before each of their reply tokens, one row after the other."""
    import torch

    counts = [_count(batch[row]) for row in rows]
    targets = [token for row, count in zip(rows, counts, strict=True) for token in batch[row].ids[-count:]]
    logits = logits if logits.dtype.itemsize > 4 else logits.float()
    if any(batch[row].temperature != 1.0 for row in rows):
        heat = [batch[row].temperature for row, count in zip(rows, counts, strict=True) for _ in range(count)]
        logits = logits / torch.tensor(heat, device=logits.device)[:, None]
    wanted = torch.tensor(targets, dtype=torch.long, device=logits.device)
    logprobs = -torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
    mask = torch.arange(max(counts), device=logits.device)[None] < torch.tensor(counts, device=logits.device)[:, None]
    return Scored(rows, logprobs.new_zeros(mask.shape).masked_scatter(mask, logprobs), mask)


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
    logits = out.logits[:, len(starts) - 1 :].float() / heat[:, None, None]
    logprobs = -torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.masked_fill(~mask.bool(), -100).flatten(), ignore_index=-100, reduction="none"
    )
    return Scored(rows, logprobs.view(mask.shape), mask.bool())


def _padded(rows: Sequence[Sequence[int]], device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens in one tensor, and a mask of those that are."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=torch.long, device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    return ids, mask
