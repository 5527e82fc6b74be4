"""Rollouts of a program whose local model learns: what each reply has earned, and what the steps have come to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from promptgrad import lm
from promptgrad.autograd import LossRow, Node
from promptgrad.errors import ParseError
from promptgrad.finetune._surrogate import Baseline, SampledReply
from promptgrad.lm import LocalTrace


@dataclass(frozen=True, slots=True)
class RolloutStep:
    """One step: several runs of each example of a block by one policy, and what was learned from them.

    Attributes:
        reward: Mean score of the runs, with the penalty of those whose reply could not be read.
        runs: How many runs there were.
        groups: How many examples.
        alike: In how many of the groups no two runs differ in score, so that they teach nothing.
        unreadable: How many runs ended with a reply of the local model that could not be read.
        errors: How many runs failed otherwise; they are in no group.
        calls: How many replies of the local model were learned from.
        loss: Loss of the last update, in units of the score; None, like what follows, if there was nothing to learn.
        kl: Divergence from the reference before the last update, in nats for each token; 0 where it has no weight.
        clipped: Share of the reply tokens that the ratio's bound kept from the last update.
    """

    reward: float
    runs: int
    groups: int
    alike: int
    unreadable: int
    errors: int
    calls: int
    loss: float | None
    kl: float | None
    clipped: float | None


@dataclass(frozen=True)
class Rollouts:
    """The rollouts that a policy was trained on.

    Attributes:
        steps: The steps, in order.
    """

    steps: tuple[RolloutStep, ...]

    @property
    def rewards(self) -> tuple[float, ...]:
        """The mean score of the runs of each step."""
        return tuple(step.reward for step in self.steps)

    @property
    def runs(self) -> int:
        """How many runs there were."""
        return sum(step.runs for step in self.steps)

    @property
    def alike(self) -> int:
        """How many groups taught nothing, as no two of their runs differ in score."""
        return sum(step.alike for step in self.steps)

    @property
    def unreadable(self) -> int:
        """How many runs ended with a reply of the local model that could not be read."""
        return sum(step.unreadable for step in self.steps)

    @property
    def errors(self) -> int:
        """How many runs failed otherwise."""
        return sum(step.errors for step in self.steps)

    def lost(self) -> str:
        """What taught nothing, in words; "" if everything did."""
        found = (self.alike, "groups alike"), (self.errors, "runs failed")
        return ", ".join(f"{number} {what}" for number, what in found if number)

    def nothing(self) -> str:
        """Why there may be nothing to learn, and what to do about it."""
        groups = sum(step.groups for step in self.steps)
        failed = f", {self.errors} failed" if self.errors else ""
        return (
            f"in none of {groups} groups ({self.runs} runs{failed}) two runs differ in score and have a reply of the "
            f"local model; the mean score is {fmean(self.rewards) if self.steps else 0.0:.3f}. Let the model sample "
            "(temperature=1.0), take more runs n= of each example, a metric with more than two values, or start from "
            "a model that is right sometimes (finetune.sft)"
        )

    def __iter__(self) -> Iterator[RolloutStep]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        return f"Rollouts({len(self.steps)} steps, {self.runs} runs, {self.alike} groups alike, {self.errors} errors)"


@dataclass(frozen=True)
class Graded:
    """The runs of one step, graded.

    Attributes:
        replies: Every reply of the policy that teaches something, with its advantage.
        reward: As in `RolloutStep`, like the counts after it.
    """

    replies: tuple[SampledReply, ...]
    reward: float
    runs: int
    groups: int
    alike: int
    unreadable: int
    errors: int


def graded(
    rows: Sequence[LossRow], *policies: lm.Local, format_penalty: float = 1.0, scale_rewards: bool = False
) -> Graded:
    """Give every reply of some policies the advantage of its run within the runs of the same example.

    A run is one trajectory, whatever modules it calls and how often: all replies of the policies in it have its
    advantage. If a reply could not be read and the module asked again, that reply alone counts as unreadable.

    Args:
        rows: The runs; those of one example in a row.
        *policies: The local models that learn; a reply knows the place of its own among them.
        format_penalty: The score of a run whose reply could not be read is minus this.
        scale_rewards: Divide by the standard deviation of the group.

    Raises:
        Exception: The first error, if every run failed and none for a reply that cannot be read.
    """
    replies: list[SampledReply] = []
    rewards: list[float] = []
    groups = alike = unreadable = 0
    for _, group in groupby(rows, key=lambda row: id(row.example)):
        groups += 1
        runs = []
        for row in group:
            unread = _is_unreadable(row, policies)
            unreadable += unread
            if unread or row.error is None:
                runs.append((row, -format_penalty if unread else float(row.score)))
        scores = [score for _, score in runs]
        rewards += scores
        if len(set(scores)) < 2:
            alike += 1
            continue
        baseline = Baseline.of(scores, scaled=scale_rewards)
        for row, score in runs:
            for node in row.tape.nodes if row.tape is not None else ():
                traces = _traces(node, policies)
                earned = [-format_penalty] * (len(traces) - 1) + [score] * bool(traces)
                replies += [
                    SampledReply(trace.tokens(), baseline.advantage(value), by)
                    for (by, trace), value in zip(traces, earned, strict=True)
                ]
    if not rewards:
        raise next(row.error for row in rows if row.error is not None)
    return Graded(tuple(replies), fmean(rewards), len(rows), groups, alike, unreadable, len(rows) - len(rewards))


def _traces(node: Node, policies: Sequence[lm.Local]) -> list[tuple[int, LocalTrace]]:
    """The replies of the policies in one call of a module, with the place of each policy; several if asked again."""
    return [
        (by, trace)
        for trace in node.weight_traces
        for by, policy in enumerate(policies)
        if isinstance(trace, LocalTrace) and trace.lm is policy and trace.ids
    ]


def _is_unreadable(row: LossRow, policies: Sequence[lm.Local]) -> bool:
    """Whether a run failed because a reply of a policy could not be read."""
    if not isinstance(row.error, ParseError) or row.tape is None:
        return False
    failed = [node for node in row.tape.nodes if node.error is not None]
    return bool(failed) and bool(_traces(failed[-1], policies))
