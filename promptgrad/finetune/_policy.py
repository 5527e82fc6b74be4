"""A policy: copies of the local models of a program that sample runs and learn from them, in turn."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from promptgrad import lm, run
from promptgrad._numbers import check_count, check_number
from promptgrad.data import Example
from promptgrad.errors import JournalError
from promptgrad.finetune._memory import apart, autocast, checkpointed, masters
from promptgrad.finetune._place import moved
from promptgrad.finetune._rollouts import Graded, RolloutStep
from promptgrad.finetune._surrogate import SampledReply, Surrogate, Update
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
        check_count("n", self.n, 2, "a number of runs of an example, of which a group needs two,")
        check_count("inner", self.inner)
        check_number("temperature", self.temperature, above=0)
        check_number("kl", self.kl, least=0)
        check_number("format_penalty", self.format_penalty, least=0)
        if not all(bound > 0 for bound in self.bounds) or self.bounds[0] > 1:
            raise ValueError(
                f"clip is a bound above 0, or one below 1 and one above it such as (0.2, 0.28), not {self.clip!r}"
            )

    @property
    def bounds(self) -> tuple[float, float]:
        """How far the ratio may lie below 1, and above it."""
        return self.clip if isinstance(self.clip, tuple) else (min(self.clip, 1.0), self.clip)


class Policy:
    """A copy of a program's local model that samples runs of the program and learns from them; or of its LoRAs.

    Several learn together: one AdamW has the weights of all, and one norm bounds their gradient.

    Args:
        program: The program; it and its models stay as they are.
        learners: The local model that it runs on, or the LoRAs of one.
        options: What is sampled, and how it is learned from.
        settings: The settings of the training; `steps` counts updates.
        share: How much of a batch goes through the model at once.
        checkpointing: Whether activations are computed twice.

    Attributes:
        lms: The copies.
        models: Their models.
        program: A copy of the program that runs on them.
        training: The training of the copies; its notes hold the steps, so that a checkpoint has them.
        references: The models that they are held to: those of the given program.
        steps: The steps so far.
    """

    def __init__(
        self,
        program: Module,
        learners: Sequence[lm.Local],
        options: PolicyOptions,
        settings: TuneSettings,
        share: Share = WHOLE,
        *,
        checkpointing: bool = False,
    ) -> None:
        self.options = options
        self.references = [local.model for local in learners]
        import torch

        with _one_at_a_time, torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(settings.seed)
            self.models = [prepared(local, settings) for local in learners]
        self._checkpointing = checkpointing
        self._learn_with = [apart(model, wanted=checkpointing) for model in self.models]
        whole = self._learn_with[0] if len(learners) == 1 else torch.nn.ModuleList(self._learn_with)
        self.training = Training(whole, settings, share)
        self.lms = [local.with_model(model) for local, model in zip(learners, self.models, strict=True)]
        for copied in self.lms:
            copied.options["temperature"] = float(options.temperature)
        self.program = moved(program, {id(local): own for local, own in zip(learners, self.lms, strict=True)})
        self.steps: list[RolloutStep] = []
        starts = [local.identity() for local in learners]
        self._start = _digest([starts[0] if len(starts) == 1 else starts, asdict(settings), asdict(options)])
        self._known = self._start
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
    def fitted(self) -> Iterator[None]:
        """Sample and learn in the type of the settings, on weights in float32; activations may be computed twice."""
        dtype = self.training.settings.dtype
        with contextlib.ExitStack() as stack:
            for model in self._learn_with:
                stack.enter_context(autocast(model, dtype))
                stack.enter_context(checkpointed(model, wanted=self._checkpointing))
            stack.enter_context(masters(self.training.model, wanted=dtype is not None))
            yield

    def about(self, program: Module, examples: Sequence[Example], judge: str) -> dict[str, Any]:
        """What the training is of, by which the folder of its checkpoints knows it."""
        return {
            "model": ", ".join(own.name for own in self.lms),
            "start": self._start,
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

    def begin_again(self) -> None:
        """Be known as at the start, while the runs of the steps so far are looked up where they are on record."""
        self._known = self._start

    def pass_by(self, step: int, runs: Graded) -> None:
        """Be known by what was learned from the runs of a step, of which the weights have the updates already.

        Raises:
            JournalError: It was the last of them, and they were learned from other runs.
        """
        self._known = self._with(self._teaching(runs))
        if step + 1 == len(self.steps) and self._known != self.training.notes["known"]:
            raise JournalError(
                f"the checkpoint is of {len(self.steps)} steps from other runs than those on record: remove it, and "
                "the steps are taken again from what is on record"
            )

    def sampling(self, step: int) -> None:
        """Draw the runs of a step with random numbers of its own, by weights that are known by what they learned."""
        self.training.model.eval()
        for place, own in enumerate(self.lms):
            own.seed = run.spawn(self.training.settings.seed, "rollouts", step, *([place] if place else []))
            own.known_as(f"{self._known} {place}", here=step >= len(self.steps))

    def learn(
        self, runs: Graded, stopped: Callable[[], bool] = lambda: False, batch: Sequence[str] = ()
    ) -> RolloutStep:
        """Update the weights from the runs of one step; `batch` names its examples, for the messages.

        Cost: `inner` forward and backward passes over the replies that teach something, and a forward pass of the
        reference if it has a weight.
        """
        options, replies = self.options, self._teaching(runs)
        made: list[Update] = []
        if replies:
            surrogates = [
                (
                    model,
                    Surrogate(own, runs.runs - runs.errors, clip=options.bounds, kl=options.kl, reference=reference),
                )
                for by, (model, reference) in enumerate(zip(self._learn_with, self.references, strict=True))
                if (own := [reply for reply in replies if reply.by == by])
            ]

            def gradient() -> float:
                share = self.training.share
                made.append(Update.of([surrogate.gradient(model, share) for model, surrogate in surrogates]))
                return made[-1].loss

            for _ in range(options.inner):
                if stopped() or self.training.step(gradient, batch) is None:
                    break
        self._known = self._with(replies)
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

    def _teaching(self, runs: Graded) -> list[SampledReply]:
        return [reply for reply in runs.replies if reply.advantage or self.options.kl]

    def _with(self, replies: Sequence[SampledReply]) -> str:
        """What the weights are known by once they have learned from these replies."""
        told = [
            [list(one.tokens.ids), one.tokens.start, one.advantage, *([one.by] if one.by else [])] for one in replies
        ]
        return _digest([self._known, told]) if told else self._known


def _digest(told: Sequence[Any]) -> str:
    text = json.dumps(told, sort_keys=True, default=str).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).hexdigest()
