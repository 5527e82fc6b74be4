"""`CheckLoss`, the criterion about the conditions that a program states with `Assert` and `Suggest`."""

from typing import Any

from promptgrad.autograd import CriticLike, Loss, LossRow
from promptgrad.lm import LM, current
from promptgrad.nn._check import Check
from promptgrad.nn._critic import Critic
from promptgrad.nn._metric_loss import as_critic, pair
from promptgrad.nn._module import Module


class CheckLoss(Module, in_place=True):
    """The penalty for what a program says should hold, with `nn.Suggest` and `nn.Assert`, and does not.

    ```
    outputs = model.map(batch)
    loss = criterion(outputs, batch) + 0.3 * nn.CheckLoss()(outputs, batch)
    loss.backward()
    ```

    Each condition is a row of its own, whose critique is its reason and begins at the call that it is about. As with
    `AuxLoss`, only recorded forwards are judged, a forward without conditions gives no row, and a loss without rows
    adds nothing to a sum.

    Shape: one row for each condition, met or not; `item()` is the share of those that are not.
    Cost: none here; `backward()` as that of `MetricLoss`, in the same pass if the losses are added.

    Args:
        critic: The critic that divides blame in `backward()`, as in `MetricLoss`.
    """

    def __init__(self, critic: "Critic | CriticLike | LM | str | None" = None) -> None:
        super().__init__()
        self.critic = as_critic(critic)

    async def forward(self, outputs: Any, examples: Any = None) -> Loss:
        """The loss of the conditions in the forwards of these outputs.

        Args:
            outputs: A `Batch`, a list of outputs, or one output.
            examples: The examples in the same order, or the one example. A `Batch` has its own.
        """
        rows = [
            LossRow(
                row.example,
                row.output,
                float(check.met),
                feedback="" if check.met else f"this does not hold: {check.reason}",
                tape=row.tape,
                replicate=row.replicate,
                node=check.node,
            )
            for row in pair(outputs, examples)
            for check in (() if row.tape is None else row.tape.notes)
            if isinstance(check, Check)
        ]
        return Loss(rows, critic=self.critic, concurrency=current().concurrency, as_critic=as_critic)
