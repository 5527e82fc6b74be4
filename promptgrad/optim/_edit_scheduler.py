"""Schedulers of `max_edit`, the bound on how far a step may go; they correspond to PyTorch's of the learning rate."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from promptgrad.errors import StateDictError
from promptgrad.optim._optimizer import Optimizer
from promptgrad.optim._report import StepReport
from promptgrad.optim._search import plain_setting
from promptgrad.search import is_number

FLOOR = 0.01
"""Default for the smallest `max_edit` that a scheduler sets: below it, no text of a usual length could change."""


class EditScheduler:
    """Base of the schedulers that move `max_edit` of an optimizer's groups.

    Call `step(report)` after each `optimizer.step()`. Each step checks the bound in code, with the group's current
    value, and no scheduler leaves [`min_edit`, 1]. In `Trainer.fit` the optimizer itself resets and calls the
    schedulers that were made for it.

    A scheduler of your own overrides `edit(group)`, or `step` if it looks at the report.

    Cost: no LM call.

    Args:
        optimizer: An optimizer whose groups have `max_edit`, such as `TGD`.
        min_edit: The smallest value, in (0, 1].

    Attributes:
        base_edits: The `max_edit` that each group started with.
        last_epoch: Number of steps so far.

    Raises:
        TypeError: The optimizer has no `max_edit` to move.
        ValueError: `min_edit` is not in (0, 1], or the optimizer has a scheduler already: each sets `max_edit` by its
            own rule, so that only the last of two would have an effect.
    """

    def __init__(self, optimizer: Optimizer, *, min_edit: float = FLOOR) -> None:
        groups = getattr(optimizer, "param_groups", None)
        if not isinstance(optimizer, Optimizer) or groups is None or any("max_edit" not in group for group in groups):
            raise TypeError(
                f"{type(self).__name__} moves max_edit of an optimizer such as optim.TGD(model.parameters()), and "
                f"{type(optimizer).__name__} has none"
            )
        if not 0 < min_edit <= 1:
            raise ValueError(f"min_edit is a share of the text in (0, 1], not {min_edit}")
        if optimizer._schedulers:
            raise ValueError(
                f"this optimizer has a scheduler already, {optimizer._schedulers[0]!r}, and both would set max_edit: "
                "make one EditScheduler whose edit(group) says what both should, or a new optimizer"
            )
        self.optimizer = optimizer
        self.min_edit = min_edit
        self.base_edits = [float(group["max_edit"]) for group in optimizer.param_groups]
        self.last_epoch = 0
        self._set()
        optimizer._schedulers.append(self)  # last: one that fails is not attached

    def edit(self, group: int) -> float:
        """The new `max_edit` of a group, given by its index."""
        raise NotImplementedError(f"{type(self).__name__} has no rule: override edit(group)")

    def step(self, report: StepReport | None = None) -> None:
        """Advance by one step and set `max_edit` of each group.

        Args:
            report: The report of the optimizer's step; only some schedulers use it.
        """
        self.last_epoch += 1
        self._set()

    def get_last_edit(self) -> list[float]:
        """The current `max_edit` of each group, as `get_last_lr` in PyTorch."""
        return [float(group["max_edit"]) for group in self.optimizer.param_groups]

    def reset(self) -> None:
        """Return to the start."""
        self.last_epoch = 0
        self._set()

    def state_dict(self) -> dict[str, Any]:
        """Return the scheduler's state in JSON types."""
        return {"last_epoch": self.last_epoch, "base_edits": self._bases(), "edits": self.get_last_edit()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state that `state_dict` returned, and set the groups to it.

        Raises:
            StateDictError: The state is of another number of groups, or a value is out of range; nothing is changed.
        """
        count = len(self.optimizer.param_groups)
        if not isinstance(state, Mapping) or not {"last_epoch", "base_edits", "edits"} <= set(state):
            raise StateDictError(f"the state of a scheduler is what its state_dict() returned, not {state!r:.80}")
        for name in ("base_edits", "edits"):
            values = state[name]
            if not isinstance(values, (list, tuple)):
                raise StateDictError(f"{name} is a list with a max_edit for each group, not {values!r:.80}")
            if len(values) != count:
                raise StateDictError(
                    f"the state is of a scheduler of {len(values)} groups, and this optimizer has {count} ({name})"
                )
        if not is_number(state["last_epoch"], whole=True) or state["last_epoch"] < 0:
            raise StateDictError(f"last_epoch is a number of steps, not {state['last_epoch']!r}")
        for value in (*state["base_edits"], *state["edits"]):
            if not is_number(value) or not 0 < value <= 1:
                raise StateDictError(f"max_edit is a share of the text in (0, 1], not {value!r}")
        self.last_epoch = int(state["last_epoch"])
        self.base_edits = [float(value) for value in state["base_edits"]]
        for group, value in zip(self.optimizer.param_groups, state["edits"], strict=True):
            group["max_edit"] = float(value)

    def config(self) -> dict[str, Any]:
        """Return the settings in JSON types, by which a resumed run recognises its scheduler."""
        hidden = {"optimizer", "last_epoch"}
        own = {
            name: plain_setting(value) for name, value in vars(self).items() if name not in hidden and name[0] != "_"
        }
        return {"scheduler": type(self).__name__, **own}

    def _set(self) -> None:
        groups = self.optimizer.param_groups
        self.base_edits = self._bases()
        edits = [self._bounded(self.edit(place)) for place in range(len(groups))]
        for group, value in zip(groups, edits, strict=True):
            group["max_edit"] = value

    def _bases(self) -> list[float]:
        """The first value of each group, or the present value of a group that was added later."""
        added = self.optimizer.param_groups[len(self.base_edits) :]
        return [*self.base_edits, *(float(group["max_edit"]) for group in added)]

    def _bounded(self, value: float) -> float:
        return min(1.0, max(self.min_edit, value))

    def __repr__(self) -> str:
        now = ", ".join(f"{value:g}" for value in self.get_last_edit())
        return f"{type(self).__name__}(max_edit {now} after {self.last_epoch} steps)"


class LambdaEdit(EditScheduler):
    """Each group's first `max_edit` times a function of the number of steps, as `LambdaLR`.

    Args:
        optimizer: The optimizer.
        edit_lambda: The function, or one for each group.
        min_edit: The smallest value.

    Raises:
        TypeError: As `EditScheduler`; or `edit_lambda` holds something other than functions.
        ValueError: The numbers of functions and groups differ.

    >>> from promptgrad import Parameter, optim
    >>> opt = optim.TGD([Parameter("Answer.")], max_edit=0.8)
    >>> scheduler = LambdaEdit(opt, lambda step: 0.5**step)
    >>> scheduler.step()
    >>> scheduler.get_last_edit()
    [0.4]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        edit_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        *,
        min_edit: float = FLOOR,
    ) -> None:
        self.edit_lambda = edit_lambda
        groups = len(getattr(optimizer, "param_groups", ()))
        each = [edit_lambda] if callable(edit_lambda) else edit_lambda
        if not isinstance(each, Sequence) or not all(map(callable, each)):
            raise TypeError(f"edit_lambda is a function of the number of steps, or one for each group, not {each!r}")
        if not callable(edit_lambda) and len(edit_lambda) != groups:
            raise ValueError(f"one function, or one for each of the {groups} groups, not {len(edit_lambda)}")
        super().__init__(optimizer, min_edit=min_edit)

    def edit(self, group: int) -> float:
        """The first value times the function of the steps taken.

        Raises:
            ValueError: The optimizer has more groups than there are functions.
        """
        if callable(self.edit_lambda):
            rule = self.edit_lambda
        elif group < len(self.edit_lambda):
            rule = self.edit_lambda[group]
        else:
            raise ValueError(
                f"group {group} was added to the optimizer, and this scheduler has {len(self.edit_lambda)} functions: "
                "make the scheduler after all groups, or give it one function for all"
            )
        return self.base_edits[group] * float(rule(self.last_epoch))


class StepEdit(EditScheduler):
    """Each group's `max_edit` times `gamma`, every `step_size` steps, as `StepLR`: bold steps first, touches later.

    Args:
        optimizer: The optimizer.
        step_size: Steps in a period.
        gamma: The factor. The default is 0.5, not 0.1, because a tenth of a text is little already.
        min_edit: The smallest value.

    Raises:
        TypeError: As `EditScheduler`.
        ValueError: `step_size` is below one, or `gamma` not positive.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.5, *, min_edit: float = FLOOR) -> None:
        if step_size < 1:
            raise ValueError(f"step_size is at least 1, not {step_size}")
        if gamma <= 0:
            raise ValueError(f"gamma is positive, not {gamma}")
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, min_edit=min_edit)

    def edit(self, group: int) -> float:
        """The first value times `gamma` to the number of periods that have passed."""
        return self.base_edits[group] * self.gamma ** (self.last_epoch // self.step_size)


class CosineAnnealingEdit(EditScheduler):
    """Each group's `max_edit` along half a cosine, from its first value to `min_edit` after `T_max` steps.

    As `CosineAnnealingLR`, it rises again after that.

    Source: Loshchilov and Hutter 2017, "SGDR", arXiv 1608.03983, without its restarts.

    Args:
        optimizer: The optimizer.
        T_max: Steps of half a period.
        min_edit: The smallest value, which `CosineAnnealingLR` calls `eta_min`.

    Raises:
        TypeError: As `EditScheduler`.
        ValueError: `T_max` is below one.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, *, min_edit: float = 0.05) -> None:
        if T_max < 1:
            raise ValueError(f"T_max is at least 1, not {T_max}")
        self.T_max = T_max
        super().__init__(optimizer, min_edit=min_edit)

    def edit(self, group: int) -> float:
        """The value on the cosine at the present step."""
        share = (1 + math.cos(math.pi * self.last_epoch / self.T_max)) / 2
        return self.min_edit + (self.base_edits[group] - self.min_edit) * share
