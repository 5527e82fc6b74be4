"""What all trainings of a program's local model share: from a program to the same program on a trained copy of it."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from promptgrad import aio, lm
from promptgrad._files import whole_folder
from promptgrad._numbers import check_count, check_number, optional_count
from promptgrad.errors import DataError, MissingExtraError
from promptgrad.finetune._checkpoint import Checkpoint, about_of, check_place
from promptgrad.finetune._fsdp import KINDS, Sharding
from promptgrad.finetune._local_lms import Places
from promptgrad.finetune._memory import apart, autocast, checkpointed, masters
from promptgrad.finetune._place import moved
from promptgrad.finetune._preference import Preferences
from promptgrad.finetune._ranks import rank_and_ranks
from promptgrad.finetune._rollouts import Rollouts
from promptgrad.finetune._sample import Collected
from promptgrad.finetune._tokens import fitting, limit_of, too_long
from promptgrad.finetune._train import SOFT_LR, Objective, add_lora, count_steps, default_lr, go_on, likelihood
from promptgrad.finetune._training import Share, Training, TuneSettings
from promptgrad.finetune._weights import merged
from promptgrad.lm import PART_TOKENS
from promptgrad.nn import Module
from promptgrad.run import progress as progress_bar

Samples: TypeAlias = Collected | Preferences


@dataclass(frozen=True)
class TuneResult:
    """The result of fine-tuning.

    Attributes:
        program: A copy of the program that runs on the trained model.
        lm: The trained model; where several LoRAs were trained, the first of them.
        losses: The loss of every step: in nats, the mean cross-entropy of the reply tokens where these are learned. Of
            `grpo` of every update, in units of the score; `collected.rewards` tells how it went.
        samples: Number of conversations, or pairs of them, that the model was trained on.
        collected: The runs or labels that they come from, with the number of those that were left out, by reason:
            `Collected`, `Preferences` or `Rollouts`.
        seconds: Time of the training, without the runs, unless it learns from runs as it goes.
        settings: The settings of the training.
        interrupted: Whether Ctrl-C ended it before its last step.
        parts: The training of each LoRA, by its name, where the program runs on several; their losses and samples are
            those above, one training after the other.
    """

    program: Module
    lm: lm.Local
    losses: tuple[float, ...]
    samples: int
    collected: Samples | Rollouts
    seconds: float
    settings: TuneSettings
    interrupted: bool = False
    parts: Mapping[str, TuneResult] = field(default_factory=dict)
    _lora: Any = field(default=None, repr=False, compare=False)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the trained model as an ordinary Hugging Face folder, and its LoRA, if any, to `lora/` inside it.

        All of it is written, or nothing. Weights are safetensors files; nothing is pickled.
        `promptgrad.lm.Local(folder)` loads the model, and `peft.PeftModel.from_pretrained(base, folder / "lora")` puts
        the LoRA on the model it started from.

        A trained `lm.lora` makes a folder of the LoRA alone, as peft writes it, which `base.lora(name, folder)` loads;
        several make a folder each, `folder/<name>`. A soft prompt is written as peft's prompt tuning; with its program
        `promptgrad.save(result.program, folder)` writes it.

        Raises:
            ValueError: There is a file in the place of the folder.
            OSError: It cannot be written, as on a full disk.
        """
        from safetensors.torch import save_file, save_model

        path = check_place(folder, "the model")
        if self.parts:
            for name, part in self.parts.items():
                part.save(path / name)
            return path
        if self.lm.base is not self.lm:
            self.lm.save_lora(path)
            return path
        model = self.lm.model
        model.config.architectures = [type(model).__name__]  # a model made of a config does not say
        with whole_folder(path) as place:
            model.config.save_pretrained(place)
            model.generation_config.save_pretrained(place)
            save_model(model, str(place / "model.safetensors"), metadata={"format": "pt"})  # tied weights once only
            self.lm.tokenizer.save_pretrained(place)
            if self._lora is not None:
                config, weights, about = self._lora
                (place / "lora").mkdir()
                config.save_pretrained(place / "lora")
                save_file(weights, str(place / "lora" / "adapter_model.safetensors"), metadata=about)
        return path

    def __repr__(self) -> str:
        how = "all weights" if self.settings.lora is None else f"LoRA r={self.settings.lora.get('r', 8)}"
        if self.settings.lora is not None and "soft_tokens" in self.settings.lora:
            how = f"soft prompt of {self.settings.lora['soft_tokens']} tokens"
        what, course = "loss", self.losses
        if isinstance(self.collected, Rollouts):
            what, course = "reward", self.collected.rewards
        went = f"{what} {course[0]:.3f} -> {_tail_mean(course):.3f}" if course else "no step"
        lost = f"; left out: {lost}" if (lost := self.collected.lost()) else ""
        stopped = f" of {self.settings.steps}, interrupted" if self.interrupted else ""
        return (
            f"TuneResult({self.lm.name}: {how}, {self.samples} samples, {len(self.losses)} steps{stopped}, "
            f"{went}, {self.seconds:.1f} s{lost})"
        )


@dataclass(frozen=True)
class Recipe:
    """What a training learns, and from what.

    Attributes:
        name: Its name and numbers, which the trained model is known by; "" for the likelihood of conversations.
        encode: A sample in tokens, as the objective takes it.
        length: The longest sequence of tokens in such a sample.
        objective: The objective, made of the model before it is trained and of all samples in tokens.
        told: A sample in JSON types, which the trained model is known by.
    """

    name: str
    encode: Callable[[lm.Local, Any], Any]
    length: Callable[[Any], int]
    objective: Callable[[Any, Sequence[Any]], Objective]
    told: Callable[[Any], Any]


@dataclass(frozen=True)
class TuneOptions:
    """The arguments that all trainings share.

    Raises:
        TypeError: What shall be a number is none, or `lora` is neither options nor a name.
        ValueError: A number is out of range, there are steps and epochs, an option of a LoRA is unknown, or a file is
            in the place of the checkpoints.
    """

    lora: Mapping[str, Any] | str | None
    steps: int | None
    epochs: float | None
    lr: float | None
    batch_size: int
    seed: int
    max_length: int | None
    skip_long: bool
    progress: bool | None
    checkpoint: str | os.PathLike[str] | None = None
    checkpoint_every: int = 50
    micro_batch_tokens: int | None = None
    gradient_checkpointing: bool = False
    dtype: Any = None
    warmup: float = 0.05
    weight_decay: float = 0.0
    max_norm: float = 1.0
    fsdp: str | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give steps or epochs, not both")
        for name in ("steps", "batch_size", "max_length", "checkpoint_every", "micro_batch_tokens"):
            optional_count(name, getattr(self, name))
        for name in ("epochs", "lr", "max_norm"):
            value = getattr(self, name)
            if value is not None and check_number(name, value, above=0) == math.inf and name != "max_norm":
                raise ValueError(f"{name} is a finite number, not {value!r}")
        check_count("seed", self.seed, 0)
        check_number("weight_decay", self.weight_decay, least=0)
        if check_number("warmup", self.warmup, least=0) > 1:
            raise ValueError(f"warmup is a share of the steps, from 0 to 1, not {self.warmup!r}")
        if isinstance(self.lora, Mapping):
            lm.lora_options(self.lora)
        elif self.lora is not None and not isinstance(self.lora, str):
            raise TypeError(
                f"lora is the options of a LoRA such as {{'r': 8}}, the name of one, or None to train all weights, not "
                f"{self.lora!r}"
            )
        if self.fsdp not in (None, *KINDS):
            raise ValueError(f"fsdp is one of {', '.join(KINDS)}, or None, not {self.fsdp!r}")
        if self.checkpoint is not None:
            check_place(self.checkpoint, "checkpoint=")
        if self.autocast not in (None, "bfloat16"):
            raise ValueError(f"dtype is 'bfloat16', or None for the type of the model's weights, not {self.dtype!r}")

    @property
    def autocast(self) -> str | None:
        """The name of the type to compute in."""
        return None if self.dtype is None else str(self.dtype).removeprefix("torch.")

    def share(self, rank: int = 0, ranks: int = 1) -> Share:
        """How much of a batch goes through the model at once, in this process."""
        return Share(self.micro_batch_tokens or PART_TOKENS, rank, ranks, apart=self.fsdp == "full_shard")


_one_at_a_time = threading.Lock()
"""Held while a training draws from torch's random numbers, which all threads share."""


async def atune(
    program: Module, trained: Places, collected: Samples, recipe: Recipe, options: TuneOptions
) -> TuneResult:
    """Train copies of local models on samples, one after the other, and put them into a copy of the program.

    In a thread, which stops when the coroutine is cancelled; in place where the caller waits in place.

    Raises:
        DataError: There is no sample of a module on a model that is trained, or one is too long.
        MissingExtraError: torch or peft is not installed.
        StateDictError: The folder of checkpoints holds another training, or has a writer.
    """
    if aio.is_driven():
        return _tune_all(program, trained, collected, recipe, options, lambda: False)
    stop = threading.Event()
    try:
        return await aio.in_thread(_tune_all, program, trained, collected, recipe, options, stop.is_set)
    finally:
        stop.set()


def _tune_all(
    program: Module,
    trained: Places,
    collected: Samples,
    recipe: Recipe,
    options: TuneOptions,
    stopped: Callable[[], bool],
) -> TuneResult:
    usable = collected.usable([path for _, paths in trained for path in paths])
    trained = [(local, paths) for local, paths in trained if collected.usable(paths).samples]
    if not trained:
        raise DataError(f"there is nothing to learn: {usable.nothing()}")
    parts: dict[str, TuneResult] = {}
    for local, paths in trained:
        if len(trained) > 1 and options.checkpoint is not None:
            own = replace(options, checkpoint=Path(options.checkpoint) / local.title)
        else:
            own = options
        done = _tune(program, local, paths, collected, recipe, own, stopped)
        parts[done.lm.title], program = done, done.program
        if done.interrupted:
            break
    if len(trained) == 1:
        return done
    return replace(
        done,
        lm=next(iter(parts.values())).lm,
        losses=tuple(loss for part in parts.values() for loss in part.losses),
        samples=sum(part.samples for part in parts.values()),
        collected=usable,
        seconds=sum(part.seconds for part in parts.values()),
        settings=replace(done.settings, steps=sum(part.settings.steps for part in parts.values())),
        parts=MappingProxyType(parts),
    )


def _tune(
    program: Module,
    local: lm.Local,
    paths: Sequence[str],
    collected: Samples,
    recipe: Recipe,
    options: TuneOptions,
    stopped: Callable[[], bool],
) -> TuneResult:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(extra="local", package="torch") from error

    collected = collected.usable(paths)
    samples = collected.samples
    encoded = [recipe.encode(local, sample) for sample in samples]
    data = fitting(local, encoded, recipe.length, max_length=options.max_length, skip_long=options.skip_long)
    kept = {id(one) for one in data}
    names = [
        _called(place, one) for place, (one, code) in enumerate(zip(samples, encoded, strict=True)) if id(code) in kept
    ]
    long = too_long(limit_of(local, options.max_length))
    collected = replace(collected, dropped=collected.dropping(len(encoded) - len(data), long))
    start = local.lora(options.lora) if isinstance(options.lora, str) and local.base is local else local
    if local.quantize and start.base is start:
        raise ValueError(f"{local.name!r} is in 4 bits, which are not trained: train a LoRA beside them, lora='name'")
    settings = _settings(start, options, len(data))
    with contextlib.ExitStack() as stack:
        stack.enter_context(_one_at_a_time)
        stack.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count())))
        torch.manual_seed(settings.seed)
        checkpoint = None
        if options.checkpoint is not None:
            about = about_of(start, recipe.name, settings, data)
            checkpoint = Checkpoint(Path(options.checkpoint), about, options.checkpoint_every, rank_and_ranks()[0])
            stack.enter_context(checkpoint.held())
        model, losses, seconds, lora = _trained(start, data, names, settings, recipe, options, stopped, checkpoint)
    name = f"{start.name}+{version_of(start, samples, settings, len(losses), recipe)}"
    tuned = start.with_model(model, name)
    return TuneResult(
        program=moved(program, {id(local): tuned}),
        lm=tuned,
        losses=tuple(losses),
        samples=len(data),
        collected=collected,
        seconds=seconds,
        settings=settings,
        interrupted=len(losses) < settings.steps,
        _lora=lora,
    )


def _called(place: int, sample: Any) -> str:
    """What a sample is called in messages: its example, and its place among the samples."""
    return f"sample {place}{f' (example {sample.example_id})' if sample.example_id else ''}"


def _settings(local: lm.Local, options: TuneOptions, samples: int) -> TuneSettings:
    if options.fsdp is not None and local.base is not local:
        raise ValueError(
            f"fsdp= holds a model of its own in shares, and {local.name!r} shares the layers of its base with replies: "
            "leave it out, or train a copy (lora={...} on the base)"
        )
    lora = dict(options.lora) if isinstance(options.lora, Mapping) else None
    if local.base is not local:
        lora = dict(local.model.options)
    lr = options.lr
    if lr is None and lora is not None and "soft_tokens" in lora:
        lr = SOFT_LR
    elif lr is None:
        lr = default_lr(sum(weight.numel() for weight in local.base.model.parameters()), lora=lora is not None)
    steps = count_steps(samples, options.batch_size, options.epochs, options.steps)
    return TuneSettings(
        lora,
        steps,
        lr,
        options.batch_size,
        warmup=options.warmup,
        weight_decay=options.weight_decay,
        max_norm=options.max_norm,
        seed=options.seed,
        dtype=options.autocast,
    )


def _trained(
    local: lm.Local,
    data: Sequence[Any],
    names: Sequence[str],
    settings: TuneSettings,
    recipe: Recipe,
    options: TuneOptions,
    stopped: Callable[[], bool],
    checkpoint: Checkpoint | None,
) -> tuple[Any, list[float], float, Any]:
    import torch

    begun = time.monotonic() - (0.0 if checkpoint is None else checkpoint.seconds)
    if local.threads is not None:
        torch.set_num_threads(local.threads)
    home = copy.deepcopy(local.model)
    model = apart(home, wanted=options.gradient_checkpointing)
    if local.base is local and next(model.parameters()).dtype == torch.float16:
        model.float()  # half precision cannot be trained without loss scaling
    sharding = None if options.fsdp is None else Sharding(model, options.fsdp)
    over = checkpoint is not None and checkpoint.finished
    with contextlib.ExitStack() as stack:
        stack.enter_context(autocast(model, settings.dtype))
        objective = likelihood if over else recipe.objective(model, data)
        stack.enter_context(checkpointed(model, wanted=options.gradient_checkpointing))
        lora = settings.lora if local.base is local else None
        model.requires_grad_(lora is None)
        if lora is not None:
            model = add_lora(model, lora)
        stack.enter_context(masters(model, wanted=settings.dtype is not None))
        share = options.share(*rank_and_ranks())
        if sharding is not None:
            sharding.shard(model)
        training = Training(model, settings, share, None if sharding is None else sharding.gradient)
        if checkpoint is not None:
            checkpoint.restore(training)
        bar = stack.enter_context(
            progress_bar(settings.steps, "fine-tuning", False if share.rank else options.progress)
        )
        bar.advance(len(training.losses))

        def on_step(loss: float) -> None:
            bar.advance(note=f"loss {loss:.3f}")
            if checkpoint is not None:
                checkpoint.after_step(training, time.monotonic() - begun)

        whole = sharding is None  # shares are gathered by all processes, or by none
        try:
            go_on(training, data, objective, on_step=on_step, stopped=stopped, names=names)
            whole = True
        finally:
            if checkpoint is not None and training.losses and whole:
                checkpoint.write(training, time.monotonic() - begun)
        if sharding is not None:
            model = sharding.whole(lambda bare: bare if lora is None else add_lora(bare, lora))
    seconds = time.monotonic() - begun
    made, kept = merged(local, model if local.base is local else home, settings)
    return made, training.losses, seconds, kept


def version_of(local: lm.Local, samples: Sequence[Any], settings: TuneSettings, steps: int, recipe: Recipe) -> str:
    """A name for the trained weights: the same for the same start, samples, settings and recipe."""
    set_to = {name: value for name, value in asdict(settings).items() if name != "dtype" or value is not None}
    told = [local.identity(), set_to, steps, [recipe.told(sample) for sample in samples]]
    text = json.dumps([*told, recipe.name] if recipe.name else told, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()


def _tail_mean(losses: Sequence[float]) -> float:
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / len(tail)
