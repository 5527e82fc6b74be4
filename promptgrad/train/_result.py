"""The result of a training run, its cost, and whether it shipped."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from promptgrad.evaluation import JudgeNoise
from promptgrad.nn import Module
from promptgrad.optim import Candidate, Trial
from promptgrad.run import Spent
from promptgrad.search import show_value
from promptgrad.train._install import as_program
from promptgrad.train._pareto_front import ParetoFront

Outcome = Literal[
    "shipped",
    "no likely gain",
    "no significant gain",
    "nothing to improve",
    "no candidate",
    "not confirmed",
    "interrupted",
]


@dataclass(frozen=True)
class Estimate:
    """A mean score with its 95 % bootstrap interval.

    Attributes:
        mean: Mean score.
        low: Lower end.
        high: Upper end.
        examples: The number of examples.
        errors: The number of examples on which the program failed.
    """

    mean: float
    low: float
    high: float
    examples: int
    errors: int = 0

    def __float__(self) -> float:
        return self.mean

    def __str__(self) -> str:
        failed = f", {self.errors} failed" if self.errors else ""
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] on {self.examples}{failed}"


@dataclass(frozen=True)
class Gain:
    """The paired comparison on which the decision rests.

    Attributes:
        mean: With `Trainer(ship="significant")` the mean paired difference, after minus before. Else the expected true
            gain given everything that was measured: shrunken towards what the other candidates achieved.
        low: Lower end of its interval.
        high: Upper end.
        confidence: Coverage of the interval; above 95 % where several finalists were confirmed.
        pairs: Number of examples.
        p: One-sided p-value of the permutation test; NaN where the posterior decides.
        chance: Probability that the true gain is positive, corrected for the choice; NaN with "significant".
        source: Which examples these are.
    """

    mean: float
    low: float
    high: float
    confidence: float
    pairs: int
    p: float
    chance: float = math.nan
    source: str = ""

    def __str__(self) -> str:
        if math.isnan(self.chance):
            return f"{self.amount} ({self.confidence:.1%} paired interval, {self.pairs} examples, p = {self.p:.3g})"
        how = f"shrunken, {self.confidence:.0%} interval corrected for the choice"
        return f"{self.amount} ({how}, {self.source}, better with P = {self.chance:.3f})"

    @property
    def amount(self) -> str:
        """The gain and its interval in words: "+0.310 [+0.120, +0.500]"."""
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


@dataclass(frozen=True)
class FitResult:
    """What `Trainer.fit` returns; print it.

    Attributes:
        outcome: "shipped" (the program has new values, or there is another one in its place), "no likely gain" (with
            `Trainer(ship="significant")` "no significant gain"), "nothing to improve", "no candidate", "not confirmed"
            (the budget ended first), or "interrupted". In all but the first, the program is as it was.
        reason: The reason for the outcome, in words.
        before: The start on validation data (None if it was not measured).
        after: What is expected of the best candidate on such data: the start's mean and the gain, with the gain's
            interval. With "significant" its scores on data that no choice was based on, as those of the start.
        measured: The best candidate's scores as they were measured on validation data, not shrunken: with "significant"
            the same as `after`.
        gain: Their paired comparison, see `Gain`.
        test_before: The start on the test set, if one was given.
        test_after: The result on the test set.
        values: The values that were installed, by parameter path; none unless shipped.
        best: The values of the best candidate found, shipped or not.
        program: The program to use from here on: the one that was trained, or, where what shipped has another
            structure (such as `nn.Ensemble`), that one; the trained one is then as it was. `promptgrad.save(
            result.program, path)` saves either.
        candidate: The best candidate found, shipped or not, with what it was made of (`Candidate.parents`).
        history: The trials, in order.
        spent: Calls, tokens and money; those answered from the journal of a resumed run are counted as well.
        phases: The same for each phase.
        seconds: Wall time of all processes of the run together.
        lost: Calls in flight when a process died or was stopped, as by Ctrl-C: possibly paid, and sent again.
        notes: Further remarks about the run.
        pareto: The candidates that none beats on all objectives, with `Trainer(objectives=...)`; else None.
        judge: The noise of the metric, where it calls language models and was measured; else None.
        run_dir: Folder of the journal; empty if it was kept in memory.
    """

    outcome: Outcome
    reason: str
    before: Estimate | None = None
    after: Estimate | None = None
    gain: Gain | None = None
    test_before: Estimate | None = None
    test_after: Estimate | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    best: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Trial, ...] = ()
    spent: Spent = Spent()  # noqa: RUF009 - frozen
    phases: Mapping[str, Spent] = field(default_factory=dict)
    seconds: float = 0.0
    lost: int = 0
    notes: tuple[str, ...] = ()
    run_dir: str = ""
    program: Module | None = field(default=None, repr=False)
    candidate: Candidate = field(default_factory=Candidate, repr=False)
    pareto: ParetoFront | None = field(default=None, repr=False)
    judge: JudgeNoise | None = field(default=None, repr=False)
    measured: Estimate | None = None

    @property
    def shipped(self) -> bool:
        """Whether the program has new values, or there is another one in its place."""
        return self.outcome == "shipped"

    @property
    def best_program(self) -> Module:
        """The best candidate found as a program, shipped or not: a new copy with its values.

        Language models are shared with the program that was trained; parameters that the best candidate does not set
        have the values that the program has now.

        Raises:
            RuntimeError: The result was made without a program.
        """
        if self.program is None:
            raise RuntimeError("this FitResult holds no program: only one that Trainer.fit or resume returned does")
        return as_program(self.program, self.candidate)

    def at_knee(self) -> Module:
        """The candidate at the knee of `pareto` as a program: a new copy, whether it shipped or not.

        Raises:
            RuntimeError: There is no front: the trainer had no objectives, or the start was not measured.
        """
        if self.pareto is None:
            raise RuntimeError("this FitResult has no front: pass Trainer(objectives={'tokens': 'min'}) for one")
        return self.pareto.program()

    @property
    def calls(self) -> int:
        """LM calls, those answered from the journal included."""
        return self.spent.calls

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.spent.tokens

    @property
    def usd(self) -> float | None:
        """Money; None if some price is unknown."""
        return self.spent.usd

    def __repr__(self) -> str:
        lines = [f"FitResult: {self.outcome}. {self.reason}"]
        lines += self._scores()
        usd = "unknown price" if self.usd is None else f"${self.usd:.4f}" if self.usd else "$0"
        parts = (
            (self.spent.sent, "sent"),
            (self.spent.cached, "from the cache"),
            (self.spent.replayed, "from the journal"),
        )
        shown = ", ".join(f"{count} {label}" for count, label in parts if count)
        whence = f" ({shown})" if self.spent.cached or self.spent.replayed else ""
        lost = f", {self.lost} lost in flight and perhaps paid twice" if self.lost else ""
        besides = {"calls": self.spent.failed_calls, "tokens": self.spent.failed_tokens}
        told = ", ".join(f"{count} {kind}" for kind, count in besides.items() if count)
        billed = f" ({told} besides)" if told else ""
        failed = f", {self.spent.failed} failed{billed}" if self.spent.failed or billed else ""
        spent = f"{self.calls} LM calls{whence}{failed}{lost}, {self.tokens} tokens, {usd}, {self.seconds:.1f} s"
        lines.append(f"  {'cost':<12} {spent}")
        if self.judge is not None:
            lines.append(f"  {'judge':<12} {self.judge}")
        if self.pareto is not None:
            lines.append(f"  {'knee':<12} {self.pareto.at_knee()}")
        if self.history:
            lines.append(f"  {'trials':<12} {len(self.history)}")
        changed, label = (self.values, "changed") if self.values else (self.best, "not shipped")
        for path, value in changed.items():
            lines.append(f"  {label:<12} {path}: {show_value(value, 90)}")
            label = ""
        if self.shipped and self.candidate.program is self.program:
            kind = type(self.program).__name__
            lines.append(f"  {'program':<12} result.program is another program ({kind}); the trained one is as it was")
        lines += [f"  {'note':<12} {note}" for note in self.notes]
        return "\n".join(lines)

    def _scores(self) -> list[str]:
        """The lines about scores: what was measured, what it lets expect, and the test."""
        lines = []
        if self.before is not None and (self.measured is None or self.gain is None):
            lines.append(f"  {'before':<12} {self.before}")
        elif self.before is not None and self.measured is not None and self.gain is not None:
            rows = self.gain.source or f"on {self.gain.pairs} examples that no choice was based on"
            if self.before.examples != self.measured.examples:
                rows += f", the start on {self.before.examples}"
            failed = max(self.before.errors, self.measured.errors)
            runs = f", of which {self.before.errors} -> {self.measured.errors} failed" if failed else ""
            lines.append(f"  {'measured':<12} {self.before.mean:.3f} -> {self.measured.mean:.3f} {rows}{runs}")
            how = f"{self.gain.confidence:.1%} paired interval, p = {self.gain.p:.3g}"
            if not math.isnan(self.gain.chance):
                how = f"expected: shrunken, {self.gain.confidence:.0%} interval corrected for the choice"
            lines.append(f"  {'gain':<12} {self.gain.amount} ({how})")
        if self.test_before is not None:
            after = f" -> {self.test_after}" if self.shipped and self.test_after is not None else ""
            lines.append(f"  {'test':<12} {self.test_before}{after}")
        return lines
