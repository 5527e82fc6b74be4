"""The training loop: cross-entropy of the replies' tokens, AdamW, warm-up and linear decay."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from promptgrad.errors import MissingExtraError
from promptgrad.lm import Tokens, reply_logprobs

_LEAST_STEPS = 60


@dataclass(frozen=True)
class TuneSettings:
    """The settings of a training: every number that the result depends on.

    Attributes:
        lora: Options of the LoRA (`r`, `alpha`, `dropout`, `target_modules`), or None for all weights.
        steps: Optimizer steps.
        lr: Peak learning rate.
        batch_size: Conversations in a step.
        warmup: Share of the steps in which the rate rises from 0.
        weight_decay: AdamW's.
        max_norm: Largest norm of the gradient.
        seed: Seed of the LoRA's start, the order of the conversations, and dropout.
    """

    lora: dict[str, Any] | None
    steps: int
    lr: float
    batch_size: int
    warmup: float = 0.05
    weight_decay: float = 0.0
    max_norm: float = 1.0
    seed: int = 0


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
        ValueError: An option is unknown.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtraError(extra="local", package="peft") from error
    given = {"r": 8, "alpha": 16, "dropout": 0.0, "target_modules": "all-linear", **options}
    unknown = sorted(set(given) - {"r", "alpha", "dropout", "target_modules"})
    if unknown:
        raise ValueError(f"a LoRA has the options r, alpha, dropout and target_modules, not {unknown[0]!r}")
    config = LoraConfig(
        r=given["r"],
        lora_alpha=given["alpha"],
        lora_dropout=given["dropout"],
        target_modules=given["target_modules"],
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads names that transformers has renamed
        return get_peft_model(model, config)


def train(
    model: Any,
    data: Sequence[Tokens],
    settings: TuneSettings,
    *,
    on_step: Callable[[float], None] = lambda loss: None,
    stopped: Callable[[], bool] = lambda: False,
) -> list[float]:
    """Train the weights of a model that require a gradient, in place; returns the loss of every step.

    The loss is the mean cross-entropy, in nats, of the tokens of the replies. Ctrl-C ends the training after the steps
    that are done; before the first it is raised.

    Args:
        model: A Hugging Face causal language model.
        data: Conversations in tokens.
        settings: The settings of the training.
        on_step: Called with the loss after every step.
        stopped: Called before every step; True ends the training.
    """
    import torch

    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    warmup = max(1, round(settings.warmup * settings.steps))
    losses: list[float] = []
    model.train()
    batches = _batches(data, settings.batch_size, random.Random(f"promptgrad finetune {settings.seed}"))
    try:
        for step in range(settings.steps):
            if stopped():
                break
            rate = settings.lr * min((step + 1) / warmup, (settings.steps - step) / max(1, settings.steps - warmup))
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = next(batches)
            targets = sum(len(tokens.ids) - tokens.start for tokens in batch)
            total = 0.0
            for part in reply_logprobs(model, batch):
                loss = -part.logprobs.sum() / targets
                loss.backward()
                total += float(loss.detach())
            torch.nn.utils.clip_grad_norm_(trained, settings.max_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(total)
            on_step(total)
    except KeyboardInterrupt:
        if not losses:
            raise
    finally:
        model.eval()
    return losses


def _batches(data: Sequence[Tokens], size: int, rng: random.Random) -> Iterator[list[Tokens]]:
    """Batches without end: every conversation once in each epoch, in a new order."""
    queue: list[Tokens] = []
    while True:
        while len(queue) < min(size, len(data)):
            order = list(data)
            rng.shuffle(order)
            queue += order
        yield queue[:size]
        queue = queue[size:]
