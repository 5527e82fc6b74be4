"""The training loop: cross-entropy of the replies' tokens, AdamW, warm-up and linear decay."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count, islice
from typing import Any

from promptgrad.errors import MissingExtraError
from promptgrad.finetune._fsdp import parts
from promptgrad.finetune._training import WHOLE, Share, Training, TuneSettings
from promptgrad.lm import Tokens, lora_options

SOFT_LR = 0.03
"""Learning rate of a soft prompt: vectors before a prompt take, and need, far higher ones than weights."""

_LEAST_STEPS = 60


def count_steps(samples: int, batch_size: int, epochs: float | None, steps: int | None) -> int:
    """The number of steps: as given, else three epochs and at least 60 steps."""
    if steps is not None:
        return steps
    if epochs is not None:
        return max(1, math.ceil(samples * epochs / batch_size))
    return max(_LEAST_STEPS, math.ceil(samples * 3 / batch_size))


def default_lr(weights: int, *, lora: bool) -> float:
    """A usual learning rate for a model of so many weights: smaller models tolerate, and need, higher rates."""
    if weights < 20_000_000:
        return 5e-3 if lora else 1e-3
    if weights < 500_000_000:
        return 1e-3 if lora else 1e-4
    return 2e-4 if lora else 2e-5


def add_lora(model: Any, options: dict[str, Any]) -> Any:
    """The model with a LoRA on its linear layers.

    Raises:
        MissingExtraError: peft is not installed.
        ValueError: An option is unknown or out of range, or the layers of `target_modules` are none of the model's.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtraError(extra="local", package="peft") from error
    given = lora_options(options)
    config = LoraConfig(
        r=given["r"],
        lora_alpha=given["alpha"],
        lora_dropout=given["dropout"],
        target_modules=given["target_modules"],
        task_type="SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads names that transformers has renamed
        try:
            return get_peft_model(model, config)
        except Exception as error:  # peft has kinds of its own
            raise ValueError(f"lora={dict(options)} does not fit a {type(model).__name__}: {error}") from error


Objective = Callable[[Any, Sequence[Any], Share], float]
"""Adds the gradient of the loss of a batch of samples to the weights of a model, and returns the loss.

Of a share of the batch, it is the part of the batch's loss that these samples have."""


def likelihood(model: Any, batch: Sequence[Tokens], share: Share = WHOLE) -> float:
    """The mean cross-entropy, in nats, of the tokens of the replies."""
    targets = sum(len(tokens.ids) - tokens.start for tokens in batch)
    total = 0.0
    for scored in parts(model, batch, share, list):
        loss = -scored.logprobs.sum() / targets
        loss.backward()
        total += float(loss.detach())
    return total


def train(
    model: Any,
    data: Sequence[Any],
    settings: TuneSettings,
    objective: Objective = likelihood,
    *,
    on_step: Callable[[float], None] = lambda loss: None,
    stopped: Callable[[], bool] = lambda: False,
) -> list[float]:
    """Train the weights of a model that require a gradient, in place; returns the loss of every step.

    Ctrl-C ends the training after the steps that are done; before the first it is raised. So does a loss or gradient
    that is no number, with a warning: the weights are those of the step before.

    Args:
        model: A Hugging Face language model.
        data: Samples as the objective takes them: conversations in tokens, or pairs of them.
        settings: The settings of the training.
        objective: Adds the gradient of a batch to the weights, and returns its loss.
        on_step: Called with the loss after every step.
        stopped: Called before every step; True ends the training.
    """
    training = Training(model, settings)
    go_on(training, data, objective, on_step=on_step, stopped=stopped)
    return training.losses


def go_on(
    training: Training,
    data: Sequence[Any],
    objective: Objective,
    *,
    on_step: Callable[[float], None] = lambda loss: None,
    stopped: Callable[[], bool] = lambda: False,
    names: Sequence[str] = (),
) -> None:
    """Take the steps that a training has left, on the batches that are next; `names` are those of the samples."""
    settings = training.settings
    called = {id(sample): name for sample, name in zip(data, names or map("sample {}".format, count()), strict=False)}
    batches = _batches(data, settings.batch_size, random.Random(f"promptgrad finetune {settings.seed}"))
    batches = islice(batches, len(training.losses), None)
    with training.running():
        while not training.done and not stopped():
            batch = next(batches)
            loss = training.step(partial(_gradient, training, objective, batch), [called[id(one)] for one in batch])
            if loss is not None:
                on_step(loss)


def _gradient(training: Training, objective: Objective, batch: Sequence[Any]) -> float:
    return objective(training.model, batch, training.share)  # whose share may have become smaller since the last try


def _batches(data: Sequence[Any], size: int, rng: random.Random) -> Iterator[list[Any]]:
    """Batches without end: every conversation once in each epoch, in a new order."""
    queue: list[Any] = []
    while True:
        while len(queue) < min(size, len(data)):
            order = list(data)
            rng.shuffle(order)
            queue += order
        yield queue[:size]
        queue = queue[size:]
