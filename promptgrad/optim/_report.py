"""What a step did: one `Change` for each parameter, the gate's verdict, the cost."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from promptgrad.autograd import Parameter
from promptgrad.lm import Usage
from promptgrad.search import Hunk, show_value

Status = Literal["proposed", "accepted", "rejected", "untouched"]


@dataclass(frozen=True)
class Verdict:
    """What a gate found when a proposal met the current values on the same examples.

    Attributes:
        accepted: Whether the evidence was enough.
        before: Mean score of the current values.
        after: Mean score of the proposal.
        low: Lower end of the interval of the paired difference, at `confidence`.
        high: Upper end.
        pairs: Number of pairs.
        confidence: Coverage of the interval's lower bound, one-sided; corrected for the choice among `of` proposals.
        reason: The decision in words.
        price: What the growth of the texts costs, in score: the gain must exceed it; negative where they shrink.
        of: How many proposals were measured, of which the best is taken.
        dropped: How many rows left the comparison, because a language model gave no answer.
    """

    accepted: bool = False
    before: float = 0.0
    after: float = 0.0
    low: float = 0.0
    high: float = 0.0
    pairs: int = 0
    confidence: float = 0.9
    reason: str = ""
    price: float = 0.0
    of: int = 1
    dropped: int = 0

    @property
    def gain(self) -> float:
        """Mean paired difference, without the price."""
        return self.after - self.before

    @property
    def effect(self) -> str:
        """Gain and interval in a few words."""
        return f"gain {self.gain:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"

    def __str__(self) -> str:
        price = f", price {self.price:+.3f}" if self.price else ""
        best = f", best of {self.of}" if self.of > 1 else ""
        if not self.pairs:
            return f"no row compared, {self.dropped} without an answer"
        left = f" ({_count(self.dropped, 'row')} without an answer left out)" if self.dropped else ""
        return (
            f"{self.before:.3f} -> {self.after:.3f} on {_count(self.pairs, 'pair')}{left}{best}, {self.effect}{price}"
        )


@dataclass(frozen=True)
class Change:
    """What became of one proposal for one parameter in one step.

    Attributes:
        path: Path of the parameter in its program; of one that has none its role, else its place in the optimizer.
            Equal ones are numbered, as in `Optimizer.state_dict`.
        kind: Kind of the parameter.
        status: "accepted" (installed), "rejected" (a proposal was made and not installed), "untouched" (there was
            none), or "proposed" (waiting for `accept` or `revert`).
        reason: Why, in words.
        old: Value before the step.
        new: Proposed value; None where there was none.
        edit: Edit distance between the two as a share of the longer one, for texts.
        variant: Which of the step's proposals it belongs to, from 0; those of one variant are tried together.
        hunks: The structured edits that make `new` of `old`, where such were asked for.
        verdict: What the gate found of its variant; None if it was not measured.
        usage: LM calls, tokens and money that writing it took.
        parameter: The parameter itself.
    """

    path: str
    kind: str
    status: Status
    reason: str = ""
    old: Any = None
    new: Any = None
    edit: float | None = None
    variant: int = 0
    hunks: tuple[Hunk, ...] = ()
    verdict: Verdict | None = None
    usage: Usage = Usage()  # noqa: RUF009 - frozen
    parameter: Parameter | None = field(default=None, compare=False, repr=False)

    def is_of_same(self, other: "Change") -> bool:
        """Whether both are about one parameter."""
        return self.path == other.path if self.parameter is None else self.parameter is other.parameter

    def to(self, status: Status, reason: str = "") -> "Change":
        """This change with another status."""
        return replace(self, status=status, reason=reason or self.reason)

    def __str__(self) -> str:
        parts = [self.path or f"(a {self.kind})", self.status]
        if self.edit is not None:
            parts.append(f"edit {self.edit:.2f}")
        if self.reason:
            parts.append(self.reason)
        if self.status in ("accepted", "rejected", "proposed") and self.new is not None:
            parts.append(f"{show_value(self.old)} -> {show_value(self.new)}")
        if self.usage.calls:
            parts.append(_count(self.usage.calls, "call"))
        return "  ".join(parts)


@dataclass(frozen=True)
class StepReport:
    """What `Optimizer.step` did.

    Attributes:
        changes: What became of each parameter that is trained, in the order of the parameters: of several proposals
            the one that was installed, else the best.
        gate: The gate's verdict on these; None for a step without a closure, which is installed on trust.
        usage: LM calls, tokens and money of the step, the closure's runs included.
        seconds: Wall time.
        skipped: Kinds of parameters that this optimizer has no rule for; named in the first report only.
        proposals: Everything that was proposed, by parameter and then by variant, with its fate, its verdict and what
            it took to write.
        gate_usage: The part of `usage` that the closure's runs took.
        notes: What else there is to know, such as that samples failed and nobody was blamed.
    """

    changes: tuple[Change, ...]
    gate: Verdict | None = None
    usage: Usage = Usage()  # noqa: RUF009 - frozen
    seconds: float = 0.0
    skipped: tuple[str, ...] = ()
    proposals: tuple[Change, ...] = ()
    gate_usage: Usage = Usage()  # noqa: RUF009 - frozen
    notes: tuple[str, ...] = ()

    @property
    def accepted(self) -> tuple[Change, ...]:
        """The changes that were installed."""
        return tuple(change for change in self.changes if change.status == "accepted")

    @property
    def calls(self) -> int:
        """LM calls made."""
        return self.usage.calls

    def __repr__(self) -> str:
        how = "not gated" if self.accepted else "nothing gated"
        if self.gate:
            how = f"gated: {self.gate}, {self.gate.reason}"
        spent = f"{self.usage.calls} calls"
        if self.gate_usage.calls:
            spent += f" ({self.gate_usage.calls} in the gate)"
        lines = [
            f"StepReport: {len(self.accepted)} of {len(self.changes)} parameters changed, {how}; "
            f"{spent}, {self.usage.tokens} tokens, {self.seconds:.2f} s"
        ]
        variants = len({change.variant for change in self.proposals})
        for change in self.changes:
            lines.append(f"  {change}")
            if variants > 1:
                lines += [f"    {_brief(other)}" for other in self.proposals if change.is_of_same(other)]
        lines += [f"  note: {note}" for note in self.notes]
        if self.skipped:
            lines.append(f"  no rule for parameters of kind {', '.join(self.skipped)}: they keep their values")
        return "\n".join(lines)


def _brief(change: Change) -> str:
    """One proposal among several, in a line."""
    effect = f"  {change.verdict.effect}" if change.verdict else ""
    cost = f"  {_count(change.usage.calls, 'call')}" if change.usage.calls else ""
    why = f"  {change.reason}" if change.status == "rejected" else ""
    shown = f"  {show_value(change.new)}" if change.new is not None else ""
    return f"{change.variant}: {change.status}{effect}{why}{cost}{shown}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
