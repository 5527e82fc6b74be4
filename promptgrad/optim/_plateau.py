"""`ReduceEditOnPlateau`: smaller steps when steps no longer help."""

from typing import Any

from promptgrad.errors import StateDictError
from promptgrad.optim._edit_scheduler import FLOOR, EditScheduler
from promptgrad.optim._optimizer import Optimizer
from promptgrad.optim._report import StepReport


class ReduceEditOnPlateau(EditScheduler):
    """Multiply `max_edit` of all groups by `factor` after `patience` steps without a gain, as `ReduceLROnPlateau`.

    `step` takes what the user of PyTorch gives it, a loss, which is better if it is smaller; or the report of the step,
    which was a gain if it installed something.

    Cost: no LM call.
    Source: `torch.optim.lr_scheduler.ReduceLROnPlateau`. Differs: half instead of a tenth, as `StepEdit`; an absolute
    `threshold`, as losses here lie between 0 and 1; and no cooldown.

    Args:
        optimizer: The optimizer.
        factor: The factor, in (0, 1).
        patience: How many steps in a row may bring nothing.
        threshold: By how much a loss must be smaller to count.
        min_edit: The smallest value.

    Raises:
        TypeError: As `EditScheduler`; or `step` got neither a loss nor a report.
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 0.5,
        patience: int = 3,
        *,
        threshold: float = 1e-4,
        min_edit: float = FLOOR,
    ) -> None:
        if not 0 < factor < 1 or patience < 0 or threshold < 0:
            raise ValueError(
                "factor lies in (0, 1), patience and threshold are at least 0, not "
                f"{factor}, {patience} and {threshold}"
            )
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self._best = float("inf")
        self._bad = 0
        self._cuts = 0
        super().__init__(optimizer, min_edit=min_edit)

    def edit(self, group: int) -> float:
        """The first value times `factor` to the number of plateaus so far."""
        return self.base_edits[group] * self.factor**self._cuts

    def step(self, report: "StepReport | Any | None" = None) -> None:
        """Count a step: `scheduler.step(loss)`, or `scheduler.step(optimizer.step())`.

        Raises:
            TypeError: `report` is neither a number nor a report.
        """
        if isinstance(report, StepReport):
            gained = bool(report.accepted)
        else:
            try:
                loss = float(report)  # type: ignore[arg-type]
            except (TypeError, ValueError):
                raise TypeError(
                    f"a plateau is seen in losses or reports of steps: step(loss) or step(report), not {report!r:.80}"
                ) from None
            gained = loss < self._best - self.threshold
            self._best = min(self._best, loss)
        self._bad = 0 if gained else self._bad + 1
        if self._bad > self.patience:
            self._bad = 0
            self._cuts += 1
        super().step()

    def reset(self) -> None:
        """Return to the start."""
        self._best, self._bad, self._cuts = float("inf"), 0, 0
        super().reset()

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's state in JSON types."""
        best = None if self._best == float("inf") else self._best
        return {**super().state_dict(), "best": best, "bad": self._bad, "cuts": self._cuts}

    def load_state_dict(self, state: Any) -> None:
        """Load a state that `state_dict` returned.

        Raises:
            StateDictError: As `EditScheduler`, or it is the state of another scheduler; nothing is changed.
        """
        try:
            best, bad, cuts = state["best"], int(state["bad"]), int(state["cuts"])
            found = float("inf") if best is None else float(best)
        except (KeyError, TypeError, ValueError):
            raise StateDictError("this is no state of a ReduceEditOnPlateau: it has no best, bad and cuts") from None
        super().load_state_dict(state)
        self._best, self._bad, self._cuts = found, bad, cuts
