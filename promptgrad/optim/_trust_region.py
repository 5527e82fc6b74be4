"""`TrustRegionEdit`: `max_edit` as the radius of a trust region, moved by the gate's verdicts."""

from promptgrad.autograd import Parameter
from promptgrad.optim._edit_scheduler import EditScheduler
from promptgrad.optim._optimizer import Optimizer
from promptgrad.optim._report import StepReport
from promptgrad.search import TOO_FAR


class TrustRegionEdit(EditScheduler):
    """Widen a group's `max_edit` after a gated step that was accepted, narrow it after one that the gate rejected.

    As in a trust-region method, a step with a proven gain allows a longer one, and a step without shows that the
    critiques cannot be trusted so far from the present text. A step whose proposals were all refused for their size
    alone widens the region too, as nothing could be tried in it. Otherwise only a gate is evidence: a step without a
    closure, or one whose proposals broke other rules in code, leaves the region as it is.

    Cost: no LM call.
    Source: Conn, Gould and Toint 2000, "Trust Region Methods". Differs: the gate's verdict stands for the ratio of
    actual to predicted reduction, as critiques predict no number.

    Args:
        optimizer: The optimizer.
        grow: Factor after an accepted step, at least 1.
        shrink: Factor after a rejected one, in (0, 1].
        min_edit: The smallest radius.
        max_edit: The largest radius.

    Raises:
        TypeError: As `EditScheduler`; or `step` got no report.
        ValueError: A factor or bound is out of range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        grow: float = 1.5,
        shrink: float = 0.5,
        min_edit: float = 0.1,
        max_edit: float = 1.0,
    ) -> None:
        if grow < 1 or not 0 < shrink <= 1:
            raise ValueError(f"grow is at least 1 and shrink in (0, 1], not {grow} and {shrink}")
        if not min_edit <= max_edit <= 1:
            raise ValueError(f"max_edit lies in [min_edit, 1] = [{min_edit}, 1], not at {max_edit}")
        self.grow = grow
        self.shrink = shrink
        self.max_edit = max_edit
        self._factors: list[float] = []
        super().__init__(optimizer, min_edit=min_edit)

    def edit(self, group: int) -> float:
        """The present radius times the factor of the last report."""
        now = float(self.optimizer.param_groups[group]["max_edit"]) if self.last_epoch else self.base_edits[group]
        return min(self.max_edit, now * (self._factors[group] if self._factors else 1.0))

    def step(self, report: StepReport | None = None) -> None:
        """Move the radius of each group by the fate of its proposals in `report`.

        Raises:
            TypeError: `report` is not a report of a step.
        """
        if not isinstance(report, StepReport):
            raise TypeError(
                "a trust region is moved by what a step did: report = optimizer.step(closure), step(report)"
            )
        self._factors = [self._factor(report, group["params"]) for group in self.optimizer.param_groups]
        super().step(report)
        self._factors = []

    def _factor(self, report: StepReport, params: list[Parameter]) -> float:
        own = {id(parameter) for parameter in params}
        names = self.optimizer.names()
        paths = {names[parameter] for parameter in params}
        proposed = [
            change
            for change in report.proposals
            if (change.path in paths and change.parameter is None) or id(change.parameter) in own
        ]
        measured = [change for change in proposed if change.verdict is not None]
        if any(change.status == "accepted" for change in measured):
            return self.grow
        if measured:
            return self.shrink
        refused = [change for change in proposed if change.status == "rejected"]
        return self.grow if refused and all(TOO_FAR in change.reason for change in refused) else 1.0
