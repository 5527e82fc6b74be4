"""The report of a step: one `Change` for each parameter, the gate's verdict, the cost."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from promptgrad.autograd import Parameter
from promptgrad.lm import Usage
from promptgrad.search import Edit, Hunk, Verdict, show_value

Status = Literal["proposed", "accepted", "rejected", "untouched"]


@dataclass(frozen=True)
class Change:
    """The fate of one proposal for one parameter in one step.

    Attributes:
        path: Path of the parameter in its program; without one its role, else its index in the optimizer. Equal names
            are numbered, as in `Optimizer.state_dict`.
        kind: Kind of the parameter.
        status: "accepted" (installed), "rejected" (a proposal was made and not installed), "untouched" (there was
            none), or "proposed" (waiting for `accept` or `revert`).
        reason: The reason in words.
        old: Value before the step.
        new: Proposed value; None without a proposal.
        edit: Edit distance between the two as a share of the longer one, for texts.
        variant: Number of the proposal that it belongs to, from 0; changes of one variant are tried together.
        hunks: The structured edits that turn `old` into `new`, where the proposer writes hunks.
        verdict: The gate's verdict on its variant; None if it was not measured.
        usage: LM calls, tokens and money spent on writing it.
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

    @classmethod
    def of(cls, edit: Edit, kind: str, reason: str) -> "Change":
        """The change of a rewriter's edit of a parameter; `reason` stands where the edit is not refused."""
        return cls(
            edit.path,
            kind,
            "proposed" if edit.passed else "rejected",
            edit.reason or reason,
            edit.old,
            edit.text,
            edit.ratio,
            edit.variant,
            edit.hunks,
            usage=edit.usage,
        )

    def is_of_same(self, other: "Change") -> bool:
        """True if both changes concern the same parameter."""
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
    """The report of `Optimizer.step`.

    Attributes:
        changes: One change for each trained parameter, in their order: that of the installed proposal, or else of the
            best.
        gate: The gate's verdict on these; None for a step without a closure, which is installed without a test.
        usage: LM calls, tokens and money of the step, the closure's runs included.
        seconds: Wall time.
        skipped: Kinds of parameters that this optimizer has no rule for; named in the first report only.
        proposals: All proposals, by parameter and then by variant, each with its fate, its verdict and the cost of
            writing it.
        gate_usage: The part of `usage` that the closure's runs spent.
        notes: Further remarks, such as that samples failed and no text was blamed.
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
