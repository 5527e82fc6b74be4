"""How a search ends before its optimizer ends it: by its budget, or by a callback."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from promptgrad.errors import BudgetExceeded

STOPPED = "stopped"
"""Kind of the journal event that records that a callback stopped the search."""


@dataclass(slots=True)
class Stop:
    """Why a callback stopped the search, if one did, and whether the journal says so; shared by all phases."""

    reason: str = ""
    told: bool = False

    def check(self, recorded: Mapping[str, Any] | None, decide: Callable[..., None]) -> None:
        """End the search if it was stopped, here or by an earlier process of the run.

        Args:
            recorded: The next event of the journal, where a resumed run has not caught up yet.
            decide: Writes a decision to the journal.

        Raises:
            BudgetExceeded: It was.
        """
        if recorded is not None and recorded["kind"] == STOPPED:
            self.reason = recorded["reason"]
        if self.reason and (self.told or recorded is None or recorded["kind"] == STOPPED):
            if not self.told:
                self.told = True
                decide(STOPPED, reason=self.reason)
            raise BudgetExceeded(f"the search was stopped: {self.reason}", kind="stopped")
