"""What a backward pass did."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from promptgrad.autograd._critique import Critique


@dataclass(frozen=True)
class Skipped:
    """A call that got no critique although it was due one, and why."""

    example_id: str
    path: str
    index: int
    reason: str


@dataclass(frozen=True)
class Remark:
    """What a critic said about something that no parameter holds, such as the program's own code.

    Attributes:
        about: What it is about: "program" for the program's code, else a name that is not a target.
        text: What is wrong with it.
        examples: The ids of the examples in whose forwards it was found.
    """

    about: str
    text: str
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.about}: {self.text}"


def merged(remarks: Iterable[Remark]) -> tuple[Remark, ...]:
    """Each remark once, with the examples of all forwards in which it was made."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for remark in remarks:
        found.setdefault((remark.about, remark.text), {}).update(dict.fromkeys(filter(None, remark.examples)))
    return tuple(Remark(about, text, tuple(examples)) for (about, text), examples in found.items())


@dataclass(frozen=True)
class BackwardReport:
    """What a backward pass did.

    Attributes:
        rows: Rows of the loss: its samples, once for each loss in a sum.
        failed: Rows below the best score.
        errors: Rows without a score, because the program or the metric failed.
        calls: Critic calls.
        skipped: Calls that got no critique although they were due one.
        reached: Names of the parameters whose gradient grew.
        unreached: Names of the wanted parameters that got nothing: those that were read in a failed sample, and those
            that `inputs` names.
        seconds: Wall time.
        critiques: What is wrong with which parameter or input, by row of the loss, in the order of the calls.
        truncated: Calls that `truncate` left out.
        joint: Failed forwards that were judged in one call, by the engine "joint".
        together: Rows whose forward an earlier row judged too, each with the earlier row, which has the critiques.
        remarks: What critics found wrong with something other than a parameter, such as the program's own code.
    """

    rows: int
    failed: int
    errors: int
    calls: int
    skipped: tuple[Skipped, ...]
    reached: tuple[str, ...]
    unreached: tuple[str, ...]
    seconds: float
    critiques: Mapping[int, tuple[Critique, ...]] = field(default_factory=dict, repr=False)
    truncated: int = 0
    joint: int = 0
    together: Mapping[int, int] = field(default_factory=dict, repr=False)
    remarks: tuple[Remark, ...] = ()

    def __repr__(self) -> str:
        head = f"{self.failed} of {self.rows} failed"
        if self.errors:
            head += f", {self.errors} error{'' if self.errors == 1 else 's'}"
        if not self.failed and not self.errors and not self.calls:
            got = f", traces for {', '.join(self.reached)}" if self.reached else ""
            return f"BackwardReport({head}, nothing to do{got})"
        parts = [head, f"{self.calls} critic calls", f"reached: {', '.join(self.reached) or 'nothing'}"]
        if self.unreached:
            parts.append(f"unreached: {', '.join(self.unreached)}")
        if self.joint:
            parts.append(f"{self.joint} judged in joint calls")
        if self.truncated:
            parts.append(f"{self.truncated} earlier calls left out (truncate)")
        if self.remarks:
            parts.append(f"{len(self.remarks)} remarks (first: {self.remarks[0]})")
        if self.skipped:
            first = self.skipped[0]
            parts.append(f"{len(self.skipped)} skipped (first: {first.path}[{first.index}]: {first.reason})")
        return f"BackwardReport({'; '.join(parts)}; {self.seconds:.2f} s)"
