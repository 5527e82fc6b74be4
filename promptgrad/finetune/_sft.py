"""Supervised fine-tuning: from a program to the same program on a local model that was trained on its conversations."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from promptgrad import aio
from promptgrad._habits import refuses
from promptgrad.data import Example
from promptgrad.finetune._conversation import Conversation
from promptgrad.finetune._habits import TUNE_HABITS
from promptgrad.finetune._kept_runs import about_runs, once
from promptgrad.finetune._local_lms import LORA, local_lms
from promptgrad.finetune._sample import Collected, acollect, labeled, listed
from promptgrad.finetune._tokens import encode
from promptgrad.finetune._train import likelihood
from promptgrad.finetune._tune import Recipe, TuneOptions, TuneResult, atune
from promptgrad.nn import Module


def _told(sample: Conversation) -> list[Any]:
    called = [[[call.name, call.arguments] for call in sample.calls], sample.tools]
    plain = [[message.role, message.content] for message in sample.messages] + [sample.reply]
    return [*plain, *called] if sample.calls or sample.tools else plain


CONVERSATIONS = Recipe(
    name="",
    encode=encode,
    length=lambda tokens: len(tokens.ids),
    objective=lambda model, data: likelihood,
    told=_told,
)
"""The likelihood of the replies of conversations."""


@refuses(TUNE_HABITS, "sft")
async def asft(
    program: Module,
    data: Iterable[Example] | Iterable[Conversation] | Collected,
    *,
    metric: Any = None,
    teacher: Any = None,
    n: int = 1,
    threshold: float | None = None,
    lora: Mapping[str, Any] | str | None = LORA,
    steps: int | None = None,
    epochs: float | None = None,
    lr: float | None = None,
    batch_size: int = 32,
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
    """Fine-tune the local model of a program on its own successes, or on labels; returns a new program.

    With a metric, the program (or a teacher) is run on the data, and the model is trained on the calls of the
    successful runs. With a teacher and no metric, it is trained on all calls of the teacher: distillation by its
    replies (Kim & Rush 2016, arXiv 1606.07947). With neither, the data are labels for the module whose inputs and
    outputs the examples hold. Conversations from `collect` can be given instead of examples. The model learns the
    reply, given the exact messages that the program sends; the loss is on the reply's tokens alone.

    Where a module has an `nn.SoftPrompt`, this is trained and the model stays as it is.

    Where modules run on LoRAs of one base (`lm.lora("a")`), a copy of each is trained on the calls of its modules, one
    after the other, and the base is not copied.

    The program and its model stay as they are: a copy of the weights is trained (so there must be memory for two).
    Ctrl-C during the training returns the model as far as it was trained. `asft` trains in a thread and stops when the
    coroutine is cancelled. Trainings of one process run one after the other, since a seed holds for all of torch.

    Where torch has a process group, as in a program that `torchrun` started and that called `init_process_group`, each
    process takes its share of every batch: all must make the same call, and all get the same weights.

    Cost: with a metric, `n` runs of the program (or the teacher) for each example, then no LM call. The embedded
    model takes about ten seconds for 60 steps on two cores.
    Source: LoRA, Hu et al. 2021, arXiv 2106.09685. Training on the runs that a metric accepts is known as rejection
    sampling or STaR, Zelikman et al. 2022, arXiv 2203.14465.

    Args:
        program: The program. Its modules run on one `lm.Local`, or LoRAs of one; modules on other LMs are left out.
        data: Examples, or conversations.
        metric: Decides which runs are successful; None takes all runs of the teacher, or labels.
        teacher: A program of the same structure, or an LM, for the runs; None for the program itself.
        n: Runs for each example.
        threshold: Lowest score of a successful run; None for the best score.
        lora: `r`, `alpha`, `dropout`, `target_modules` of the LoRA, which is merged into the weights in the end; None
            trains all weights. A name trains the LoRA `lm.lora(name)` of that name, which stays beside the weights of
            its base: the one that modules run on, or a new one for the modules that run on the base.
        steps: Optimizer steps; by default three epochs, and at least 60 steps.
        epochs: Passes over the conversations, instead of `steps`.
        lr: Peak learning rate; by default one that is usual for the model's size.
        batch_size: Conversations in a step.
        max_length: Most tokens of a conversation; by default the model's context.
        skip_long: Leave longer conversations out rather than raise.
        seed: Seed of the LoRA's start, the order of the conversations, and dropout.
        concurrency: Runs in flight.
        progress: Show bars; None shows them in a terminal or notebook.
        checkpoint: Folder for the state of the training, written every `checkpoint_every` steps, in the end, and on
            Ctrl-C. The same call goes on from there, with the same weights in the end, bit for bit on a CPU. It holds
            the samples of the runs too, once these are all made.
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
        ValueError: A number is out of range, or options are given for a LoRA that is made already.
        NoLMError: The program runs on no local model, on several that share no weights, or on no LoRA of that name.
        DataError: There is no example, no run was successful, or a conversation is too long.
        MissingExtraError: torch or peft is not installed.
        StateDictError: `checkpoint` holds another training, or another process trains in it.
        OutOfMemoryError: A step does not fit into memory, also in the smallest parts.
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
    trained = local_lms(program, lora)
    given = listed(data)
    collected = data if isinstance(data, Collected) else _given(given)
    if collected is None:
        if metric is None and teacher is None:
            collected = labeled(program, given)
        else:
            judge = metric if metric is not None else _everything
            runs = partial(acollect, program, given, judge, teacher=teacher, n=n, threshold=threshold)
            runs = partial(runs, concurrency=concurrency, progress=progress is not False)
            about: dict[str, Any] = {}
            if checkpoint is not None:
                about = about_runs(program, trained, given, judge, teacher=teacher, n=n, threshold=threshold)
            make = partial(once, Collected, checkpoint, about, runs)
            collected = await (aio.on_program(make) if aio.is_driven() else make())
    return await atune(program, trained, collected, CONVERSATIONS, options)


sft = aio.blocking(asft, in_place=True)


async def adistill(program: Module, data: Iterable[Example], teacher: Any, **options: Any) -> TuneResult:
    """Fine-tune the local model of a program on what a teacher says; returns a new program.

    The teacher is run on the examples, and the program learns its replies, given the prompts of its own: of a teacher
    with demos, say, or of a larger model. With `metric=` it learns from the runs that are right, else from all of them.

    Cost: `n` runs of the teacher for each example, then no LM call.
    Source: distillation by the teacher's replies, Kim & Rush 2016, arXiv 1606.07947.

    Args:
        program: The program, on a local model.
        data: Examples; without a metric they need no labels.
        teacher: A program of the same structure, or an LM or its name for the program to run on.
        options: Those of `sft`: `metric`, `n`, `threshold`, `lora`, `steps`, `lr`, `checkpoint`, ...

    Raises:
        TypeError: There is no teacher, or the data are records, which have their replies.
        DataError: As of `sft`.
        NoLMError: As of `sft`.
    """
    if teacher is None:
        raise TypeError("distill needs a teacher: a program, an LM or its name")
    given = listed(data)
    if given and not isinstance(given[0], (Example, Mapping)):
        raise TypeError(f"distill runs a teacher on examples, not on {type(given[0]).__name__}s: sft learns from these")
    return await asft(program, given, teacher=teacher, **options)


distill = aio.blocking(adistill, in_place=True)


def _everything(example: Example, output: Any) -> float:
    """Score of every run of a teacher where no metric judges it."""
    return 1.0


def _given(data: Sequence[Any]) -> Collected | None:
    """The data as conversations, if they are conversations already."""
    if data and all(isinstance(item, Conversation) for item in data):
        return Collected(tuple(data), len(data), len(data), 0)
    return None
