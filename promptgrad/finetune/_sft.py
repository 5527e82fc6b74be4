"""Supervised fine-tuning: from a program to the same program on a local model that was trained on its conversations."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from promptgrad import aio, lm
from promptgrad.data import Example
from promptgrad.errors import DataError, MissingExtraError, NoLMError
from promptgrad.finetune._sample import Collected, Conversation, acollect, labeled
from promptgrad.finetune._tokens import encode_all
from promptgrad.finetune._train import TuneSettings, add_lora, count_steps, default_lr, train
from promptgrad.lm import Tokens, layered
from promptgrad.nn import Module, Predict
from promptgrad.run import progress as progress_bar

LORA: Mapping[str, Any] = MappingProxyType({"r": 8, "alpha": 16})
"""The LoRA that is trained by default: rank 8 on all linear layers."""


@dataclass(frozen=True)
class SFTResult:
    """The result of fine-tuning.

    Attributes:
        program: A copy of the program that runs on the trained model.
        lm: The trained model.
        losses: Mean cross-entropy of the reply tokens, in nats, for every step.
        samples: Number of conversations that the model was trained on.
        collected: The runs or labels that they come from.
        seconds: Time of the training, without the runs.
        settings: The settings of the training.
        interrupted: Whether Ctrl-C ended it before its last step.
    """

    program: Module
    lm: lm.Local
    losses: tuple[float, ...]
    samples: int
    collected: Collected
    seconds: float
    settings: TuneSettings
    interrupted: bool = False
    _lora: Any = field(default=None, repr=False, compare=False)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the trained model as an ordinary Hugging Face folder, and its LoRA, if any, to `lora/` inside it.

        Weights are safetensors files; nothing is pickled. `promptgrad.lm.Local(folder)` loads the model, and
        `peft.PeftModel.from_pretrained(base, folder / "lora")` puts the LoRA on the model it started from.
        """
        from safetensors.torch import save_file, save_model

        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        model = self.lm.model
        model.config.save_pretrained(path)
        model.generation_config.save_pretrained(path)
        save_model(model, str(path / "model.safetensors"), metadata={"format": "pt"})  # tied weights once only
        self.lm.tokenizer.save_pretrained(path)
        if self._lora is not None:
            config, weights = self._lora
            (path / "lora").mkdir(exist_ok=True)
            config.save_pretrained(path / "lora")
            save_file(weights, str(path / "lora" / "adapter_model.safetensors"), metadata={"format": "pt"})
        return path

    def __repr__(self) -> str:
        how = "all weights" if self.settings.lora is None else f"LoRA r={self.settings.lora.get('r', 8)}"
        went = f"{self.losses[0]:.3f} -> {_tail_mean(self.losses):.3f}" if self.losses else "no step"
        stopped = f" of {self.settings.steps}, interrupted" if self.interrupted else ""
        return (
            f"SFTResult({self.lm.name}: {how}, {self.samples} samples, {len(self.losses)} steps{stopped}, "
            f"loss {went}, {self.seconds:.1f} s)"
        )


async def asft(
    program: Module,
    data: Iterable[Example] | Iterable[Conversation],
    *,
    metric: Any = None,
    teacher: Any = None,
    n: int = 1,
    threshold: float | None = None,
    lora: Mapping[str, Any] | None = LORA,
    steps: int | None = None,
    epochs: float | None = None,
    lr: float | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    skip_long: bool = False,
    seed: int = 0,
    concurrency: int | None = None,
    progress: bool | None = None,
) -> SFTResult:
    """Fine-tune the local model of a program on its own successes, or on labels; returns a new program.

    With a metric, the program (or a teacher) is run on the data, and the model is trained on the calls of the
    successful runs. Without one, the data are labels for the module whose inputs and outputs the examples hold.
    Conversations from `collect` can be given instead of examples. The model learns the reply, given the exact messages
    that the program sends; the loss is on the reply's tokens alone.

    The program and its model stay as they are: a copy of the weights is trained (so there must be memory for two).
    Ctrl-C during the training returns the model as far as it was trained. `asft` trains in a thread and stops when the
    coroutine is cancelled. Trainings of one process run one after the other, since a seed holds for all of torch.

    Cost: with a metric, `n` runs of the program (or the teacher) for each example, then no LM call. The embedded
    model takes about ten seconds for 60 steps on two cores.
    Source: LoRA, Hu et al. 2021, arXiv 2106.09685. Training on the runs that a metric accepts is known as rejection
    sampling or STaR, Zelikman et al. 2022, arXiv 2203.14465.

    Args:
        program: The program. Its modules run on one `lm.Local`; modules on other LMs are left out.
        data: Examples, or conversations.
        metric: Decides which runs are successful.
        teacher: A program of the same structure, or an LM, for the runs; None for the program itself.
        n: Runs for each example.
        threshold: Lowest score of a successful run; None for the best score.
        lora: `r`, `alpha`, `dropout`, `target_modules` of the LoRA, which is merged into the weights in the end; None
            trains all weights.
        steps: Optimizer steps; by default three epochs, and at least 60 steps.
        epochs: Passes over the conversations, instead of `steps`.
        lr: Peak learning rate; by default one that is usual for the model's size.
        batch_size: Conversations in a step.
        max_length: Most tokens of a conversation; by default the model's context.
        skip_long: Leave longer conversations out rather than raise.
        seed: Seed of the LoRA's start, the order of the conversations, and dropout.
        concurrency: Runs in flight.
        progress: Show bars; None shows them in a terminal or notebook.

    Raises:
        NoLMError: The program runs on no local model, or on several.
        DataError: There is no example, no run was successful, or a conversation is too long.
        MissingExtraError: torch or peft is not installed.
    """
    options = _checked(lora, steps, epochs, lr, batch_size, seed)
    local, paths = local_lm(program)
    given: list[Any] = list(data)
    collected = _given(given)
    if collected is None:
        if metric is None:
            collected = labeled(program, given)
        else:
            runs = partial(acollect, program, given, metric, teacher=teacher, n=n, threshold=threshold)
            runs = partial(runs, concurrency=concurrency, progress=progress is not False)
            collected = await (aio.on_program(runs) if aio.is_driven() else runs())
    if aio.is_driven():
        return _tune(program, local, paths, collected, options, max_length, skip_long, progress)
    stop = threading.Event()
    try:
        return await aio.in_thread(
            _tune, program, local, paths, collected, options, max_length, skip_long, progress, stop
        )
    finally:
        stop.set()


sft = aio.blocking(asft, in_place=True)


def local_lm(program: Module) -> tuple[lm.Local, tuple[str, ...]]:
    """The local model that a program runs on, and the paths of the modules on it.

    Raises:
        NoLMError: There is no local model, or there are several.
    """
    found: dict[int, tuple[lm.Local, list[str]]] = {}
    for path, module in program.named_modules():
        if isinstance(module, Predict):
            local = _local_of(module)
            if local is not None:
                found.setdefault(id(local), (local, []))[1].append(path)
    if not found:
        raise NoLMError(
            "the program runs on no local model, so there are no weights to train: move it with "
            ".to(promptgrad.lm.Local('path or name of a Hugging Face model')), or .to('pocket') for the embedded one"
        )
    if len(found) > 1:
        names = ", ".join(repr(local.name) for local, _ in found.values())
        raise NoLMError(
            f"the program runs on {len(found)} local models ({names}): fine-tune the modules of each on their own"
        )
    ((local, paths),) = found.values()
    return local, tuple(paths)


def _local_of(module: Predict) -> lm.Local | None:
    try:
        resolved = lm.resolve_lm(None, module.lm)
    except NoLMError:
        return None
    transport = resolved.transport
    return transport if isinstance(transport, lm.Local) else None


def _given(data: Sequence[Any]) -> Collected | None:
    """The data as conversations, if they are conversations already."""
    if data and all(isinstance(item, Conversation) for item in data):
        return Collected(tuple(data), len(data), len(data), 0)
    return None


def _checked(
    lora: Mapping[str, Any] | None,
    steps: int | None,
    epochs: float | None,
    lr: float | None,
    batch_size: int,
    seed: int,
) -> dict[str, Any]:
    if steps is not None and epochs is not None:
        raise ValueError("give steps or epochs, not both")
    for name, value in (("steps", steps), ("epochs", epochs), ("lr", lr), ("batch_size", batch_size)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0, not {value!r}")
    return {
        "lora": None if lora is None else dict(lora),
        "steps": steps,
        "epochs": epochs,
        "lr": lr,
        "batch_size": batch_size,
        "seed": seed,
    }


_one_at_a_time = threading.Lock()
"""Held while a training draws from torch's random numbers, which all threads share."""


def _tune(
    program: Module,
    local: lm.Local,
    paths: Sequence[str],
    collected: Collected,
    options: dict[str, Any],
    max_length: int | None,
    skip_long: bool,  # noqa: FBT001 - internal
    progress: bool | None,  # noqa: FBT001 - internal
    stop: threading.Event | None = None,
) -> SFTResult:
    """Train a copy of the local model on conversations and put it into a copy of the program."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(extra="local", package="torch") from error

    samples = [sample for sample in collected if sample.path in paths]
    if not samples:
        went = f"{collected.right} of {collected.runs} runs went right"
        failed = f", {collected.errors} failed" if collected.errors else ""
        raise DataError(
            f"there is nothing to learn: {went}{failed}, and no call of a module on the local model is among them. "
            "Give a teacher= that does better (the program with demos, or a larger LM), a lower threshold=, or "
            "several runs n= of a model that samples"
        )
    data = encode_all(local, samples, max_length=max_length, skip_long=skip_long)
    settings = _settings(local, options, len(data))
    begun = time.monotonic()
    with _one_at_a_time, torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(settings.seed)
        model, losses, lora = _trained(local, data, settings, progress, stop)
    tuned = local.with_model(model, f"{local.name}+{version_of(local, samples, settings, len(losses))}")
    return SFTResult(
        program=_moved(program, local, tuned),
        lm=tuned,
        losses=tuple(losses),
        samples=len(data),
        collected=collected,
        seconds=time.monotonic() - begun,
        settings=settings,
        interrupted=len(losses) < settings.steps,
        _lora=lora,
    )


def _settings(local: lm.Local, options: dict[str, Any], samples: int) -> TuneSettings:
    lora = options["lora"]
    lr = options["lr"]
    if lr is None:
        lr = default_lr(sum(weight.numel() for weight in local.model.parameters()), lora=lora is not None)
    steps = count_steps(samples, options["batch_size"], options["epochs"], options["steps"])
    return TuneSettings(lora, steps, lr, options["batch_size"], seed=options["seed"])


def _trained(
    local: lm.Local,
    data: Sequence[Tokens],
    settings: TuneSettings,
    progress: bool | None,  # noqa: FBT001 - internal
    stop: threading.Event | None,
) -> tuple[Any, list[float], Any]:
    import torch

    if local.threads is not None:
        torch.set_num_threads(local.threads)
    model = copy.deepcopy(local.model)
    if next(model.parameters()).dtype == torch.float16:
        model.float()  # half precision cannot be trained without loss scaling
    model.requires_grad_(settings.lora is None)
    if settings.lora is not None:
        model = add_lora(model, settings.lora)
    with progress_bar(settings.steps, "fine-tuning", progress) as bar:
        losses = train(
            model,
            data,
            settings,
            on_step=lambda loss: bar.advance(note=f"loss {loss:.3f}"),
            stopped=(lambda: False) if stop is None else stop.is_set,
        )
    lora = None
    if settings.lora is not None:
        from peft import get_peft_model_state_dict

        weights = {name: w.detach().cpu().clone() for name, w in get_peft_model_state_dict(model).items()}
        lora = (model.peft_config["default"], weights)
        model = model.merge_and_unload()
    model.requires_grad_(False)  # noqa: FBT003 - torch's own
    return model, losses, lora


def version_of(local: lm.Local, samples: Sequence[Conversation], settings: TuneSettings, steps: int) -> str:
    """A name for the trained weights: the same for the same start, conversations and settings."""
    told = [
        local.identity(),
        asdict(settings),
        steps,
        [[[m.role, m.content] for m in sample.messages] + [sample.reply] for sample in samples],
    ]
    text = json.dumps(told, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()


def _moved(program: Module, old: lm.Local, new: lm.Local) -> Module:
    """A copy of the program in which one local model is replaced wherever it was used; layers around it stay."""
    moved = copy.deepcopy(program)
    made: dict[int, lm.LM] = {id(old): new}
    for module in moved.modules():
        if module.lm is not None:
            if module.lm.transport is old:
                module._lm = layered(module.lm, made)
        elif isinstance(module, Predict) and _local_of(module) is old:
            module._lm = new  # the old one came from the context
    return moved


def _tail_mean(losses: Sequence[float]) -> float:
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / len(tail)
