"""A training in progress: what `torch.optim` steps on, and everything that the next step depends on."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from promptgrad.errors import DataError, OutOfMemoryError
from promptgrad.finetune._memory import LEAST_TOKENS, is_out_of_memory, no_room
from promptgrad.finetune._ranks import add_up, full_tensor, like, seed_of
from promptgrad.lm import PART_TOKENS

T = TypeVar("T")


@dataclass(frozen=True)
class TuneSettings:
    """The settings of a training: every number that the result depends on.

    Attributes:
        lora: Options of the LoRA (`r`, `alpha`, `dropout`, `target_modules`), or of a soft prompt (`soft_tokens`); None
            for all weights.
        steps: Optimizer steps.
        lr: Peak learning rate.
        batch_size: Conversations in a step.
        warmup: Share of the steps in which the rate rises from 0.
        weight_decay: AdamW's.
        max_norm: Largest norm of the gradient.
        seed: Seed of the LoRA's start, the order of the conversations, and dropout.
        dtype: "bfloat16" if the model computed in it, on weights in float32; None for the type of its weights.
    """

    lora: dict[str, Any] | None
    steps: int
    lr: float
    batch_size: int
    warmup: float = 0.05
    weight_decay: float = 0.0
    max_norm: float = 1.0
    seed: int = 0
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of a batch a process computes, and how much of it at once.

    Attributes:
        limit: Most tokens of one pass, padding included (`lm.reply_logprobs`); it bounds memory, not the result.
        rank: Number of the process.
        ranks: Number of processes.
        apart: Whether each of them has to make as many passes, and none shares a prefix.
    """

    limit: int = PART_TOKENS
    rank: int = 0
    ranks: int = 1
    apart: bool = False

    def of(self, batch: Sequence[T]) -> Sequence[T]:
        """The samples of this process. The loss is that of the whole batch, of which they are a part."""
        return batch if self.ranks == 1 else batch[self.rank :: self.ranks]


_FEW = 2**28
"""Bytes of trained weights of which a copy is no burden; so is a tenth of all weights of a model."""

_ADAMW = ("step", "exp_avg", "exp_avg_sq")

WHOLE = Share()
"""The share of a process that trains alone."""


class Training:
    """The weights of a model that require a gradient, their AdamW, the learning rate, the random state, the losses.

    A step is all of what a training does after its gradient: clipping, the rate of this step (warm-up, then linear
    decay), AdamW, and the rule for what is no number. `state` and `load_state` are a checkpoint: a training that is
    loaded goes on with the same weights, bit for bit, as one that was never saved, on the same machine.

    ```python
    training = Training(model, settings)
    with training.running():
        while not training.done:
            training.step(lambda: objective(model, batch, training.share))
    ```

    Args:
        model: A model in torch; the weights that require a gradient now are trained, in place.
        settings: The settings.
        share: How much of a batch goes through the model at once.
        around: What is around the passes of a step, where the processes hold the weights in shares.

    Attributes:
        model: The model.
        settings: The settings.
        share: How much of a batch goes through the model at once, for the objective.
        weights: The trained weights by name.
        optimizer: The AdamW.
        losses: The loss of every step so far.
        ended: Why it ended before its last step, since a loss or gradient was no number; "" if it did not.
        notes: What else the next step depends on, in JSON types; a checkpoint keeps it.
    """

    def __init__(
        self,
        model: Any,
        settings: TuneSettings,
        share: Share = WHOLE,
        around: Callable[[], contextlib.AbstractContextManager[None]] | None = None,
    ) -> None:
        import torch

        self.model = model
        self.settings = settings
        self.share = share
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.weights.values(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        self.losses: list[float] = []
        self.ended = ""
        self.notes: dict[str, Any] = {}
        self._around = around
        self._random = self._random_state()
        self._whole = True
        own = sum(weight.numel() * weight.element_size() for weight in self.weights.values())
        every = sum(weight.numel() * weight.element_size() for weight in model.parameters())
        self._few = around is None and own <= max(_FEW, every / 10)
        self._before: dict[str, Any] = {}

    @property
    def done(self) -> bool:
        """Whether no step is left, or the training has ended before."""
        return len(self.losses) >= self.settings.steps or bool(self.ended)

    @property
    def whole(self) -> bool:
        """Whether weights and optimizer are those of a number of steps: False only if the last step raised an error."""
        return self._whole

    @property
    def sharded(self) -> bool:
        """Whether the processes hold the weights in shares."""
        return self._around is not None

    def rate(self) -> float:
        """The learning rate of the next step: it rises to `lr` in the warm-up, then falls to 0 on a line."""
        step, steps = len(self.losses), self.settings.steps
        warmup = max(1, round(self.settings.warmup * steps))
        return self.settings.lr * min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))

    def step(self, gradient: Callable[[], float], batch: Sequence[str] = ()) -> float | None:
        """Take one step.

        Args:
            gradient: Adds the gradient of the loss to the weights' `grad`, and returns the loss; where `share` is of
                several processes, the part of both that this one computes.
            batch: What the samples of the batch are called, for the message where the loss is no number.

        Returns:
            The loss; None if the loss or the gradient is no number. Then the training has `ended`, with a warning, and
            the weights are those of the step before, or of before that one if it spoilt them (see `end`).

        Raises:
            DataError: It is no number in the first step.
            OutOfMemoryError: The gradient does not fit into memory, also in the smallest parts of the batch. Larger
                parts are halved, with a warning, before.
        """
        import torch

        if self.share.ranks > 1:
            torch.manual_seed(seed_of(self.settings.seed, len(self.losses), self.share.rank))
        self._random = self._random_state()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        loss, norm = self._loss_and_norm(gradient)
        if not math.isfinite(loss + norm):
            broken = f"the loss is {loss}" if not math.isfinite(loss) else f"the norm of the gradient is {norm}"
            self.end(broken, batch, lambda: math.isfinite(sum(self._loss_and_norm(gradient))))
            return None
        with _ctrl_c_waits():
            self._whole = False
            self._remember()
            self._update()
            self.optimizer.zero_grad(set_to_none=True)
            self.losses.append(loss)
            self._random = self._random_state()
            self._whole = True
        return loss

    def _loss_and_norm(self, gradient: Callable[[], float]) -> tuple[float, float]:
        """The loss and the norm of its gradient, of all processes; without a gradient left where one is no number."""
        import torch

        loss = self._gradient(gradient)
        if self.share.ranks > 1:
            loss = add_up(self.weights.values() if self._around is None else (), loss, self._device())
        norm = float(full_tensor(torch.nn.utils.clip_grad_norm_(list(self.weights.values()), self.settings.max_norm)))
        if not math.isfinite(loss + norm):
            self.optimizer.zero_grad(set_to_none=True)
        return loss, norm

    def _remember(self) -> None:
        """Keep the weights of before an update, which may spoil them, where they are few."""
        if self._few:
            import torch

            with torch.no_grad():
                for name, weight in self.weights.items():
                    self._before.setdefault(name, torch.empty_like(weight))
                torch._foreach_copy_(list(self._before.values()), list(self.weights.values()))

    def _go_back(self, is_better: Callable[[], bool]) -> bool:
        """Take the weights of before the last step, if with them there are numbers; returns whether it did."""
        import torch

        if not self._before:
            return False

        def swap() -> None:
            with torch.no_grad():
                for name, weight in self.weights.items():
                    kept = weight.clone()
                    weight.copy_(self._before[name])
                    self._before[name] = kept

        swap()
        self._to_random_state(self._random)
        if better := is_better():
            self._before.clear()
        else:
            swap()
        self.optimizer.zero_grad(set_to_none=True)
        return better

    def _gradient(self, gradient: Callable[[], float]) -> float:
        """The loss, whose gradient is computed in smaller parts where it does not fit into memory."""
        import torch

        first = self.share.limit
        while True:
            try:
                with contextlib.nullcontext() if self._around is None else self._around():
                    loss = gradient()
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self._around is not None:  # the others are in another pass
                    raise no_room(len(self.losses), self.share.limit, str(error)) from error
                reason = str(error).partition("\n")[0][:200] or type(error).__name__
            # the error, whose traceback held what the pass had computed, is gone
            self.optimizer.zero_grad(set_to_none=True)
            self._to_random_state(self._random)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if self.share.limit // 2 < LEAST_TOKENS:
                raise no_room(len(self.losses), self.share.limit, reason)
            self.share = replace(self.share, limit=self.share.limit // 2)
        if (limit := self.share.limit) != first:
            warnings.warn(
                f"a step did not fit into memory in parts of {first} tokens, so the training goes on in parts of "
                f"{limit}, with the same gradients (micro_batch_tokens={limit} begins so)",
                stacklevel=4,
            )
        return loss

    def _update(self) -> None:

        try:
            self.optimizer.step()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"the moments of AdamW do not fit into memory ({error}): they take twice as much as the weights that "
                "are trained. A LoRA (lora=) has few"
            ) from error

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The model in training mode; Ctrl-C ends the block, unless no step is done yet, where it is raised.

        In a group of processes it is always raised, since the others may be in another step.
        """
        self.model.train()
        try:
            yield
        except KeyboardInterrupt:
            if not self.losses or self.share.ranks > 1:
                raise
        finally:
            self.model.eval()
            self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """All that the next step depends on: tensors by name, and facts in JSON types.

        After the last step these are the weights alone. Between steps, and after a gradient that was cut short, it is
        the state before the next step.

        Where the processes hold the weights in shares, all of them have to ask.

        Raises:
            RuntimeError: A step was cut in its middle (see `whole`).
        """
        if not self._whole:
            raise RuntimeError("a step was cut in its middle, so there is no state to keep")
        tensors = {f"weight.{name}": full_tensor(weight.detach()) for name, weight in self.weights.items()}
        if not self.done:
            for name, weight in self.weights.items():
                for key in _ADAMW if weight in self.optimizer.state else ():
                    tensors[f"{key}.{name}"] = full_tensor(self.optimizer.state[weight][key].detach())
            tensors |= self._random
        notes = {"notes": dict(self.notes)} if self.notes else {}
        return tensors, {"losses": list(self.losses), "ended": self.ended, **notes}

    def load_state(self, tensors: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Go on from what `state` gave.

        Raises:
            ValueError: It is of other weights. Nothing is changed then.
        """
        import torch

        found = {name.removeprefix("weight."): tensor for name, tensor in tensors.items() if name.startswith("weight.")}
        if {name: tuple(w.shape) for name, w in found.items()} != {
            name: tuple(w.shape) for name, w in self.weights.items()
        }:
            raise ValueError("these are not the weights that are trained here")
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(like(found[name], weight))
                kept = {key: tensors.get(f"{key}.{name}") for key in _ADAMW}
                if all(value is not None for value in kept.values()):
                    self.optimizer.state[weight] = {
                        key: (like(value, weight) if value.shape else value).to(weight.device, copy=True)
                        for key, value in kept.items()
                        if value is not None
                    }
        self._to_random_state(tensors)
        self.losses = [float(loss) for loss in facts["losses"]]
        self.ended = str(facts["ended"])
        self.notes = dict(facts.get("notes", {}))
        self._random = self._random_state()

    def _device(self) -> Any:
        return next(iter(self.weights.values())).device

    def _random_state(self) -> dict[str, Any]:
        """Where torch's random numbers are, from which dropout draws."""
        import torch

        state = {"random.cpu": torch.get_rng_state()}
        if (device := self._device()).type == "cuda":
            state["random.cuda"] = torch.cuda.get_rng_state(device)
        return state

    def _to_random_state(self, tensors: Mapping[str, Any]) -> None:
        import torch

        if "random.cpu" in tensors:
            torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and (device := self._device()).type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], device)

    def end(self, what: str, batch: Sequence[str] = (), is_better: Callable[[], bool] = lambda: True) -> None:
        """End the training before its last step, with a warning; the weights are the last ones with which it goes.

        These are the weights of the step before, or those before that step, where they are at hand and are better.

        Args:
            what: What is no number in the next step.
            batch: What the samples of the batch are called.
            is_better: Whether all is a number with the weights that are there when it is called.

        Raises:
            DataError: It is no number in the first step.
        """
        step, of = len(self.losses), f" ({named(batch)})" if batch else ""
        if not step:
            raise DataError(
                f"{what} in the first step{of}: the weights, or the type of their numbers, cannot be trained as they "
                "are (dtype='float32' or 'bfloat16' in lm.Local)"
            )
        left = f"those of step {step}"
        if self._go_back(is_better):
            before = "those at the start" if step == 1 else f"those of step {step - 1}"
            left = f"{before}, as step {step} has spoilt them"
        self.ended = (
            f"the training ends after {step} steps, as {what} in the next one{of}; the weights are {left}. Try a lower "
            f"lr than {self.settings.lr:g}, or dtype='float32'"
        )
        warnings.warn(self.ended, stacklevel=4)


def named(batch: Sequence[str]) -> str:
    """The samples of a batch, the first of them by name."""
    whole = list(dict.fromkeys(batch))
    return f"its batch: {', '.join(whole[:8])}{f' and {len(whole) - 8} more' if len(whole) > 8 else ''}"


@contextlib.contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Let Ctrl-C come at the end of the block, in the thread that gets it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[Any] = []
    usual = signal.signal(signal.SIGINT, lambda *told: came.append(told))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if came and callable(usual):
        usual(*came[0])
