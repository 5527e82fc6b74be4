"""`Loss`: the result of a criterion on a batch; its `backward` fills the parameters' gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from promptgrad import aio
from promptgrad.autograd._anomaly import current_detector
from promptgrad.autograd._critic import CriticLike
from promptgrad.autograd._explain import Explanation
from promptgrad.autograd._loss_row import LossRow
from promptgrad.autograd._mode import is_grad_enabled
from promptgrad.autograd._parameter import is_trial

if TYPE_CHECKING:
    from promptgrad.autograd._gradients import Gradients
    from promptgrad.autograd._manner import Manner
    from promptgrad.autograd._parameter import Parameter
    from promptgrad.autograd._report import BackwardReport
    from promptgrad.autograd._tape import Tape


class Loss:
    """The loss of a batch: the mean of `best - score` over its rows without error, by their weights.

    `+` adds losses, `*` scales one: `main + 0.3 * side`. `item()` is the weighted sum of the means, where a loss
    without rows adds nothing; `items` has the rows of all, weighted. `backward` works on the rows of all of them.
    Factors weigh numbers, traces and the gradients of weights. Words have no weight: the feedback of a loss is used if
    its factor is positive. `<` and `>` compare the numbers, with those of other losses and with numbers; `==` does not.

    Attributes:
        report: What the latest `backward` did; None before.

    Args:
        rows: The samples.
        critic: The critic that divides the blame in `backward`, unless that is given another one.
        concurrency: Most critic calls in flight in `backward`; None for no bound.
        as_critic: Converts the `critic` argument of `backward`, or raises a TypeError; by default only critics are
            accepted.
    """

    def __init__(
        self,
        rows: Sequence[LossRow],
        critic: CriticLike | None = None,
        *,
        concurrency: int | None = None,
        as_critic: Callable[[Any], CriticLike] | None = None,
    ) -> None:
        self.critic = critic
        self._as_critic = as_critic or _only_critics
        self.concurrency = concurrency
        self.report: BackwardReport | None = None
        detector = current_detector()
        if detector is not None and not is_grad_enabled() and not is_trial():
            detector.held_out(rows)
        self._terms: tuple[tuple[float, tuple[LossRow, ...], CriticLike | None], ...] = ((1.0, tuple(rows), critic),)

    @classmethod
    def _of(
        cls,
        terms: Iterable[tuple[float, tuple[LossRow, ...], CriticLike | None]],
        critic: CriticLike | None,
        concurrency: int | None = None,
        as_critic: Callable[[Any], CriticLike] | None = None,
    ) -> Loss:
        loss = cls((), critic, concurrency=concurrency, as_critic=as_critic)
        loss._terms = tuple(terms)
        return loss

    @property
    def rows(self) -> tuple[LossRow, ...]:
        """The samples, in order."""
        return tuple(row for _, rows, _ in self._terms for row in rows)

    @property
    def tapes(self) -> tuple[Tape, ...]:
        """The records of the forwards behind the samples, in order and once each, as far as they were recorded."""
        recorded = [row.recorded for row in self.rows]
        return tuple(dict.fromkeys(tape for tape in recorded if tape is not None))

    @property
    def items(self) -> tuple[float, ...]:
        """The loss of each row; nan in error rows."""
        return tuple(scale * row.loss for scale, rows, _ in self._terms for row in rows)

    @property
    def errors(self) -> tuple[LossRow, ...]:
        """The error rows: they count neither as right nor as wrong."""
        return tuple(row for row in self.rows if row.error is not None)

    def item(self) -> float:
        """The loss as a number; nan when no row is without error."""
        total = 0.0
        for scale, rows, _ in [term for term in self._terms if term[1]] or self._terms:
            scored = [row for row in rows if row.error is None]
            whole = math.fsum(row.weight for row in scored)
            total += scale * (math.fsum(row.weight * row.loss for row in scored) / whole if whole else math.nan)
        return total

    async def abackward(
        self,
        critic: CriticLike | Any = None,
        inputs: Iterable[Parameter] | Parameter | None = None,
        *,
        retain_graph: bool = False,
        weights: bool | None = None,
        truncate: int | None = None,
        engine: str | None = None,
        group: int | None = None,
        repeat: int = 1,
        concurrency: int | None = None,
    ) -> BackwardReport:
        """Add each parameter's share of the blame, and each demo parameter's traces, to its `grad`.

        Cost: none for samples with the best score, and none where only one call can be to blame and no critic is named.
        Else one critic call for each group of failed samples (engine "joint"), or for each call of a failed sample that
        is to blame in part and reads a text parameter or passes blame on (engine "local"); those run side by side
        except where one needs another's answer. A forward that several losses of a sum judged is criticised once, with
        the feedback of all whose factor is positive. A critic that raises is noted in the report, and the rest goes on;
        if backward itself is interrupted, no gradient changes.

        Args:
            critic: The critic that divides the blame, or what the criterion converts to one, such as a language model
                or its name; by default the critic of the criterion.
            inputs: Only these parameters get a gradient; by default all that require one.
            retain_graph: Keep what was recorded, so that backward can be called again.
            weights: Whether local models' weights get a gradient; by default those that require one.
            truncate: Go back through the last `truncate` calls of each module only, as truncated backpropagation
                through time does: it bounds the cost of long agent loops. None goes back all the way.
            engine: "joint" shows the critic whole failed forwards side by side, and beside them a few that were right;
                it answers for all parameters, in one LM call for each group of forwards, however long they are. Rules
                and value hooks are not consulted. "local" asks it about one call at a time. By default it is "joint"
                where that takes fewer critic calls, if the critic can, `repeat` is 1, and there are no hooks or rules
                of your own on the way.
            group: Most failed forwards in one joint call; by default the critic's, 8.
            repeat: How many answers about each call the critic is asked for. What most of them say counts, and
                `critique.agreement` is their share: an estimate of how much of a critique is noise. The critic decides
                which answers say the same if it can (`AgreeingCritic`); otherwise their words decide. This costs
                `repeat` times as many critic calls, and one more for each target that is blamed in different words; the
                local engine only.
            concurrency: Most critic calls in flight; by default the limit of `promptgrad.context(concurrency=...)` when
                the loss was made; without one, only the cap of the language model bounds them.

        Raises:
            GraphError: Nothing was recorded, the graph was freed by an earlier backward, or there is no critic.
            TypeError: `critic` is not a critic, or `inputs` holds something other than parameters.
            ValueError: `inputs` is empty, a number is below one, or there is no engine of that name.
            AsyncUsageError: `backward` was called inside a coroutine that promptgrad runs: use
                `await loss.abackward()`.
        """
        from promptgrad.autograd._manner import Manner

        limit = self.concurrency if concurrency is None else concurrency
        how = Manner(retain_graph, weights, truncate, engine or "auto", repeat, limit, group)
        self.report = (await self._pass(critic, inputs, how, accumulate=True)).report
        return self.report

    backward = aio.blocking(abackward, in_place=True)

    async def agradients(
        self,
        inputs: Iterable[Parameter] | Parameter | None = None,
        critic: CriticLike | Any = None,
        *,
        retain_graph: bool = False,
        **options: Any,
    ) -> Gradients:
        """What `backward` would add to each parameter's `grad`, as a value; as `torch.autograd.grad`.

        No `grad` changes, neither of parameters nor of local weights, and neither does `report`: the report of this
        pass is `gradients.report`. So any number of passes may run at once, over losses of the same parameters, and
        with `retain_graph=True` over the same loss. Hooks of values, modules and parameters run as in `backward`;
        post-accumulate hooks do not.

        Cost: as `backward`.

        Args:
            inputs: As in `backward`.
            critic: As in `backward`.
            retain_graph: As in `backward`.
            **options: `truncate`, `engine`, `group` and `repeat`, as in `backward`.

        Returns:
            A mapping from each parameter that was reached to its `Gradient`.

        Raises:
            GraphError: As `backward`; or another pass that frees the graph works on the same forwards.
            TypeError: As `backward`; or there is no such option.
            ValueError: As `backward`.
            AsyncUsageError: `gradients` was called inside a coroutine that promptgrad runs: use
                `await loss.agradients()`.
        """
        from promptgrad.autograd._manner import Manner

        strange = sorted(options.keys() - {"truncate", "engine", "group", "repeat"})
        if strange:
            raise TypeError(f"gradients takes truncate, engine, group and repeat as backward does, not {strange[0]!r}")
        options["engine"] = options.get("engine") or "auto"
        how = Manner(retain_graph, weights=False, concurrency=self.concurrency, **options)
        return await self._pass(critic, inputs, how, accumulate=False)

    gradients = aio.blocking(agradients, in_place=True)

    async def _pass(
        self,
        critic: CriticLike | Any,
        inputs: Iterable[Parameter] | Parameter | None,
        manner: Manner,
        *,
        accumulate: bool,
    ) -> Gradients:
        """One backward pass over this loss."""
        from promptgrad.autograd._backward import Backward

        critic = None if critic is None else self._as_critic(critic)
        work = Backward(self._terms, critic, inputs, manner, accumulate=accumulate)
        return await (aio.on_program(work.run) if aio.is_driven() and work.suspends else work.run())

    def explain(self) -> Explanation:
        """Describe what went wrong in each failed sample and, after `backward()`, what is blamed for it.

        Cost: none. A console or a notebook shows the result; `print` it elsewhere.
        """
        return Explanation(repr(self), self.rows, self.report)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __float__(self) -> float:
        return self.item()

    def __eq__(self, other: object) -> bool:
        return self.item() == float(other) if isinstance(other, (Loss, int, float)) else NotImplemented

    __hash__ = object.__hash__  # as a tensor of torch: losses of one value are two keys

    def __lt__(self, other: Loss | float) -> bool:
        return self.item() < float(other)

    def __le__(self, other: Loss | float) -> bool:
        return self.item() <= float(other)

    def __gt__(self, other: Loss | float) -> bool:
        return self.item() > float(other)

    def __ge__(self, other: Loss | float) -> bool:
        return self.item() >= float(other)

    def __len__(self) -> int:
        return sum(len(rows) for _, rows, _ in self._terms)

    def __bool__(self) -> bool:
        return True

    def __add__(self, other: Loss | int) -> Loss:
        if isinstance(other, Loss):
            bound = self.concurrency or other.concurrency
            reads = other._as_critic if self._as_critic is _only_critics else self._as_critic
            return Loss._of((*self._terms, *other._terms), self.critic or other.critic, bound, reads)
        return self if other == 0 else NotImplemented  # so that sum(losses) works

    __radd__ = __add__

    def __mul__(self, factor: float) -> Loss:
        if not isinstance(factor, (int, float)):
            return NotImplemented
        terms = ((scale * factor, rows, critic) for scale, rows, critic in self._terms)
        return Loss._of(terms, self.critic, self.concurrency, self._as_critic)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Loss:
        return self * (1 / divisor)

    def __repr__(self) -> str:
        targets = sum(row.target is not None for row in self.rows)
        judged, errors = len(self) - targets, len(self.errors)
        failed = sum(row.failed and row.error is None for row in self.rows)
        parts = [f"{targets} targets"] if targets else []
        if (judged and judged > errors) or not targets:
            parts.append(f"{failed} of {judged} failed")
        return f"Loss({self.item():.4g}, {', '.join(parts)}, {errors} error{'' if errors == 1 else 's'})"


def _only_critics(critic: Any) -> CriticLike:
    if not isinstance(critic, CriticLike):
        raise TypeError(f"the critic of backward needs a method `critique`, and {type(critic).__name__} has none")
    return critic
