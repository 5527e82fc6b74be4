"""The base of all optimizers: parameters in groups, `zero_grad`, `step`, `propose`/`accept`/`revert`, `fit`."""

import json
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from promptgrad import aio
from promptgrad.autograd import Loss, Parameter, candidate, current_detector, no_grad
from promptgrad.errors import ConstraintError, GraphError, StateDictError
from promptgrad.lm import Usage, UsageTracker, track_usage
from promptgrad.nn import Module
from promptgrad.optim._gate import UNTRIED, best_of, hopeless, judge, known_scores, paired_rows
from promptgrad.optim._report import Change, StepReport
from promptgrad.run import value_digest
from promptgrad.search import Verdict, broken, is_number, size_of

if TYPE_CHECKING:
    from promptgrad.search import Session

REVERTED = "reverted"
"""Reason of a change that was installed and taken back."""

DROPPED = "dropped before it was tried"
"""Reason of a pending proposal that was taken back."""

TWICE = "it was proposed twice in this step"
"""Reason of a proposal that is not measured because an equal one is."""

Closure = Callable[[], "Loss | Awaitable[Loss]"]
"""What `step` takes to measure a proposal: runs the batch anew and returns its loss."""

Params = Iterable[Any]
"""Parameters, `(name, parameter)` pairs, or groups `{"params": [...], option: value}`, as in PyTorch."""


class Scheduler(Protocol):
    """What moves an option of the groups, as the optimizer sees it."""

    def step(self, report: StepReport) -> None: ...
    def reset(self) -> None: ...
    def config(self) -> dict[str, Any]: ...


class Optimizer:
    """Improves the parameters of a program, from their gradients or by search.

    Two ways to use one. In a loop of your own: `zero_grad()`, `loss.backward()`, `step()`. Or managed:
    `promptgrad.Trainer(model, optimizer, metric=...).fit(trainset)`, where the optimizer may try candidates on data,
    within a budget.

    `step()` alone installs its proposal on trust and says so in its report. `step(closure)` is gated: the closure
    runs a batch and returns its loss, once with the current values and once with each proposal (which lies over the
    parameters meanwhile, nothing is mutated), and only a proposal whose paired gain is beyond doubt is kept. Let the
    closure run other examples than those that `backward` was called on: what failed there was chosen for having
    failed, and where the language model samples, such a row does better the next time whatever the proposal.
    Where all proposals are solutions, the rows are not a sample of anything but the checks themselves, and the
    higher score is kept.

    Args:
        params: Parameters, `(name, parameter)` pairs, or groups of them with options of their own.
        defaults: Options of the groups that do not set them.

    Attributes:
        param_groups: The groups, dicts with the key `params` and the options.
        state: What the optimizer remembers of each parameter.
        kinds: Kinds of parameters it has a rule for; others keep their values.
        selects: Whether its `fit` chooses among candidates by their scores; one that makes a single candidate leaves
            all validation data to the confirmation.

    Raises:
        ValueError: There is no parameter, one is given twice, or an option is unknown.
        TypeError: Something else than a parameter was given.
    """

    kinds: ClassVar[tuple[str, ...]] = ()
    selects: ClassVar[bool] = True

    def __init__(self, params: Params, defaults: Mapping[str, Any] | None = None, *, gate: float = 0.9) -> None:
        if not is_number(gate) or not 0.5 <= gate < 1:
            raise ValueError(f"gate is the confidence that a step is an improvement, in [0.5, 1), not {gate!r}")
        self.defaults: dict[str, Any] = dict(defaults or {})
        self.gate = gate
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Parameter, dict[str, Any]] = defaultdict(dict)
        self._steps = 0
        self._pending: list[list[tuple[Parameter, Change]]] = []
        self._undo: list[tuple[Parameter, Any, Any, Change]] = []
        self._closure_learns: bool | None = None
        self._schedulers: list[Scheduler] = []
        self._skips_named = False
        for group in _groups(params):
            self.add_param_group(group)

    # -- parameters ---------------------------------------------------------------------------------------------

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with options of their own, such as `{"params": [...], "max_edit": 0.1}`.

        Raises:
            ValueError: The group is empty, holds a parameter that is there already, or an unknown option.
            TypeError: It holds something else than parameters.
        """
        if "params" not in group:
            raise ValueError("a parameter group is a dict with the key 'params'")
        given = group["params"]
        params = [_parameter(item) for item in ([given] if isinstance(given, Parameter) else given)]
        if not params:
            raise ValueError("optimizer got an empty parameter list")
        unknown = sorted(set(group) - {"params"} - set(self.defaults))
        if unknown:
            known = ", ".join(sorted(self.defaults)) or "none"
            raise ValueError(f"{type(self).__name__} has no option {unknown[0]!r} for a group; it has: {known}")
        seen = {id(parameter) for old in self.param_groups for parameter in old["params"]}
        for parameter in params:
            if id(parameter) in seen:
                raise ValueError(f"the parameter {parameter.name or repr(parameter)} is given twice")
            seen.add(id(parameter))
        self.param_groups.append({**self.defaults, **group, "params": params})

    def _check_options(self, options: Mapping[str, Any]) -> None:
        """Raise ValueError or TypeError if an option of a group is out of range. The base takes any."""

    def _check_state(self, entry: Mapping[str, Any]) -> None:
        """Raise ValueError or TypeError if what is remembered of a parameter is malformed. The base takes any."""

    def _shown(self) -> str:
        """What `print(optimizer)` says of the settings that are not of a group."""
        return ""

    if not TYPE_CHECKING:  # or a checker would take any misspelt attribute for Any

        def __getattr__(self, name):
            message = f"{type(self).__name__} has no attribute {name!r}"
            if name == "compile":
                message += ": write promptgrad.Trainer(model, optimizer, metric=...).fit(trainset, valset)"
            raise AttributeError(message)

    def parameters(self) -> list[Parameter]:
        """All parameters given, in order."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def trained(self) -> list[tuple[Parameter, dict[str, Any]]]:
        """The parameters this optimizer has a rule for and that require a gradient, with their group."""
        return [
            (parameter, group)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.requires_grad and parameter.kind in self.kinds
        ]

    def _names(self) -> dict[Parameter, str]:
        """A name for each parameter: its path, else its role, else its place; equal ones are numbered."""
        names: dict[Parameter, str] = {}
        for index, parameter in enumerate(self.parameters()):
            base = parameter.name or " ".join(parameter.role.split())[:60] or f"parameter{index}"
            name, number = base, 0
            while name in names.values():
                number += 1
                name = f"{base}#{number}"
            names[parameter] = name
        return names

    @property
    def skips(self) -> tuple[str, ...]:
        """Kinds among the parameters that require a gradient and that this optimizer has no rule for."""
        kinds = [p.kind for p in self.parameters() if p.requires_grad and p.kind not in self.kinds]
        return tuple(dict.fromkeys(kinds))

    def zero_grad(self) -> None:
        """Drop the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    # -- one step -----------------------------------------------------------------------------------------------

    def step(self, closure: Closure | None = None, *, loss: Loss | None = None) -> StepReport:
        """Propose new values from the gradients and install them, gated if a closure is given.

        Proposals come first, and the closure is run only if one of them passed the checks in code. Where no parameter
        has a gradient yet it is run before them, as it may be the closure that calls `backward`, as in PyTorch. A step
        that raises or is interrupted installs nothing and leaves nothing pending.

        Where the closure's rows are so few, or so many of them right, that no proposal could be better beyond doubt,
        the report says how many it takes, and the proposals are not run.

        Cost: the proposals; and with a closure, if any of them passed, one run of it for each different proposal, and
        one for the current values where `loss` is not given.

        Args:
            closure: Runs a batch, the same each time, and returns its loss: best of examples that `backward` has not
                seen. The trial of a proposal is not recorded; a closure that calls `backward`, as in PyTorch, does so
                only `if promptgrad.is_grad_enabled()`.
            loss: The closure's loss under the current values, if it is known already; saves one run of the closure.

        Raises:
            TypeError: The closure is no function, is one for `astep`, or does not return a loss.
            ValueError: The closure runs another batch each time.
        """
        import inspect

        _check_step(closure, loss)
        if inspect.iscoroutinefunction(closure):
            raise TypeError("step() takes a plain function; with a coroutine function: await optimizer.astep(closure)")
        begun = time.monotonic()
        gate = Usage()
        with track_usage() as usage, self._nothing_pending_on_failure():
            if closure is not None and loss is None and self._is_closure_first():
                with track_usage() as part, self._watching():
                    loss = _checked(closure())
                gate += part.total
            aio.drive(self._make(1 if closure is None else self._variants()))
            trials: dict[int, Loss] = {}
            candidates = {} if closure is None else self._candidates()
            if closure is not None and candidates:
                with track_usage() as part:
                    if loss is None:
                        with self._watching():
                            loss = _checked(closure())
                    for variant, values in self._winnable(loss, candidates).items():
                        with self._trial(values):
                            trials[variant] = _checked(closure())
                gate += part.total
            return self._conclude(loss, trials, usage, gate, begun)

    async def astep(self, closure: Closure | None = None, *, loss: Loss | None = None) -> StepReport:
        """Do as `step` does, in a coroutine.

        The closure may be a coroutine function, which is run for all proposals side by side; another one is run for
        one after the other, in a thread.
        """
        import inspect

        _check_step(closure, loss)
        begun = time.monotonic()
        gate = Usage()
        with track_usage() as usage, self._nothing_pending_on_failure():
            if closure is not None and loss is None and self._is_closure_first():
                with track_usage() as part, self._watching():
                    loss = await _acall(closure)
                gate += part.total
            await self._make(1 if closure is None else self._variants())
            trials: dict[int, Loss] = {}
            candidates = {} if closure is None else self._candidates()
            if closure is not None and candidates:
                with track_usage() as part:
                    if loss is None:
                        with self._watching():
                            loss = await _acall(closure)
                    candidates = self._winnable(loss, candidates)
                    losses = await aio.gather(
                        [partial(self._try, closure, laid) for laid in candidates.values()],
                        limit=None if inspect.iscoroutinefunction(closure) else 1,
                    )
                gate += part.total
                trials = dict(zip(candidates, losses, strict=True))
            return self._conclude(loss, trials, usage, gate, begun)

    def propose(self, proposals: int = 1) -> tuple[Change, ...]:
        """Make proposals and keep them pending: nothing is installed before `accept`.

        Args:
            proposals: How many, of an optimizer that can make several; `Change.variant` tells them apart.
        """
        if proposals < 1:
            raise ValueError(f"proposals is at least 1, not {proposals}")
        aio.drive(self._make(proposals))
        return tuple(change for pending in self._pending for _, change in pending)

    def accept(self, variant: int = 0) -> tuple[Change, ...]:
        """Install one of the pending proposals, and drop the others.

        Raises:
            RuntimeError: Nothing is pending; or a parameter was given another value since. Nothing is changed.
            IndexError: There is no such variant.
        """
        if not self._pending:
            raise RuntimeError("nothing is pending: call propose() before accept(); step() installs by itself")
        if not 0 <= variant < len(self._pending):
            raise IndexError(f"there is no variant {variant}: {len(self._pending)} were proposed, counted from 0")
        return self._install(variant)

    def _install(self, variant: int) -> tuple[Change, ...]:
        for parameter, change in self._proposed(variant):
            if parameter._data != change.old and parameter.data != change.old:
                raise RuntimeError(
                    f"{change.path or 'a parameter'} was given another value since the proposal was made, and nothing "
                    "was installed: call propose() again, or revert() to drop what is pending"
                )
        self._undo = []
        done = []
        for parameter, change in self._pending[variant]:
            if change.status == "proposed":
                old = parameter._data  # what is there, whatever a candidate lays over it
                try:
                    parameter.data = change.new
                except ConstraintError as error:
                    change = change.to("rejected", error.reason)
                else:
                    change = change.to("accepted")
                    self._undo.append((parameter, old, parameter._data, change))
            done.append(change)
            self._remember(parameter, change)
        self._pending = []
        return tuple(done)

    def revert(self) -> None:
        """Drop what is pending; or, if nothing is, take back what the last step or `accept` installed.

        That is nothing if it installed nothing; earlier steps are not taken back.

        Raises:
            RuntimeError: A parameter was given another value since. Nothing is changed.
        """
        if self._pending:
            for parameter, change in (pair for pending in self._pending for pair in pending):
                self._remember(parameter, change.to("rejected", DROPPED) if change.status == "proposed" else change)
            self._pending = []
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
        """Make one change for every trained parameter: the rule that tells one optimizer from another."""
        raise NotImplementedError(f"{type(self).__name__} has no rule for a single step; use promptgrad.Trainer")

    async def _propose_variants(self, count: int) -> list[list[tuple[Parameter, Change]]]:
        """Make up to `count` proposals, each a change for every trained parameter. The base makes one."""
        return [await self._propose()]

    def _variants(self) -> int:
        """How many proposals a gated step makes."""
        return 1

    def _remember(self, parameter: Parameter, change: Change, *, alone: bool = True) -> None:
        """Learn from the fate of a proposal, which was tried alone or with others. The base remembers nothing."""

    def _price(self, changes: Iterable[tuple[Parameter, Change]]) -> float:
        """Return what the growth of the texts costs, in score. Free in the base."""
        return 0.0

    def _notes(self, loss: Loss | None) -> list[str]:
        """What a report should say besides. Nothing in the base."""
        return []

    async def _make(self, count: int) -> None:
        self._pending = []
        names = self._names()

        def named(parameter: Parameter, change: Change, variant: int) -> Change:
            path = names.get(parameter, change.path)
            return replace(self._admissible(parameter, change), variant=variant, path=path, parameter=parameter)

        self._pending = [
            [(parameter, named(parameter, change, variant)) for parameter, change in made]
            for variant, made in enumerate(await self._propose_variants(count))
        ]

    def _is_closure_first(self) -> bool:
        """Whether the closure is run before the proposals: it calls `backward`, or may do so as far as is known."""
        if self._closure_learns is None:
            trained = self.trained()
            return bool(trained) and all(parameter.grad is None for parameter, _ in trained)
        return self._closure_learns

    def _is_backward_seen(self) -> bool:
        """Whether `backward` was called since `zero_grad`, as far as the gradients tell."""
        return bool(self._closure_learns) or any(parameter.grad is not None for parameter in self.parameters())

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Notice whether a closure fills the gradients, as in PyTorch; one that only clears them takes nothing away."""
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
        """Measure these values: nothing is recorded, and the gradients are afterwards what they were."""
        before = [(parameter, parameter.grad) for parameter in self.parameters()]
        try:
            with candidate(values), no_grad(), _without_backward():
                yield
        finally:
            for parameter, old in before:
                parameter.grad = old

    async def _try(self, closure: Closure, values: Mapping[Parameter, Any]) -> Loss:
        with self._trial(values):
            return await _acall(closure)

    @contextmanager
    def _nothing_pending_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._pending = []
            raise

    def _admissible(self, parameter: Parameter, change: Change) -> Change:
        if change.status != "proposed":
            return change
        reason = broken(parameter.constraints, change.new)
        return change if reason is None else change.to("rejected", reason)

    def _proposed(self, variant: int) -> list[tuple[Parameter, Change]]:
        """What is still proposed of a variant."""
        return [(parameter, change) for parameter, change in self._pending[variant] if change.status == "proposed"]

    def _candidates(self) -> dict[int, dict[Parameter, Any]]:
        """The values to try, by variant; equal ones once."""
        found: dict[int, dict[Parameter, Any]] = {}
        for variant in range(len(self._pending)):
            values = {parameter: change.new for parameter, change in self._proposed(variant)}
            if values and values not in found.values():
                found[variant] = values
        return found

    def _winnable(
        self, before: Loss, candidates: Mapping[int, dict[Parameter, Any]]
    ) -> dict[int, dict[Parameter, Any]]:
        """The candidates that can pass the gate on these rows. The others are rejected before they are paid for.

        The fewer are measured, the more can be shown of each. So each is first asked whether it could pass alone, then
        as one of two, until no more are left than that.
        """
        scores, best = known_scores(before), best_of(before)
        ask = partial(hopeless, scores, confidence=self.gate, seed=self._steps, best=best)
        prices = {
            variant: self._price(self._proposed(variant))
            for variant, values in candidates.items()
            if scores and not all(parameter.kind == "solution" for parameter in values)
        }
        kept = dict(candidates)
        for of in range(1, len(candidates) + 1):
            for variant in [variant for variant in kept if variant in prices]:
                why = ask(price=prices[variant], of=of)
                if not why:
                    continue
                if why.startswith(UNTRIED):  # tell what it takes in the next step, which proposes as many
                    why = ask(price=prices[variant], of=len(candidates))
                del kept[variant]
                self._pending[variant] = [
                    (p, change.to("rejected", why) if change.status == "proposed" else change)
                    for p, change in self._pending[variant]
                ]
            if len(kept) <= of:
                break
        return kept

    def _judge(self, before: Loss, trials: Mapping[int, Loss]) -> dict[int, Verdict]:
        """A verdict on each variant that was tried."""
        best = best_of(before)
        verdicts: dict[int, Verdict] = {}
        for variant, after in trials.items():
            first, second, dropped = paired_rows(before, after)
            changed = self._proposed(variant)
            verdicts[variant] = judge(
                first,
                second,
                confidence=self.gate,
                seed=self._steps,
                best=best,
                exact=all(parameter.kind == "solution" for parameter, _ in changed),
                price=self._price(changed),
                of=len(trials),
                dropped=dropped,
            )
        return verdicts

    def _conclude(
        self, loss: Loss | None, trials: Mapping[int, Loss], usage: UsageTracker, gate: Usage, begun: float
    ) -> StepReport:
        """Install the best proposal that passed, remember the fate of the others, and report."""
        self._undo = []
        verdicts = {} if loss is None else self._judge(loss, trials)
        best = self._best(verdicts)
        winner = best if not verdicts or verdicts[best].accepted else None
        names = {parameter: place for place, (parameter, _) in enumerate(self._pending[0] if self._pending else ())}
        fates: list[tuple[int, Change]] = []
        for variant, pending in enumerate(self._pending):
            if variant == winner:
                continue
            alone = len(self._proposed(variant)) == 1
            for parameter, change in pending:
                change = self._fate(change, verdicts, best)
                self._remember(parameter, change, alone=alone)
                fates.append((names[parameter], change))
        changes: tuple[Change, ...] = ()
        if winner is not None and self._pending:
            found = verdicts.get(winner)
            self._pending[winner] = [
                (parameter, replace(change, verdict=found) if change.status == "proposed" else change)
                for parameter, change in self._pending[winner]
            ]
            changes = self._install(winner)
            fates += enumerate(changes)
        self._pending = []
        fates.sort(key=lambda fate: (fate[0], fate[1].variant))
        if winner is None:
            changes = tuple(change for _, change in fates if change.variant == best)
        proposals = tuple(change for _, change in fates if change.status != "untouched")
        notes = tuple(self._notes(loss)) if not proposals else ()
        self._steps += 1
        detector = current_detector()
        if detector is not None:
            detector.after_step((c.path, c.status == "accepted" and c.new != c.old, c.reason) for c in changes)
        skipped = () if self._skips_named else self.skips
        self._skips_named = True
        seconds = time.monotonic() - begun
        return StepReport(changes, verdicts.get(best), usage.total, seconds, skipped, proposals, gate, notes)

    def _best(self, verdicts: Mapping[int, Verdict]) -> int:
        """The variant to install or to tell of: one that passed, with the largest gain, the shortest, the first."""
        if not verdicts:
            return 0

        def merit(variant: int) -> tuple[bool, float, int]:
            verdict = verdicts[variant]
            values = [change.new for _, change in self._proposed(variant)]
            return verdict.accepted, round(verdict.gain - verdict.price, 9), -sum(map(size_of, values))

        return max(verdicts, key=merit)  # the first of equals

    def _fate(self, change: Change, verdicts: Mapping[int, Verdict], best: int) -> Change:
        """What becomes of a proposal that is not installed."""
        if change.status != "proposed":
            return change
        verdict = verdicts.get(change.variant)
        if verdict is None:
            return change.to("rejected", TWICE)
        reason = verdict.reason
        if verdict.accepted:
            kept = verdicts[best]
            worse = round(verdict.gain - verdict.price, 9) < round(kept.gain - kept.price, 9)
            reason = f"good, but proposal {best} is better" if worse else f"as good, but proposal {best} is kept"
        return replace(change.to("rejected", reason), verdict=verdict)

    # -- the managed search -------------------------------------------------------------------------------------

    async def fit(self, session: "Session") -> None:
        """Search for better values within the session; the trainer calls this, see `promptgrad.Trainer`.

        An optimizer only says what to try. It evaluates candidates through the session, which counts, journals and
        replays every paid call, and offers those worth confirming. It never mutates the program.
        """
        raise NotImplementedError(f"{type(self).__name__} has no managed search; use its step() in a loop")

    def expected_calls(self, plan: Any) -> list[tuple[str, float, bool]]:
        """Return the calls that `fit` will make: (what for, how many, whether that is exact) for each phase."""
        return []

    def config(self) -> dict[str, Any]:
        """Return the settings in JSON types, by which a resumed run recognises its optimizer."""
        names = self._names()
        groups = [
            {
                **{name: plain_setting(value) for name, value in group.items() if name != "params"},
                "params": [names[parameter] for parameter in group["params"]],
            }
            for group in self.param_groups
        ]
        own = {
            name: plain_setting(value)
            for name, value in vars(self).items()
            if not name.startswith("_") and name not in {"param_groups", "state", "defaults"}
        }
        moved = {"schedulers": [scheduler.config() for scheduler in self._schedulers]} if self._schedulers else {}
        return {"optimizer": type(self).__name__, **own, "groups": groups, **moved}

    # -- state --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what the optimizer remembers, in JSON types.

        Parameters are named by their paths, those without one by their roles or places; equal names are numbered,
        "instruction" and "instruction#1".
        """
        names = self._names()
        return {
            "steps": self._steps,
            "state": {names[parameter]: dict(entry) for parameter, entry in self.state.items() if entry},
            "param_groups": [
                {
                    **{name: value for name, value in group.items() if _is_plain(value)},
                    "params": [names[parameter] for parameter in group["params"]],
                }
                for group in self.param_groups
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned. Options that are not plain values (an LM, constraints) stay.

        What is pending is dropped, and nothing can be reverted.

        Raises:
            StateDictError: The state is of other parameters, or a value is of the wrong type or out of range; all
                differences are told at once, and nothing is changed.
        """
        groups, entries = (
            (state.get("param_groups"), state.get("state", {})) if isinstance(state, Mapping) else (None, {})
        )
        if (
            not isinstance(groups, (list, tuple))
            or not isinstance(entries, Mapping)
            or not all(
                isinstance(group, Mapping) and isinstance(group.get("params"), (list, tuple)) for group in groups
            )
        ):
            raise StateDictError(
                f"the state of an optimizer is what state_dict() returned, with 'param_groups', not {state!r:.80}"
            )
        names = {name: parameter for parameter, name in self._names().items()}
        theirs = [name for group in groups for name in group["params"]]
        missing = [name for name in names if name not in theirs]
        unexpected = [name for name in dict.fromkeys([*theirs, *entries]) if name not in names]
        if missing or unexpected or len(groups) != len(self.param_groups):
            raise StateDictError(
                f"the state does not fit this {type(self).__name__}:\n"
                f"  missing     {', '.join(missing) or '-'}\n"
                f"  unexpected  {', '.join(unexpected) or '-'}\n"
                f"  groups      {len(groups)} in the state, {len(self.param_groups)} here",
                missing=missing,
                unexpected=unexpected,
            )
        steps = state.get("steps", 0)
        faults: dict[str, str] = {}
        if not is_number(steps, whole=True) or steps < 0:
            faults["steps"] = f"a number of steps, not {steps!r}"
        for name, entry in entries.items():
            with _collected(faults, name):
                if not isinstance(entry, Mapping):
                    raise TypeError(f"a dict, not {entry!r}")
                self._check_state(entry)
        options: list[dict[str, Any]] = []
        ours = {parameter: name for name, parameter in names.items()}
        for place, (group, saved) in enumerate(zip(self.param_groups, groups, strict=True)):
            with _collected(faults, f"group {place}"):
                if {ours[parameter] for parameter in group["params"]} != set(saved["params"]):
                    raise ValueError(f"it holds {', '.join(saved['params'])}, and other parameters here")
                strange = [name for name in saved if name not in group]
                if strange:
                    raise ValueError(f"there is no option {strange[0]!r}")
                plain = {
                    name: value
                    for name, value in saved.items()
                    if name != "params" and _is_plain(value) and _is_plain(group[name])
                }
                self._check_options({**group, **plain})
                options.append(plain)
        if faults:
            told = "\n".join(f"  {name}: {reason}" for name, reason in faults.items())
            raise StateDictError(f"the state does not fit this {type(self).__name__}:\n{told}", invalid=list(faults))
        self._steps = int(steps)
        self._pending, self._undo = [], []
        self.state.clear()
        for name, entry in entries.items():
            self.state[names[name]] = dict(entry)
        for group, plain in zip(self.param_groups, options, strict=True):
            group.update(plain)

    def __repr__(self) -> str:
        count = len(self.trained())
        lines = [f"{type(self).__name__}({count} parameter{'' if count == 1 else 's'} trained"]
        if self.skips:
            lines[0] += f", no rule for {', '.join(self.skips)}"
        if self._shown():
            lines.append(f"  {self._shown()}, gate={self.gate:g}")
        lines += [f"  {scheduler!r}" for scheduler in self._schedulers]
        names = self._names()
        for index, group in enumerate(self.param_groups):
            options = ", ".join(f"{name}={value!r}" for name, value in group.items() if name != "params")
            paths = ", ".join(names[parameter] for parameter in group["params"])
            lines.append(f"  group {index}: {paths}{f' ({options})' if options else ''}")
        return "\n".join(lines) + "\n)"


def _groups(params: Params) -> list[Mapping[str, Any]]:
    is_module = hasattr(params, "named_parameters")
    if is_module or isinstance(params, (Parameter, str, Mapping)) or not isinstance(params, Iterable):
        hint = ": pass model.parameters()" if is_module else ""
        raise TypeError(f"an optimizer takes an iterable of parameters, not {type(params).__name__}{hint}")
    items = list(params)
    if not items:
        raise ValueError("optimizer got an empty parameter list")
    if all(isinstance(item, Mapping) for item in items):
        return items
    return [{"params": items}]


def _parameter(item: Any) -> Parameter:
    name = ""
    if isinstance(item, tuple) and len(item) == 2:
        name, item = item
    if isinstance(item, Parameter):
        item.name = item.name or name
        return item
    hint = ""
    if type(item).__module__.startswith("torch"):
        hint = ": the weights of a local model go to torch.optim"
    elif hasattr(item, "parameters"):
        hint = ": pass its .parameters()"
    raise TypeError(f"an optimizer trains parameters, not {type(item).__name__}{hint}")


def check_trained(optimizer: Optimizer) -> None:
    """Check that an optimizer which has a rule for parameters was given some to train.

    Raises:
        GraphError: It was not.
    """
    if not optimizer.kinds or optimizer.trained():
        return
    given = [
        f"{name} ({parameter.kind}{'' if parameter.requires_grad else ', requires_grad is False'})"
        for parameter, name in optimizer._names().items()
    ]
    more = f" and {len(given) - 6} more" if len(given) > 6 else ""
    raise GraphError(
        f"{type(optimizer).__name__} has nothing to train: it has a rule for parameters of kind "
        f"{', '.join(optimizer.kinds)} that require a gradient, and was given {', '.join(given[:6])}{more}. Give it "
        "parameters of its kinds, such as model.parameters(), and call requires_grad_() on those that are frozen"
    )


@contextmanager
def _collected(faults: dict[str, str], name: str) -> Iterator[None]:
    """Note under a name what is wrong, and go on."""
    try:
        yield
    except (TypeError, ValueError) as error:
        faults[name] = str(error)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def plain_setting(value: Any) -> Any:
    """A setting in JSON types: values as they are, objects by a name that is the same in the next process."""
    if _is_plain(value):
        return value
    if isinstance(value, (list, tuple)):
        return [plain_setting(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): plain_setting(item) for name, item in value.items()}
    if isinstance(value, Module):
        return [type(value).__name__, value_digest(value.state_dict())]
    if isinstance(value, (set, frozenset)):
        return sorted((plain_setting(item) for item in value), key=json.dumps)
    return getattr(value, "name", None) or getattr(value, "__qualname__", None) or type(value).__name__


@contextmanager
def _without_backward() -> Iterator[None]:
    """Say what to write where a closure calls backward in a trial, which records nothing."""
    try:
        yield
    except GraphError as error:
        raise TypeError(
            "the closure calls backward(), and the trial of a proposal records nothing. Call loss.backward() before "
            "step(closure), or in the closure only `if promptgrad.is_grad_enabled():`"
        ) from error


def _check_step(closure: Any, loss: Any) -> None:
    """Check what `step` is given.

    Raises:
        TypeError: The closure is no function, or the loss is none.
    """
    if isinstance(closure, Loss):
        raise TypeError(
            "step() takes a closure, a function that runs a batch and returns its loss, and not a loss: write "
            "step() after loss.backward(), or step(lambda: criterion(model.map(batch), batch))"
        )
    if closure is not None and not callable(closure):
        raise TypeError(f"the closure is a function that runs a batch and returns its loss, not {closure!r}")
    if loss is not None and not isinstance(loss, Loss):
        raise TypeError(f"loss= is the closure's loss under the current values, not {type(loss).__name__}")


def _checked(loss: Any) -> Loss:
    if not isinstance(loss, Loss):
        if hasattr(loss, "__await__"):
            getattr(loss, "close", lambda: None)()
            raise TypeError("the closure returned a coroutine: write await optimizer.astep(closure)")
        raise TypeError(
            f"the closure must return the loss, `return criterion(model.map(batch), batch)`, not {type(loss).__name__}"
        )
    return loss


async def _acall(closure: Closure) -> Loss:
    import inspect

    if inspect.iscoroutinefunction(closure):
        return _checked(await closure())
    result = await aio.in_thread(closure)
    return _checked(await result if inspect.isawaitable(result) else result)
