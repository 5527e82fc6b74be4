"""A policy: a copy of a program's local model that samples runs and learns from them, in turn."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from promptgrad import lm, run
from promptgrad.data import Example
from promptgrad.finetune._memory import autocast, checkpointed, masters
from promptgrad.finetune._place import moved
from promptgrad.finetune._rollouts import Graded, RolloutStep
from promptgrad.finetune._surrogate import Surrogate, Update
from promptgrad.finetune._training import WHOLE, Share, Training, TuneSettings
from promptgrad.finetune._tune import _one_at_a_time
from promptgrad.finetune._weights import prepared
from promptgrad.nn import Module, whole_state


@dataclass(frozen=True)
class PolicyOptions:
    """What a policy samples, and how it learns from that.

    Attributes:
        n: Runs of each example.
        temperature: Temperature of the replies.
        clip: How far the ratio may lie below and above 1.
        inner: Updates from the runs of one step.
        kl: Weight of the divergence from the model at the start.
        scale_rewards: Whether advantages are divided by the standard deviation of their group.
        format_penalty: The score of a run whose reply cannot be read is minus this.

    Raises:
        ValueError: A number is out of range.
    """

    n: int
    temperature: float
    clip: float | tuple[float, float]
    inner: int
    kl: float
    scale_rewards: bool
    format_penalty: float

    def __post_init__(self) -> None:
        if self.n < 2:
            raise ValueError(f"a group needs two runs of an example: n must be at least 2, not {self.n!r}")
        if self.inner < 1:
            raise ValueError(f"inner must be at least 1, not {self.inner!r}")
        for name in ("temperature", "kl", "format_penalty"):
            value = getattr(self, name)
            if not value >= 0 or (name == "temperature" and not value):
                raise ValueError(f"{name} must be {'above' if name == 'temperature' else 'at least'} 0, not {value!r}")
        if not all(bound > 0 for bound in self.bounds) or self.bounds[0] > 1:
            raise ValueError(
                f"clip is a bound above 0, or one below 1 and one above it such as (0.2, 0.28), not {self.clip!r}"
            )

    @property
    def bounds(self) -> tuple[float, float]:
        """How far the ratio may lie below 1, and above it."""
        return self.clip if isinstance(self.clip, tuple) else (min(self.clip, 1.0), self.clip)


class Policy:
    """A copy of a program's local model that samples runs of the program and learns from them.

    Args:
        program: The program; it and its model stay as they are.
        local: The local model that it runs on.
        options: What is sampled, and how it is learned from.
        settings: The settings of the training; `steps` counts updates.
        share: How much of a batch goes through the model at once.

    Attributes:
        lm: The copy.
        program: A copy of the program that runs on it.
        training: The training of the copy; its notes hold the steps, so that a checkpoint has them.
        reference: The model that it is held to: that of the given program.
        steps: The steps so far.
    """

    def __init__(
        self, program: Module, local: lm.Local, options: PolicyOptions, settings: TuneSettings, share: Share = WHOLE
    ) -> None:
        self.options = options
        self.reference = local.model
        import torch

        with _one_at_a_time, torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(settings.seed)
            model = prepared(local, settings)
        self.training = Training(model, settings, share)
        self.lm = local.with_model(self.training.model)
        self.lm.options["temperature"] = float(options.temperature)
        self.program = moved(program, {id(local): self.lm})
        self.steps: list[RolloutStep] = []
        self._known = _digest([local.identity(), asdict(settings), asdict(options)])
        self._updates = 0

    @property
    def version(self) -> str:
        """A name for the weights: the same for the same start, settings, replies and advantages."""
        return self._known[:10]

    @property
    def between_steps(self) -> bool:
        """Whether all updates of the last step were made, and none of the next one."""
        return self._updates == len(self.training.losses)

    @contextlib.contextmanager
    def fitted(self, *, checkpointing: bool) -> Iterator[None]:
        """Sample and learn in the type of the settings, on weights in float32; activations may be computed twice."""
        model, dtype = self.training.model, self.training.settings.dtype
        with (
            autocast(model, dtype),
            checkpointed(model, wanted=checkpointing),
            masters(model, wanted=dtype is not None),
        ):
            yield

    def about(self, program: Module, examples: Sequence[Example], judge: str) -> dict[str, Any]:
        """What the training is of, by which the folder of its checkpoints knows it."""
        return {
            "model": self.lm.name,
            "start": self._known,
            "recipe": f"grpo {asdict(self.options)}",
            "settings": asdict(self.training.settings),
            "samples": len(examples),
            "data": _digest(
                [[example.id for example in examples], run.value_digest(whole_state(program.state_dict())), judge]
            ),
        }

    def go_on(self) -> None:
        """Go on from the steps in the notes of the training, if there are any."""
        notes = self.training.notes
        if notes:
            self.steps = [RolloutStep(**step) for step in notes["steps"]]
            self._known = str(notes["known"])
            self._updates = len(self.training.losses)

    def sampling(self, step: int) -> None:
        """Draw the runs of a step with random numbers of its own."""
        self.training.model.eval()
        self.lm.seed = run.spawn(self.training.settings.seed, "rollouts", step)

    def learn(
        self, runs: Graded, stopped: Callable[[], bool] = lambda: False, batch: Sequence[str] = ()
    ) -> RolloutStep:
        """Update the weights from the runs of one step; `batch` names its examples, for the messages.

        Cost: `inner` forward and backward passes over the replies that teach something, and a forward pass of the
        reference if it has a weight.
        """
        options = self.options
        replies = [reply for reply in runs.replies if reply.advantage or options.kl]
        made: list[Update] = []
        if replies:
            surrogate = Surrogate(
                replies, runs.runs - runs.errors, clip=options.bounds, kl=options.kl, reference=self.reference
            )

            def gradient() -> float:
                made.append(surrogate.gradient(self.training.model, self.training.share))
                return made[-1].loss

            for _ in range(options.inner):
                if stopped() or self.training.step(gradient, batch) is None:
                    break
            told = [[list(reply.tokens.ids), reply.tokens.start, reply.advantage] for reply in replies]
            self._known = _digest([self._known, told])
        last = made[-1] if made else None
        step = RolloutStep(
            reward=runs.reward,
            runs=runs.runs,
            groups=runs.groups,
            alike=runs.alike,
            unreadable=runs.unreadable,
            errors=runs.errors,
            calls=len(replies),
            loss=None if last is None else last.loss,
            kl=None if last is None else last.kl,
            clipped=None if last is None else last.clipped,
        )
        self.steps.append(step)
        self.training.notes = {"steps": [asdict(one) for one in self.steps], "known": self._known}
        self._updates = len(self.training.losses)
        return step


def _digest(told: Sequence[Any]) -> str:
    text = json.dumps(told, sort_keys=True, default=str).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).hexdigest()
