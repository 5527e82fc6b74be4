"""The run as it stands at one place of the program: one record in one context variable."""

from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from promptgrad.run._active import ActiveRun
    from promptgrad.run._budget import Budget


@dataclass(frozen=True, slots=True)
class Here:
    """The active run as seen from one place of the program.

    Attributes:
        run: The run's journal, ledger and scope; None outside of a run.
        phase: Name of the phase to which calls are booked.
        keep: What the phase must leave of the budget.
        holding: Whether the code here is part of a call in flight, whose reservation is held.
        bars: The progress bars that are drawn, below which another one appears.
    """

    run: "ActiveRun | None" = None
    phase: str = ""
    keep: "Budget | None" = None
    holding: bool = False
    bars: "Bars | None" = None
    _held: "Here | None" = field(default=None, init=False, repr=False, compare=False)

    def held(self) -> "Here":
        """The same for the code of a call in flight; made once, as each call needs it."""
        if self.holding:
            return self
        if self._held is None:
            object.__setattr__(self, "_held", replace(self, holding=True))
        return self._held or self


here: ContextVar[Here] = ContextVar("promptgrad.run", default=Here())  # noqa: B039 - it is immutable
