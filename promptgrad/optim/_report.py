"""What a step did: one `Change` for each parameter, the gate's verdict, the cost."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from promptgrad.lm import Usage

Status = Literal["proposed", "accepted", "rejected", "untouched"]


@dataclass(frozen=True)
class Change:
    """What became of one parameter in one step.

    Attributes:
        path: Path of the parameter in its program.
        kind: Kind of the parameter.
        status: "accepted" (installed), "rejected" (a proposal was made and not installed), "untouched" (there was
            none), or "proposed" (waiting for `accept` or `revert`).
        reason: Why, in words.
        old: Value before the step.
        new: Proposed value; None where there was none.
        edit: Edit distance between the two as a share of the longer one, for texts.
    """

    path: str
    kind: str
    status: Status
    reason: str = ""
    old: Any = None
    new: Any = None
    edit: float | None = None

    def to(self, status: Status, reason: str = "") -> "Change":
        """This change with another status."""
        return replace(self, status=status, reason=reason or self.reason)

    def __str__(self) -> str:
        parts = [self.path or f"(a {self.kind})", self.status]
        if self.edit is not None:
            parts.append(f"edit {self.edit:.2f}")
        if self.reason:
            parts.append(self.reason)
        if self.status == "accepted" or (self.status == "proposed" and self.new is not None):
            parts.append(f"{show_value(self.old)} -> {show_value(self.new)}")
        return "  ".join(parts)


@dataclass(frozen=True)
class Verdict:
    """What a gate found when the proposal met the current values on the same examples.

    Attributes:
        accepted: Whether the evidence was enough.
        before: Mean score of the current values.
        after: Mean score of the proposal.
        low: Lower end of the interval of the paired difference, at `confidence`.
        high: Upper end.
        pairs: Number of pairs.
        confidence: Coverage of the interval's lower bound, one-sided.
        reason: The decision in words.
    """

    accepted: bool = False
    before: float = 0.0
    after: float = 0.0
    low: float = 0.0
    high: float = 0.0
    pairs: int = 0
    confidence: float = 0.9
    reason: str = ""

    @property
    def gain(self) -> float:
        """Mean paired difference."""
        return self.after - self.before

    def __str__(self) -> str:
        return (
            f"{self.before:.3f} -> {self.after:.3f} on {self.pairs} pairs, "
            f"gain {self.gain:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"
        )


@dataclass(frozen=True)
class StepReport:
    """What `Optimizer.step` did.

    Attributes:
        changes: One entry for each parameter that is trained, in the order of the parameters.
        gate: The gate's verdict; None for a step without a closure, which is installed on trust.
        usage: LM calls, tokens and money of the step, the closure's runs included.
        seconds: Wall time.
        skipped: Kinds of parameters that this optimizer has no rule for; named in the first report only.
    """

    changes: tuple[Change, ...]
    gate: Verdict | None = None
    usage: Usage = Usage()  # noqa: RUF009 - frozen
    seconds: float = 0.0
    skipped: tuple[str, ...] = ()

    @property
    def accepted(self) -> tuple[Change, ...]:
        """The changes that were installed."""
        return tuple(change for change in self.changes if change.status == "accepted")

    @property
    def calls(self) -> int:
        """LM calls made."""
        return self.usage.calls

    def __repr__(self) -> str:
        how = f"gated: {self.gate}, {self.gate.reason}" if self.gate else "not gated"
        lines = [
            f"StepReport: {len(self.accepted)} of {len(self.changes)} parameters changed, {how}; "
            f"{self.usage.calls} calls, {self.usage.tokens} tokens, {self.seconds:.2f} s"
        ]
        lines += [f"  {change}" for change in self.changes]
        if self.skipped:
            lines.append(f"  no rule for parameters of kind {', '.join(self.skipped)}: they keep their values")
        return "\n".join(lines)


def show_value(value: Any, width: int = 60) -> str:
    """A parameter's value in one short line."""
    if isinstance(value, tuple):
        return f"{len(value)} demo{'' if len(value) == 1 else 's'}"
    text = repr(value if not isinstance(value, str) else str(value))
    return text if len(text) <= width else f"{text[: width - 3]}..."
