"""Direct preference optimization: better replies become likelier than worse ones, without a reward model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from promptgrad import aio, lm
from promptgrad._habits import refuses
from promptgrad._numbers import check_count, check_number
from promptgrad.data import Example
from promptgrad.errors import DataError
from promptgrad.finetune._conversation import Conversation, Preference
from promptgrad.finetune._fsdp import parts
from promptgrad.finetune._habits import TUNE_HABITS
from promptgrad.finetune._kept_runs import about_runs, once
from promptgrad.finetune._local_lms import LORA, local_lms
from promptgrad.finetune._preference import Preferences, acollect_preferences
from promptgrad.finetune._sample import listed
from promptgrad.finetune._tokens import encode
from promptgrad.finetune._train import Objective
from promptgrad.finetune._training import WHOLE, Share
from promptgrad.finetune._tune import Recipe, TuneOptions, TuneResult, atune
from promptgrad.lm import Tokens
from promptgrad.nn import Module


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference in tokens."""

    chosen: Tokens
    rejected: Tokens


@refuses(TUNE_HABITS, "dpo")
async def adpo(
    program: Module,
    data: Iterable[Example] | Iterable[Preference] | Preferences,
    metric: Any = None,
    *,
    n: int = 4,
    beta: float = 0.1,
    lora: Mapping[str, Any] | str | None = LORA,
    steps: int | None = None,
    epochs: float | None = None,
    lr: float | None = None,
    batch_size: int = 16,
    max_length: int | None = None,
    skip_long: bool = False,
    seed: int = 0,
    concurrency: int | None = None,
    progress: bool | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 50,
    micro_batch_tokens: int | None = None,
    gradient_checkpointing: bool = False,
    dtype: Any = None,
    warmup: float = 0.05,
    weight_decay: float = 0.0,
    max_norm: float = 1.0,
    fsdp: str | None = None,
) -> TuneResult:
    """Fine-tune the local model of a program so that it prefers its better replies; returns a new program.

    The program is run several times on each example, and replies to the same prompt are paired by what became of them
    (`collect_preferences`). The loss of a pair is `-log sigmoid(beta * margin)`, where the margin is how much likelier
    the better reply has become than the worse one since the start, in nats. The program and its model stay as they are.
    With LoRA dropout the margins are those of the model without it.

    Cost: `n` runs of the program for each example, then no LM call. A step takes two forward passes and one backward
    pass over both replies of its pairs; their prompts are read once where they begin alike.
    Source: Rafailov et al. 2023, arXiv 2305.18290. Differs: the pairs are single calls of a program of any number of
    modules, each the first at which a better and a worse run part.

    Args:
        program: The program. Its modules run on one `lm.Local` that samples; modules on other LMs are left out.
        data: Examples, or preferences.
        metric: Scores the runs; not needed for preferences.
        n: Runs for each example.
        beta: How strongly the model is held to its start; smaller lets it move farther.
        lora: `r`, `alpha`, `dropout`, `target_modules` of the LoRA; None trains all weights; a name as in `sft`.
        steps: Optimizer steps; by default three epochs, and at least 60 steps.
        epochs: Passes over the pairs, instead of `steps`.
        lr: Peak learning rate; by default one that is usual for the model's size.
        batch_size: Pairs in a step.
        max_length: Most tokens of a prompt with a reply; by default the model's context.
        skip_long: Leave longer pairs out rather than raise.
        seed: Seed of the LoRA's start, the order of the pairs, and dropout.
        concurrency: Runs in flight.
        progress: Show bars; None shows them in a terminal or notebook.
        checkpoint: Folder for the state of the training, written every `checkpoint_every` steps, in the end, and on
            Ctrl-C. The same call goes on from there, with the same weights in the end, bit for bit on a CPU.
        checkpoint_every: Steps between checkpoints.
        micro_batch_tokens: Most tokens that go through the model at once, padding included (8192); a batch of more
            does so in parts, with the same gradient. Parts that do not fit into memory are halved.
        gradient_checkpointing: Keep the input of each layer alone, and compute the rest again in the backward pass:
            less memory, a third more time. Common prefixes are then computed for each row.
        dtype: "bfloat16" computes in it where that is safe, and trains weights in float32; None computes in the type
            of the model's weights.
        warmup: Share of the steps in which the rate rises from 0; then it falls to 0.
        weight_decay: AdamW's.
        max_norm: Largest norm of the gradient; longer ones are scaled to it.
        fsdp: Whether the processes of a group hold the weights in shares: "full_shard" at all times, with prefixes
            computed for each row; "shard_grad_op" between steps; None gives each the whole model.

    Raises:
        NoLMError: The program runs on no local model, on several that share no weights, or on no LoRA of that name.
        DataError: There is no example or no pair, or one is too long.
        MissingExtraError: torch or peft is not installed.
        StateDictError: `checkpoint` holds another training, or another process trains in it.
        OutOfMemoryError: A step does not fit into memory, also in the smallest parts.
        ValueError: A number is out of range.
    """
    options = TuneOptions(
        lora,
        steps,
        epochs,
        lr,
        batch_size,
        seed,
        max_length,
        skip_long,
        progress,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        micro_batch_tokens=micro_batch_tokens,
        gradient_checkpointing=gradient_checkpointing,
        dtype=dtype,
        warmup=warmup,
        weight_decay=weight_decay,
        max_norm=max_norm,
        fsdp=fsdp,
    )
    check_number("beta", beta, above=0)
    check_count("n", n)
    trained = local_lms(program, lora)
    given = listed(data)
    if isinstance(data, Preferences):
        pairs = data
    elif given and all(isinstance(item, Preference) for item in given):
        pairs = Preferences(tuple(given), 0, 0, 0)
    elif metric is None:
        raise DataError("a metric has to say which runs are better: dpo(program, data, metric), or give Preferences")
    else:
        runs = partial(acollect_preferences, program, given, metric, n=n, concurrency=concurrency)
        runs = partial(runs, progress=progress is not False)
        about = {} if checkpoint is None else about_runs(program, trained, given, metric, n=n)
        make = partial(once, Preferences, checkpoint, about, runs)
        pairs = await (aio.on_program(make) if aio.is_driven() else make())
    recipe = Recipe(
        name=f"dpo {beta!r}",
        encode=_encode,
        length=lambda pair: max(len(pair.chosen.ids), len(pair.rejected.ids)),
        objective=partial(preferring, beta=beta),
        told=lambda pair: [[m.role, m.content] for m in pair.messages] + [pair.chosen, pair.rejected],
    )
    return await atune(program, trained, pairs, recipe, options)


dpo = aio.blocking(adpo, in_place=True)


def preferring(model: Any, data: Sequence[Pair], *, beta: float) -> Objective:
    """The objective of DPO whose reference is the model as it is now.

    A pair's gradient is that of its two log-likelihoods, weighted by how wrong the pair still is; so the batch goes
    through the model twice, first without a graph, and its rows may then be cut in any way.
    """
    import torch

    with torch.no_grad():
        reference = dict(zip(data, _margins(model, data), strict=True))

    def objective(model: Any, batch: Sequence[Pair], share: Share = WHOLE) -> float:
        mine = share.of(batch)
        model.eval()  # the same margins in both passes, whatever the dropout
        with torch.no_grad():
            gained = [now - reference[pair] for pair, now in zip(mine, _margins(model, batch, share), strict=True)]
        model.train()
        losses = torch.nn.functional.softplus(-beta * torch.tensor(gained))
        pull = (beta * torch.sigmoid(-beta * torch.tensor(gained)) / len(batch)).tolist()
        weights = [sign * weight for weight in pull for sign in (-1.0, 1.0)]
        for scored in parts(model, batch, share, _rows):
            weight = torch.tensor([weights[row] for row in scored.rows], device=scored.logprobs.device)
            (weight[:, None] * scored.logprobs).sum().backward()
        return float(losses.mean()) * (len(mine) / len(batch)) if mine else 0.0

    return objective


def _margins(model: Any, pairs: Sequence[Pair], share: Share = WHOLE) -> list[float]:
    """By how many nats the better reply of each pair is likelier than the worse one."""
    sums = [0.0] * (2 * len(share.of(pairs)))
    for scored in parts(model, pairs, share, _rows):
        for row, total in zip(scored.rows, scored.logprobs.sum(1).tolist(), strict=True):
            sums[row] = total
    return [better - worse for better, worse in zip(sums[::2], sums[1::2], strict=True)]


def _rows(pairs: Sequence[Pair]) -> list[Tokens]:
    return [tokens for pair in pairs for tokens in (pair.chosen, pair.rejected)]


def _encode(local: lm.Local, pair: Preference) -> Pair:
    chosen, rejected = (encode(local, Conversation(pair.messages, reply)) for reply in (pair.chosen, pair.rejected))
    return Pair(chosen, rejected)
