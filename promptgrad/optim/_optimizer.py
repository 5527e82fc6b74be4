"""`Optimizer`: an optimizer that can take a single step from gradients, in a loop of your own."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from promptgrad import aio
from promptgrad.autograd import Loss, Parameter, candidate, current_detector, no_grad
from promptgrad.errors import ConstraintError
from promptgrad.lm import Usage, UsageTracker, track_usage
from promptgrad.optim._closure import Closure, Runner, check_step, without_backward
from promptgrad.optim._gate import best_of, known_scores, most_provable
from promptgrad.optim._groups import Params
from promptgrad.optim._proposals import Changes, Proposals, fate_of
from promptgrad.optim._report import Change, StepReport
from promptgrad.optim._search import Search
from promptgrad.search import broken, is_number

REVERTED = "reverted"
"""Reason of a change that was installed and reverted."""

DROPPED = "dropped before it was tried"
"""Reason of a pending proposal that was dropped."""


class Optimizer(Search):
    """Improves the parameters of a program from their gradients, step by step, or by search in the trainer.

    There are two ways to use one. In a loop of your own: `zero_grad()`, `loss.backward()`, `step()`. Or managed:
    `promptgrad.Trainer(model, optimizer, metric=...).fit(trainset)`, where the optimizer may try candidates on data,
    within a budget. An optimizer that only searches has no `step`: it is a `Search`.

    `step()` alone installs its proposal without a test, as its report says. `step(closure)` is gated: the closure runs
    a batch and returns its loss, once with the current values and once with each proposal (laid over the parameters
    meanwhile; nothing is mutated), and only a proposal whose paired gain is beyond doubt is kept. Let the closure run
    other examples than those that `backward` was called on: rows that are chosen for having failed do better the next
    time whatever the proposal, where the language model samples. Where all proposals are solutions, the rows are the
    checks themselves, not a sample, and the higher score is kept.

    An optimizer of your own overrides `_propose`; one that makes several proposals a step overrides `_propose_variants`
    and `_variants` instead. One step makes these calls in this order, in `step` as in `astep`:

    1. The closure under the current values, if there is one and no `loss` is given, where a parameter has a gradient,
       or none has one yet: the closure may call `backward`.
    2. `_least_price()`, if a parameter has a gradient and the loss is known: with it, the number of proposals that the
       gate could accept on these rows, at most `_variants()`. With none the step ends here.
    3. `_propose_variants` of that number, or of 1 without a closure; the base makes one, by `_propose`. A proposal that
       breaks a constraint of its parameter is rejected.
    4. The closure under the current values, if any proposal is left and its loss is not known.
    5. `_price(changes)` of each variant; those that cannot pass on these rows are rejected untried.
    6. The closure under each variant that is left.
    7. `_remember(parameter, change)` for each change that is not kept, with the verdict in it.
    8. The best variant that passed is installed, and `_remember` called for each of its changes.
    9. `_notes(loss)`, if nothing was proposed.

    `propose` is 3 alone and `accept` is 8; `revert` undoes 8 or drops the pending proposals, with a `_remember` for
    each.

    Args:
        params: Parameters, `(name, parameter)` pairs, or groups of them with options of their own.
        defaults: Options of the groups that do not set them.
        gate: Confidence that a gated step is an improvement, in [0.5, 1).

    Raises:
        ValueError: There is no parameter, one is given twice, an option is unknown, or `gate` is out of range.
        TypeError: Something other than a parameter was given.
    """

    def __init__(self, params: Params, defaults: Mapping[str, Any] | None = None, *, gate: float = 0.9) -> None:
        if not is_number(gate) or not 0.5 <= gate < 1:
            raise ValueError(f"gate is the confidence that a step is an improvement, in [0.5, 1), not {gate!r}")
        self.gate = gate
        self._pending = Proposals()
        self._undo: list[tuple[Parameter, Any, Any, Change]] = []
        self._closure_learns: bool | None = None
        self._skips_named = False
        super().__init__(params, defaults)

    # -- one step -----------------------------------------------------------------------------------------------

    def step(self, closure: Closure | None = None, *, loss: Loss | None = None) -> StepReport:
        """Propose new values from the gradients and install them, gated if a closure is given.

        Where a parameter has a gradient, the closure runs first, under the current values; and where none has one, as
        it may call `backward` itself, as in PyTorch. Where its rows are so few, or so many of them right, that no
        proposal could be better beyond doubt, none is paid for, and the report says why and how many rows it takes.
        Where several could not, but fewer could, so many are made. A step that raises or is interrupted installs
        nothing and leaves nothing pending.

        Cost: the proposals; and with a closure one run of it for the current values, where `loss` is not given, and one
        for each different proposal that passed the checks in code.

        Args:
            closure: Runs a batch, the same each time, and returns its loss, preferably of examples that `backward` has
                not seen. The trial of a proposal is not recorded; a closure that calls `backward`, as in PyTorch, does
                so only `if promptgrad.is_grad_enabled()`.
            loss: The closure's loss under the current values, if it is known already; it saves one run of the closure.

        Raises:
            TypeError: The closure is not a function, is a coroutine function, or does not return a loss.
            ValueError: The closure runs another batch each time.
        """
        check_step(closure, loss, plain=True)
        return aio.drive(self._step(None if closure is None else Runner(closure, in_place=True), loss))

    async def astep(self, closure: Closure | None = None, *, loss: Loss | None = None) -> StepReport:
        """Do as `step` does, in a coroutine.

        The closure may be a coroutine function, which is run for all proposals side by side; a plain function is run
        for one after the other, in a thread.
        """
        check_step(closure, loss, plain=False)
        return await self._step(None if closure is None else Runner(closure, in_place=False), loss)

    async def _step(self, closure: Runner | None, loss: Loss | None) -> StepReport:
        begun = time.monotonic()
        gate = Usage()
        with track_usage() as usage, self._nothing_pending_on_failure():
            if closure is not None and loss is None and self._is_closure_first():
                with track_usage() as part, self._watching():
                    loss = await closure()
                gate += part.total
            count, why = (1, "") if closure is None else self._provable(loss)
            if count:
                await self._make(count)
            else:
                self._pending = self._unasked(why)
            trials: dict[int, Loss] = {}
            if closure is not None and self._pending.values():
                with track_usage() as part:
                    if loss is None:
                        with self._watching():
                            loss = await closure()
                    tried = self._pending.winnable(loss, confidence=self.gate, seed=self._steps)
                    losses = await aio.gather(
                        [partial(self._try, closure, values) for values in tried.values()], limit=closure.limit
                    )
                gate += part.total
                trials = dict(zip(tried, losses, strict=True))
            return self._conclude(loss, trials, usage, gate, begun)

    def propose(self, proposals: int = 1) -> tuple[Change, ...]:
        """Make proposals and keep them pending: nothing is installed before `accept`.

        Args:
            proposals: Number of proposals, for an optimizer that can make several; `Change.variant` is the number of
                each.

        Raises:
            ValueError: `proposals` is below 1.
        """
        if proposals < 1:
            raise ValueError(f"proposals is at least 1, not {proposals}")
        aio.drive(self._make(proposals))
        return tuple(change for _, change in self._pending)

    def accept(self, variant: int = 0) -> tuple[Change, ...]:
        """Install one of the pending proposals, and drop the others.

        Raises:
            RuntimeError: Nothing is pending; or a parameter has got another value since. Nothing is changed.
            IndexError: There is no such variant.
        """
        if not len(self._pending):
            raise RuntimeError("nothing is pending: call propose() before accept(); step() installs by itself")
        if not 0 <= variant < len(self._pending):
            raise IndexError(f"there is no variant {variant}: {len(self._pending)} were proposed, counted from 0")
        return self._install(variant)

    def _install(self, variant: int) -> tuple[Change, ...]:
        for parameter, change in self._pending.open(variant):
            if parameter._data != change.old and parameter.data != change.old:
                raise RuntimeError(
                    f"{change.path or 'a parameter'} was given another value since the proposal was made, and nothing "
                    "was installed: call propose() again, or revert() to drop what is pending"
                )
        self._undo = []
        done = []
        for parameter, change in self._pending.variants[variant]:
            if change.status == "proposed":
                old = parameter._data  # the stored value, without any candidate over it
                try:
                    parameter.data = change.new
                except ConstraintError as error:
                    change = change.to("rejected", error.reason)
                else:
                    change = change.to("accepted")
                    self._undo.append((parameter, old, parameter._data, change))
            done.append(change)
            self._remember(parameter, change)
        self._pending = Proposals()
        return tuple(done)

    def revert(self) -> None:
        """Drop the pending proposals; or, if there are none, undo what the last step or `accept` installed.

        If that step installed nothing, nothing is undone; earlier steps are never undone.

        Raises:
            RuntimeError: A parameter has got another value since. Nothing is changed.
        """
        if len(self._pending):
            for parameter, change in self._pending:
                self._remember(parameter, change.to("rejected", DROPPED) if change.status == "proposed" else change)
            self._pending = Proposals()
            return
        for parameter, _, new, change in self._undo:
            if parameter._data != new:
                raise RuntimeError(
                    f"{change.path} was given another value after the step that revert() would take back, and that "
                    "value would be lost: set parameter.data yourself"
                )
        for parameter, old, _, change in self._undo:
            parameter.data = old
            self._remember(parameter, change.to("rejected", REVERTED))
        self._undo = []

    async def _propose(self) -> list[tuple[Parameter, Change]]:
        """Make one change for every trained parameter: the rule of this optimizer."""
        raise NotImplementedError(
            f"{type(self).__name__} has no rule for a step: override _propose, or derive from Search"
        )

    async def _propose_variants(self, count: int) -> list[list[tuple[Parameter, Change]]]:
        """Make up to `count` proposals, each a change for every trained parameter. The base makes one."""
        return [await self._propose()]

    def _variants(self) -> int:
        """Number of proposals of a gated step."""
        return 1

    def _remember(self, parameter: Parameter, change: Change, *, alone: bool = True) -> None:
        """Learn from the fate of a proposal, which was tried alone or with others. The base remembers nothing."""

    def _price(self, changes: Changes) -> float:
        """Return the score that the growth of the texts costs; zero in the base."""
        return 0.0

    def _least_price(self) -> float:
        """Return the least that a proposal may cost: below zero where a shorter text may win with a lower score."""
        return 0.0

    def _notes(self, loss: Loss | None) -> list[str]:
        """Further remarks for the report; none in the base."""
        return []

    async def _make(self, count: int) -> None:
        self._pending = Proposals()
        names = self.names(blamed=True)

        def named(parameter: Parameter, change: Change, variant: int) -> Change:
            path = names.get(parameter, change.path)
            return replace(self._admissible(parameter, change), variant=variant, path=path, parameter=parameter)

        made = await self._propose_variants(count)
        self._pending = Proposals(
            (
                [(parameter, named(parameter, change, variant)) for parameter, change in changes]
                for variant, changes in enumerate(made)
            ),
            self._price,
        )

    def _provable(self, loss: Loss | None) -> tuple[int, str]:
        """How many proposals the gate could accept one of, given the closure's loss; and why none."""
        most = self._variants()
        if loss is None or not self._is_blamed():
            return most, ""
        return most_provable(
            known_scores(loss),
            most,
            confidence=self.gate,
            seed=self._steps,
            best=best_of(loss),
            exact=any(parameter.kind.exact for parameter, _ in self.trained() if parameter.grad),
            price=self._least_price(),
        )

    def _unasked(self, why: str) -> Proposals:
        """No proposal, for a reason that lies in the rows."""
        names = self.names(blamed=True)
        pairs = [(p, Change(names[p], p.kind, "untouched", why, parameter=p)) for p, _ in self.trained()]
        return Proposals([pairs])

    def _is_blamed(self) -> bool:
        return any(parameter.grad for parameter, _ in self.trained())

    def _is_closure_first(self) -> bool:
        """True if the closure runs before the proposals: there will be some, or it calls `backward` or may do so."""
        if self._is_blamed():
            return True
        if self._closure_learns is None:
            trained = self.trained()
            return bool(trained) and all(parameter.grad is None for parameter, _ in trained)
        return self._closure_learns

    def _is_backward_seen(self) -> bool:
        """True if the gradients show that `backward` was called since `zero_grad`."""
        return bool(self._closure_learns) or any(parameter.grad is not None for parameter in self.parameters())

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Record whether a closure fills the gradients, as in PyTorch; where it only clears them, they are restored."""
        before = [(parameter, parameter.grad) for parameter in self.parameters()]
        yield
        if any(parameter.grad is not None and parameter.grad is not old for parameter, old in before):
            self._closure_learns = True
        elif any(old is not None for _, old in before):
            self._closure_learns = False
            for parameter, old in before:
                parameter.grad = old

    @contextmanager
    def _trial(self, values: Mapping[Parameter, Any]) -> Iterator[None]:
        """Measure these values without a record, and restore the gradients afterwards."""
        before = [(parameter, parameter.grad) for parameter in self.parameters()]
        try:
            with candidate(values), no_grad(), without_backward():
                yield
        finally:
            for parameter, old in before:
                parameter.grad = old

    async def _try(self, closure: Runner, values: Mapping[Parameter, Any]) -> Loss:
        with self._trial(values):
            return await closure()

    @contextmanager
    def _nothing_pending_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._pending = Proposals()
            raise

    def _admissible(self, parameter: Parameter, change: Change) -> Change:
        if change.status != "proposed":
            return change
        reason = broken(parameter.constraints, change.new)
        return change if reason is None else change.to("rejected", reason)

    def _conclude(
        self, loss: Loss | None, trials: Mapping[int, Loss], usage: UsageTracker, gate: Usage, begun: float
    ) -> StepReport:
        """Install the best proposal that passed, remember the fate of the others, and report."""
        self._undo = []
        pending = self._pending
        verdicts = {} if loss is None else pending.judge(loss, trials, confidence=self.gate, seed=self._steps)
        best = pending.best(verdicts)
        winner = best if not verdicts or verdicts[best].accepted else None
        places = {parameter: place for place, (parameter, _) in enumerate(pending.variants[0] if len(pending) else ())}
        fates: list[tuple[int, Change]] = []
        for variant, changes in enumerate(pending.variants):
            if variant == winner:
                continue
            alone = len(pending.open(variant)) == 1
            for parameter, change in changes:
                change = fate_of(change, verdicts, best)
                self._remember(parameter, change, alone=alone)
                fates.append((places[parameter], change))
        installed: tuple[Change, ...] = ()
        if winner is not None and len(pending):
            pending.note(winner, verdicts.get(winner))
            installed = self._install(winner)
            fates += enumerate(installed)
        self._pending = Proposals()
        fates.sort(key=lambda fate: (fate[0], fate[1].variant))
        if winner is None:
            installed = tuple(change for _, change in fates if change.variant == best)
        proposals = tuple(change for _, change in fates if change.status != "untouched")
        notes = tuple(self._notes(loss)) if not proposals else ()
        self._steps += 1
        detector = current_detector()
        if detector is not None:
            detector.after_step((c.path, c.status == "accepted" and c.new != c.old, c.reason) for c in installed)
        skipped = () if self._skips_named else self.skips
        self._skips_named = True
        seconds = time.monotonic() - begun
        return StepReport(installed, verdicts.get(best), usage.total, seconds, skipped, proposals, gate, notes)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the state as `Search` does; pending proposals are dropped, and nothing can be reverted."""
        super().load_state_dict(state)
        self._pending, self._undo = Proposals(), []
