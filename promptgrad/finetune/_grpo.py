"""Group-relative policy optimization: a local model learns from the scores of its own runs, step by step."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from promptgrad import aio, lm
from promptgrad.autograd import LossRow
from promptgrad.data import Example
from promptgrad.errors import BudgetExceeded, DataError, LMError
from promptgrad.finetune._checkpoint import Checkpoint
from promptgrad.finetune._local_lms import LORA, local_lms
from promptgrad.finetune._place import moved
from promptgrad.finetune._policy import Policy, PolicyOptions
from promptgrad.finetune._rollouts import Rollouts, graded
from promptgrad.finetune._sample import arollouts, listed
from promptgrad.finetune._train import _batches
from promptgrad.finetune._training import TuneSettings
from promptgrad.finetune._tune import TuneOptions, TuneResult, _settings
from promptgrad.finetune._weights import merged
from promptgrad.nn import Module
from promptgrad.run import progress as progress_bar

Runs: TypeAlias = Callable[[Module, Sequence[Example], int, int], Coroutine[Any, Any, Sequence[LossRow]]]
"""`runs(program, examples, n, step)`: recorded and scored runs of a program, `n` of each example in a row."""

SMALL = 20_000_000
"""Weights below which a model tolerates, and needs, half the rate of supervised training; above it is a tenth."""


async def agrpo(
    program: Module,
    trainset: Iterable[Example],
    metric: Any = None,
    *,
    n: int = 8,
    steps: int = 60,
    rollouts: int | None = None,
    batch_size: int = 8,
    temperature: float = 1.0,
    clip: float | tuple[float, float] = 0.2,
    inner: int = 1,
    kl: float = 0.0,
    scale_rewards: bool = False,
    format_penalty: float = 1.0,
    lora: Mapping[str, Any] | str | None = LORA,
    lr: float | None = None,
    seed: int = 0,
    concurrency: int | None = None,
    progress: bool | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 10,
    micro_batch_tokens: int | None = None,
    gradient_checkpointing: bool = False,
    dtype: Any = None,
    runs: Runs | None = None,
    replayed: bool = False,
) -> TuneResult:
    """Fine-tune the local model of a program on the scores of its own runs; returns a new program.

    Each step runs the program `n` times on each of `batch_size` examples with the model as it is by then, and makes
    the replies of the better runs of an example likelier, and those of its worse runs less likely. The advantage of a
    run is its score minus the mean of its group, the runs of the same example; every call of a module on the local
    model in that run has it, so any program learns, of any number of modules and with loops. A group whose runs all
    have the same score teaches nothing and is skipped (`result.collected.alike`). Unlike `sft` and `dpo` it needs no
    run that is wholly right, and what it learns from is always what the model does now.

    Where modules run on LoRAs of one base (`lm.lora("a")`), a copy of each learns from the replies of its modules, all
    in the same steps, and the base is not copied: a run is one trajectory, and every reply in it has its advantage.

    The program and its model stay as they are. Ctrl-C returns the model as far as it was trained, and so does a budget
    that is used up in its midst. `agrpo` trains in a thread and stops when the coroutine is cancelled.

    Cost: a step is `n * batch_size` runs of the program, then `inner` forward and backward passes over the replies;
    prompts are read once for all replies to them. With `kl`, one forward pass more. Memory for two models.
    Source: Shao et al. 2024, arXiv 2402.03300, with the corrections of Liu et al. 2025, arXiv 2503.20783 (Dr. GRPO),
    as defaults: advantages are not divided by the standard deviation of the group, which would weigh examples that
    are nearly always right or wrong most, and replies are not divided by their length, which would make wrong replies
    longer. For programs of several modules see Ziems et al. 2025, arXiv 2508.04660. Differs: a group is the runs of an
    example, not the calls of one module in them, so that no run has to make the same calls as another.

    Args:
        program: The program. Its modules run on one `lm.Local`, or LoRAs of one; modules on other LMs do their part and
            do not learn.
        trainset: Examples, in blocks of `batch_size` in an order of each epoch's own.
        metric: Scores the runs.
        n: Runs of each example in a step: its group.
        steps: Steps.
        rollouts: Most runs in all; fewer steps are taken if they would need more.
        batch_size: Examples in a step.
        temperature: Temperature of the replies, where a module does not set its own.
        clip: How far the probability of a token may move from what it was when sampled before it has no gradient any
            more, as a ratio below and above 1; two numbers give both sides. It matters only with `inner` above 1.
        inner: Updates from the runs of one step.
        kl: What a nat of divergence from the model at the start costs, in units of the score; 0 holds it to nothing.
        scale_rewards: Divide advantages by the standard deviation of the group, as the first paper does.
        format_penalty: The score of a run whose reply cannot be read is minus this. So is that of a reply after which
            a module asked again, whatever became of the run.
        lora: `r`, `alpha`, `target_modules` of the LoRA, which is merged into the weights in the end; None trains all
            weights. A name trains the LoRA of that name alone, or a new one for modules on the base.
        lr: Peak learning rate; by default half of what `sft` takes for a small model, a tenth for others.
        seed: Seed of the LoRA's start, the order of the examples, and the replies.
        concurrency: Runs in flight; the result does not depend on it.
        progress: Show a bar with the mean score of the last step; None shows it in a terminal or notebook.
        checkpoint: A folder for the state of the training. The same call goes on from there if it was killed, with the
            same weights on the same machine.
        checkpoint_every: Steps between two checkpoints. Those after the last one are run again.
        micro_batch_tokens: Most tokens that go through the model at once when it learns, as in `sft`.
        gradient_checkpointing: Compute activations twice rather than keep them, as in `sft`.
        dtype: "bfloat16" samples and learns in it, on weights in float32; None for the type of the weights. On a
            `lm.lora` replies are sampled in the type of the base.
        runs: An async function `(program, examples, n, step)` that makes the runs in place of `map` and `metric`, and
            returns `LossRow`s, those of one example in a row.
        replayed: Whether `runs` has all that it gave on record, as in a run with a journal, and is to give it again for
            the steps before the checkpoint, so that they are counted. Nothing is learned from it again.

    Raises:
        NoLMError: The program runs on no local model, on several that share no weights, or on no LoRA of that name.
        DataError: There is no example or no metric, or no two runs of an example ever differed in score.
        MissingExtraError: torch or peft is not installed.
        StateDictError: The folder of checkpoints holds another training, or has a writer.
        ValueError: A number is out of range, or options are given for a LoRA that is made already.
    """
    options = PolicyOptions(n, temperature, clip, inner, kl, scale_rewards, format_penalty)
    given = TuneOptions(
        lora,
        steps * inner,
        None,
        lr,
        batch_size,
        seed,
        max_length=None,
        skip_long=False,
        progress=progress,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        micro_batch_tokens=micro_batch_tokens,
        gradient_checkpointing=gradient_checkpointing,
        dtype=dtype,
    )
    if isinstance(lora, Mapping) and lora.get("dropout"):
        raise ValueError("the ratio is to the policy that sampled, without dropout: leave dropout= out of lora=")
    trained = local_lms(program, lora)
    examples = listed(trainset)
    if not examples:
        raise DataError("there are no examples to learn from: the data is empty")
    if runs is None:
        if metric is None:
            raise DataError("a metric has to score the runs: grpo(program, trainset, metric)")
        runs = partial(_runs, metric, concurrency)
    if rollouts is not None:
        steps = min(steps, rollouts // (n * min(batch_size, len(examples))))
        if not steps:
            raise ValueError(f"a step takes n * batch_size = {n * batch_size} runs, and rollouts= allows {rollouts}")
    learners = [local.lora(lora) if isinstance(lora, str) and local.base is local else local for local, _ in trained]
    settings = _settings_of(learners, replace(given, steps=steps * inner), len(examples))
    fresh = {id(old): new for (old, _), new in zip(trained, learners, strict=True) if old is not new}
    program = moved(program, fresh) if fresh else program
    policy = Policy(program, learners, options, settings, given.share(), checkpointing=gradient_checkpointing)
    with contextlib.ExitStack() as stack:
        stack.enter_context(policy.fitted())
        folder = None
        if checkpoint is not None:
            judge = getattr(metric, "__qualname__", type(metric).__name__)
            folder = Checkpoint(Path(checkpoint), policy.about(program, examples, judge), checkpoint_every)
            stack.enter_context(folder.held())
            folder.restore(policy.training)
            policy.go_on()
        seconds = await _learned(policy, examples, runs, steps, progress, folder, replayed)
    return _result(policy, program, learners, steps, seconds)


grpo = aio.blocking(agrpo, in_place=True)


async def _runs(
    metric: Any, concurrency: int | None, program: Module, examples: Sequence[Example], n: int, step: int
) -> Sequence[LossRow]:
    return await arollouts(program, examples, metric, n, concurrency=concurrency)


async def _learned(
    policy: Policy,
    examples: Sequence[Example],
    runs: Runs,
    steps: int,
    progress: bool | None,  # noqa: FBT001 - internal
    folder: Checkpoint | None,
    replayed: bool,  # noqa: FBT001 - internal
) -> float:
    """Take the steps that are left, or those before Ctrl-C or the end of the budget; returns the time they took."""
    options, training = policy.options, policy.training
    begun = time.monotonic() - (0.0 if folder is None else folder.seconds)
    stop = threading.Event()
    order = random.Random(f"promptgrad grpo {training.settings.seed}")
    taken = len(policy.steps)
    first = 0 if replayed else taken
    blocks = islice(_batches(examples, training.settings.batch_size, order), first, None)
    if replayed:
        policy.begin_again()
    try:
        with training.running(), progress_bar(steps, "grpo", progress) as bar:
            bar.advance(taken)
            for step in range(first, steps):
                if training.ended and step >= taken:
                    break
                policy.sampling(step)
                block = next(blocks)
                names = [f"example {example.id}" for example in block]
                ask = partial(runs, policy.program, block, options.n, step)
                try:
                    rows = await (aio.on_program(ask) if aio.is_driven() else ask())
                    found = graded(
                        rows, *policy.lms, format_penalty=options.format_penalty, scale_rewards=options.scale_rewards
                    )
                except BudgetExceeded:
                    if not training.losses:
                        raise
                    break
                except LMError as error:
                    if not (training.losses and isinstance(error.__cause__, FloatingPointError)):
                        raise
                    training.end("the replies are no numbers", names)
                    break
                del rows  # the graphs of all runs
                if step < taken:
                    policy.pass_by(step, found)
                    continue
                await aio.in_thread(policy.learn, found, stop.is_set, names)
                bar.advance(note=f"reward {found.reward:.3f}")
                if folder is not None and (step + 1) % folder.every == 0:
                    folder.write(training, time.monotonic() - begun)
    finally:
        stop.set()
        for own in policy.lms:
            own.close()
        if folder is not None and training.losses and policy.between_steps:
            folder.write(training, time.monotonic() - begun)
    return time.monotonic() - begun


def _settings_of(learners: Sequence[lm.Local], given: TuneOptions, examples: int) -> TuneSettings:
    """The settings of the training; of several LoRAs `lora` is that of the first."""
    own = [_settings(local, given, examples) for local in learners]
    for local, settings in zip(learners, own, strict=True):
        if settings.lora is not None and settings.lora.get("dropout"):
            raise ValueError(f"the ratio is to the policy that sampled, without dropout, and {local.name!r} has some")
    rates = sorted({settings.lr for settings in own})
    if len(rates) > 1:
        raise ValueError(
            f"{', '.join(repr(local.name) for local in learners)} learn together, and soft prompts take another rate "
            f"than LoRAs by default ({', '.join(f'{rate:g}' for rate in rates)}): give one, lr="
        )
    if given.lr is not None:
        return own[0]
    small = sum(weight.numel() for weight in learners[0].base.model.parameters()) < SMALL
    return replace(own[0], lr=own[0].lr * (0.5 if small else 0.1))


def _result(policy: Policy, program: Module, learners: Sequence[lm.Local], steps: int, seconds: float) -> TuneResult:
    """What was learned, put into a copy of the program."""
    collected, training = Rollouts(tuple(policy.steps)), policy.training
    if not training.losses:
        raise DataError(f"there is nothing to learn: {collected.nothing()}")
    made = [merged(own, model, training.settings) for own, model in zip(learners, policy.models, strict=True)]
    named = [f"{local.name}+{policy.version}" for local in learners]
    tuned = [local.with_model(model, name) for local, (model, _), name in zip(learners, made, named, strict=True)]
    first = TuneResult(
        program=moved(program, {id(local): own for local, own in zip(learners, tuned, strict=True)}),
        lm=tuned[0],
        losses=tuple(training.losses),
        samples=sum(step.calls for step in policy.steps),
        collected=collected,
        seconds=seconds,
        settings=training.settings,
        interrupted=len(policy.steps) < steps,
        _lora=made[0][1],
    )
    if len(tuned) == 1:
        return first
    return replace(first, parts=MappingProxyType({own.title: replace(first, lm=own) for own in tuned}))
