"""`Assert` and `Suggest`: what must and what should hold inside of a program; counted, retried, and trained on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from promptgrad.autograd import Join, Node, current_tape, joined_sources
from promptgrad.errors import CheckError, InputError
from promptgrad.nn._attempt import conduct, noted_checks
from promptgrad.nn._prediction import Prediction


@dataclass(frozen=True, slots=True)
class Check:
    """One condition that was looked at in a forward.

    Attributes:
        reason: What should hold, in words.
        met: Whether it did.
        must: Whether it was an `Assert`.
        about: What it was about: an output of a call, or None for the call before it.
        node: The recorded call that it was about, if there is one.
    """

    reason: str
    met: bool
    must: bool
    about: Any = None
    node: Node | None = None


class Checks(list[Check]):
    """The conditions that were looked at inside a block, in their order; made by `count_checks`.

    `len(checks)` counts the conditions, `checks.unmet` those that did not hold, and `checks.by_reason()` gives both for
    each reason. Attempts that were given up do not count.
    """

    __slots__ = ("_outer",)

    def __enter__(self) -> "Checks":
        self._outer = noted_checks.get()
        noted_checks.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        noted_checks.set(self._outer)
        if self._outer is not None:
            self._outer.extend(self)

    @property
    def found(self) -> tuple[Check, ...]:
        """The conditions, in the order in which they were looked at."""
        return tuple(self)

    @property
    def unmet(self) -> int:
        """How many did not hold."""
        return sum(not check.met for check in self)

    def by_reason(self) -> dict[str, tuple[int, int]]:
        """For each reason how often it did not hold, and how often it was looked at."""
        counts: dict[str, tuple[int, int]] = {}
        for check in self:
            unmet, looked = counts.get(check.reason, (0, 0))
            counts[check.reason] = (unmet + (not check.met), looked + 1)
        return counts

    def __repr__(self) -> str:
        shown = "; ".join(f"{reason!r}: {unmet} of {of} unmet" for reason, (unmet, of) in self.by_reason().items())
        return f"<Checks {shown or 'none'}>"


def count_checks() -> Checks:
    """Count the conditions of `Assert` and `Suggest` inside the block, as in an evaluation.

    ```
    with nn.count_checks() as checks:
        outputs = model.map(items)
    print(checks)                                # 'one word': 3 of 60 unmet
    ```

    The report of an evaluation counts by itself: `report.checks`.

    Blocks nest; each counts for itself.
    """
    return Checks()


def Assert(condition: object, reason: str, about: Any = None) -> bool:
    """State what must hold at this point of a forward.

    If it does not, a `CheckError` ends the forward. Inside of `nn.Refine` that is the end of the attempt, and the next
    one gets the reason as a hint; in training it is an error row whose critique begins at the call that it is about; in
    an evaluation it is an error row, and counted by `count_checks`.

    Cost: no LM call.
    Source: Singhvi et al. 2023, arXiv 2312.13382; DSPy had it until 2.6. Differs: nothing is repeated but by a module
    that says so (`nn.Refine`).

    Args:
        condition: Whether it holds.
        reason: What should hold, in words for the language model that will read it: "at most 20 words".
        about: The prediction, or the field of one, that it is about; by default the latest call of a language model.

    Returns:
        True.

    Raises:
        CheckError: It does not hold.
    """
    check = _checked(condition, reason, about, must=True)
    if not check.met:
        raise CheckError(f"{check.reason} (this does not hold)", reason=check.reason, node=check.node)
    return True


def Suggest(condition: object, reason: str, about: Any = None) -> bool:
    """State what should hold at this point of a forward, and go on whether it does or not.

    Inside of `nn.Refine` an attempt in which it does not hold is followed by another, which gets the reason as a hint;
    if none is better, the forward goes on with the best. In training `nn.CheckLoss` makes of it a penalty with the
    reason as critique, at the call that it is about; in an evaluation `count_checks` counts it.

    Cost: no LM call.
    Source: as `Assert`.

    Args:
        condition: As for `Assert`.
        reason: As for `Assert`.
        about: As for `Assert`.

    Returns:
        Whether it holds.
    """
    return _checked(condition, reason, about, must=False).met


def _checked(condition: object, reason: str, about: Any, *, must: bool) -> Check:
    if not isinstance(reason, str) or not reason.strip():
        raise InputError(f"a check needs its reason in words, such as 'at most 20 words', not {reason!r}")
    tape = current_tape()
    node = None
    if tape is not None:
        nodes = tuple(tape.nodes) if about is None else tuple(_producers(about))
        node = next((one for one in reversed(nodes) if one.kind == "lm" and one.outputs), None)
    check = Check(reason.strip(), bool(condition), must, about, node)
    here, noted = conduct(), noted_checks.get()
    if noted is not None:
        noted.append(check)
    if tape is not None and (here is None or not here.tentative):
        tape.notes.append(check)
    return check


def _producers(value: Any) -> Iterator[Node]:
    """The recorded calls that a value came from."""
    if isinstance(value, Prediction):
        node, fields = value.__record__()
        if node is not None:
            yield node
        else:
            for part in fields.values():
                yield from _producers(part)
        return
    fn = getattr(value, "grad_fn", None)
    for source in (fn,) if not isinstance(fn, Join) else joined_sources(fn):
        if isinstance(source, Node):
            yield source
