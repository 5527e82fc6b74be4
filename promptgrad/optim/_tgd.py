"""TGD: textual gradient descent, rewriting parameters as their critiques ask."""

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from promptgrad import aio, run
from promptgrad._seed import seed_or_default
from promptgrad.autograd import Critique, Gradient, Loss, Parameter, to_json
from promptgrad.data import DataLoader
from promptgrad.errors import LMError, NoLMError, PromptgradError, ReplayError
from promptgrad.evaluation import paired_interval
from promptgrad.lm import LM, resolve, resolve_lm, track_usage
from promptgrad.optim._gate import UNTRIED, price_of
from promptgrad.optim._optimizer import DROPPED, REVERTED, TWICE, Optimizer, Params, is_number
from promptgrad.optim._report import Change, StepReport, Verdict
from promptgrad.search import (
    Amend,
    Candidate,
    Constraint,
    Hunk,
    Improve,
    ImproveSolution,
    Measured,
    Place,
    Session,
    amend,
    check_amends,
    checked_constraints,
    edit_ratio,
    make_proposer,
    pairs,
    places,
    race,
    refusal,
    role,
    write,
)

FORGOTTEN = 0.25
"""Weight below which a critique of earlier steps is dropped: a quarter of an example."""


class TGD(Optimizer):
    """Rewrite each text as its critiques ask.

    `loss.backward()` leaves critiques in `.grad`; `step()` merges those that say the same (`Gradient.cluster`), shows
    the proposer LM the text in full with the best supported first, and checks its rewrite in code: placeholders kept,
    not empty, not measured without a gain before, at most `max_tokens` long, at most `max_edit` of its tokens edited,
    all constraints held. A rewrite that fails is rejected with its reason; nothing is repaired, and no parameter
    without a critique is touched.

    `step()` alone makes one proposal, installs what passes the checks and says that it is not gated. `step(closure)`
    makes `proposals` of them, each for all parameters together: the first hears the weightiest critiques, the others
    one critique alone or a random half. Each is measured on the closure's batch, and the best is kept if its paired
    gain, less the price of its length, lies above zero beyond doubt; the doubt that is allowed is divided by the number
    of proposals measured (Bonferroni), as the best of several looks better than it is. In `Trainer.fit` each step
    proposes from one training batch, and the rewrites meet the present values on validation examples, block by block;
    the hopeless are dropped after each block. A critic may take a precise but wrong text for right. So where examples
    fail and nobody is blamed, the next step goes back to the values before and rewrites those; what comes of it must
    beat the best all the same.

    With `edits="hunks"` the LM answers with insertions, replacements and deletions at quoted anchors instead of the
    whole text: fewer tokens for long texts, and nothing else can change. Hunks that do not apply exactly are rejected,
    see `apply_hunks`. The embedded model cannot write them.

    Shape: `.grad` holds one critique per failed example and call of the module, in batch order.
    Cost: one LM call a proposal for each parameter with a critique (one more for each re-ask of a reply that does not
    parse), none for the others; a gate runs its closure once for each different proposal and once for the start.
    Source: Yuksekgonul et al. 2024, arXiv 2406.07496. Differs: a failed rewrite keeps the old text; critiques are
    counted as data; steps are gated; momentum averages critiques, instead of showing old values. Going back to earlier
    values: after TSGD-M, arXiv 2506.00400, which draws them by their scores at each step.

    Args:
        params: Parameters; texts (instructions, solutions, and descriptions that require a gradient) are trained.
        lm: LM that writes; None for that of the context or of `configure`, else the one that answered the blamed call;
            inside a trainer that of the program.
        edits: "rewrite" for whole new texts, "hunks" for structured edits. Solutions are rewritten in any case.
        max_edit: Largest accepted edit, as a share of the longer text's tokens; 1 accepts any. Schedulers move it, such
            as `StepEdit` and `TrustRegionEdit`.
        length_price: What a gate charges for length: score per 100 tokens that a text grows, given back where it
            shrinks, so that a shorter text may be taken although it scores less. With 0 a longer text costs nothing,
            but of equally good proposals the shortest is taken. Without a gate (`step()`) nothing is charged; nor in
            the confirmation of the Trainer, which asks only whether the score is higher.
        constraints: Rules for new texts. Functions, which return None, or why the text is refused (as do False and any
            exception): they are checked in code, and the proposer is told the first line of their docstrings. And
            rules in words, such as "Write English.": the proposer is told them, and nothing checks them.
        momentum: Share of a critique's weight that is kept from step to step, in [0, 1): what is said again and again
            adds up to 1 / (1 - momentum) times its support, what is not said any more fades.
        max_critiques: Most critiques shown to the proposer.
        max_failures: Most failed calls shown besides; 0 for critiques alone.
        max_tokens: Longest text; None for no bound.
        memory: How many rejected proposals are remembered for each parameter: shown to the proposer with their effect
            (the measured gain, or the rule that refused them). What was measured alone and did not gain (its mean gain,
            less the price of its length, is not above zero; in `Trainer.fit`, what left a race) is not tried again.
            What gained, but not beyond doubt, may come again.
        gate: Confidence that a gated step is an improvement, in [0.5, 1).
        proposals: Proposals of a gated step, and in `Trainer.fit` of each step.
        temperature: Sampling temperature of the second and further proposals of a step; None for that of the LM.
        steps: In `Trainer.fit`: most steps.
        batch_size: In `Trainer.fit`: training examples a step.
        patience: In `Trainer.fit`: steps without a gain after which it ends.

    Raises:
        ValueError: `max_edit` is not in (0, 1], `momentum` not in [0, 1), `length_price` negative, `edits` unknown, or
            another number is out of range.
        TypeError: An option is of another type: a rule that is neither function nor text, an `lm` that is none.
        SignatureError: `edits="hunks"`, and the LM cannot be asked for them.
    """

    kinds = ("instruction", "description", "solution")

    def __init__(
        self,
        params: Params,
        lm: LM | str | None = None,
        *,
        edits: Literal["rewrite", "hunks"] = "rewrite",
        max_edit: float = 1.0,
        length_price: float = 0.0,
        constraints: Sequence[Constraint | str] | Constraint | str = (),
        momentum: float = 0.0,
        max_critiques: int = 6,
        max_failures: int = 3,
        max_tokens: int | None = 1000,
        memory: int = 8,
        gate: float = 0.9,
        proposals: int = 3,
        temperature: float | None = 1.0,
        steps: int = 8,
        batch_size: int = 8,
        patience: int = 4,
    ) -> None:
        defaults = {
            "lm": lm,
            "max_edit": max_edit,
            "length_price": length_price,
            "constraints": checked_constraints(constraints),
            "momentum": momentum,
            "max_tokens": max_tokens,
        }
        for name, value, least in (
            ("max_critiques", max_critiques, 1),
            ("max_failures", max_failures, 0),
            ("memory", memory, 0),
            ("steps", steps, 1),
            ("batch_size", batch_size, 1),
            ("proposals", proposals, 1),
            ("patience", patience, 1),
        ):
            if not is_number(value, whole=True):
                raise TypeError(f"{name} is a whole number, not {value!r}")
            if value < least:
                raise ValueError(f"{name} is at least {least}, not {value}")
        if temperature is not None and not (is_number(temperature) and temperature >= 0):
            raise ValueError(f"temperature is at least 0, or None for that of the LM, not {temperature!r}")
        if edits not in ("rewrite", "hunks"):
            raise ValueError(f'edits is "rewrite" or "hunks", not {edits!r}')
        self.edits = edits
        self.proposer = make_proposer(Improve if edits == "rewrite" else Amend, None)
        super().__init__(params, defaults, gate=gate)
        self.max_critiques = max_critiques
        self.max_failures = max_failures
        self.memory = memory
        self.proposals = proposals
        self.temperature = temperature
        self.steps = steps
        self.batch_size = batch_size
        self.patience = patience
        self.solver = make_proposer(ImproveSolution, None)
        self._refused: Counter[str] = Counter()
        self._folded: dict[Parameter, tuple[Gradient | None, dict[str, float]]] = {}

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with options of their own.

        The options are `lm`, `max_edit`, `length_price`, `constraints`, `momentum` and `max_tokens`.

        Raises:
            ValueError: As `Optimizer.add_param_group`; or an option is out of range.
            TypeError: The group holds something else than parameters.
            SignatureError: Hunks are wanted, and the group's LM cannot be asked for them.
        """
        if "constraints" in group:
            group = {**group, "constraints": checked_constraints(group["constraints"])}
        options = {**self.defaults, **group}
        self._check_options(options)
        if self.edits == "hunks" and (options["lm"] == "pocket" or isinstance(options["lm"], LM)):
            check_amends(self.proposer, resolve(options["lm"]))
        super().add_param_group(group)

    def _check_options(self, options: Mapping[str, Any]) -> None:
        for name in ("max_edit", "momentum", "length_price"):
            if not is_number(options[name]):
                raise TypeError(f"{name} is a number, not {options[name]!r}")
        if not 0 < options["max_edit"] <= 1:
            raise ValueError(f"max_edit is a share of the text in (0, 1], not {options['max_edit']}")
        if not 0 <= options["momentum"] < 1:
            raise ValueError(f"momentum lies in [0, 1), not {options['momentum']}")
        if not 0 <= options["length_price"] < math.inf:
            raise ValueError(f"length_price is score per 100 tokens, not negative, not {options['length_price']}")
        longest = options["max_tokens"]
        if longest is not None and not (is_number(longest, whole=True) and longest >= 1):
            raise ValueError(f"max_tokens is at least 1, or None for no bound, not {longest!r}")
        writer = options["lm"]
        if writer is not None and not (isinstance(writer, (str, LM)) or callable(writer)):
            raise TypeError(f"lm is a language model, its name, or a function of the messages, not {writer!r}")

    def _check_state(self, entry: Mapping[str, Any]) -> None:
        for old in entry.get("rejected", ()):
            if not isinstance(old, Mapping) or not isinstance(old.get("text"), str) or "effect" not in old:
                raise ValueError(f"a rejected proposal has text, effect and measured, and is not {old!r}")
        for text, weight in dict(entry.get("critiques", {})).items():
            if not isinstance(text, str) or not (is_number(weight) and weight >= 0):
                raise ValueError(f"a critique has a weight that is not negative, not {weight!r}")

    def _shown(self) -> str:
        hunks = self.edits == "hunks" and any(p.kind == "solution" for p, _ in self.trained())
        edits = f"edits={self.edits!r}{' (solutions are rewritten)' if hunks else ''}"
        return f"{edits}, proposals={self.proposals}, memory={self.memory}"

    # -- one step -----------------------------------------------------------------------------------------------

    def _variants(self) -> int:
        return self.proposals

    async def _propose_variants(self, count: int) -> list[list[tuple[Parameter, Change]]]:
        trained = self.trained()
        told = self._tell(trained, count, run.rng(seed_or_default(None), "tgd", self._steps))
        jobs = [(variant, parameter, group) for variant in range(count) for parameter, group in trained]
        changes = await aio.gather(
            [
                partial(self._try_rewrite, parameter, group, told[parameter][variant], variant)
                for variant, parameter, group in jobs
            ]
        )
        made: list[list[tuple[Parameter, Change]]] = [[] for _ in range(count)]
        for (variant, parameter, _), change in zip(jobs, changes, strict=True):
            made[variant].append((parameter, change))
        return [pairs for pairs in made if any(change.status != "untouched" for _, change in pairs)] or made[:1]

    async def _try_rewrite(
        self, parameter: Parameter, group: Mapping[str, Any], critiques: Sequence[str], variant: int
    ) -> Change:
        """One proposal, rejected where the language model gave no answer."""
        try:
            return await self._rewrite(parameter, group, critiques, own=self._writer(parameter, group), variant=variant)
        except ReplayError:
            raise
        except NoLMError:
            raise NoLMError("TGD needs a language model that writes: optim.TGD(model.parameters(), lm=...)") from None
        except LMError as error:
            reason = f"the language model gave no answer: {error}"
            return Change(parameter.name or "", parameter.kind, "rejected", reason, parameter.data)

    def _writer(self, parameter: Parameter, group: Mapping[str, Any]) -> LM | None:
        """The LM of the blamed call, where none is set."""
        if group["lm"] is not None or parameter.grad is None:
            return None
        try:
            resolve_lm(None, self.proposer.lm)
        except NoLMError:
            return next((critique.lm for critique in parameter.grad.critiques if critique.lm is not None), None)
        return None

    async def _rewrite(
        self,
        parameter: Parameter,
        group: Mapping[str, Any],
        critiques: Sequence[str],
        *,
        place: Place | None = None,
        own: LM | None = None,
        variant: int = 0,
    ) -> Change:
        """One proposal for one parameter, from the critiques that this variant hears."""
        path, old = parameter.name or "", parameter.data
        if not critiques:
            reason = "no critique"
            if parameter.grad is None:
                reason = "no gradient: nothing failed, the critic did not blame it, or its call failed"
                if not self._is_backward_seen():
                    reason += ", or backward() was not called"
                reason += " (see the report that backward() returns)"
            return Change(path, parameter.kind, "untouched", reason)
        tried = list(self.state[parameter].get("rejected", ()))
        constraints = [*parameter.constraints, *group["constraints"]]
        inputs = {
            "role": parameter.role or (role(place) if place is not None else path),
            "instruction": old,
            "critiques": list(critiques),
            "failures": self._failures(parameter, critiques),
            "rules": _rules(group, constraints),
            "rejected": [f"{entry['text']} -- {entry['effect']}" for entry in tried],
        }
        config: dict[str, Any] = {}
        if variant:
            config["replicate"] = variant
            if self.temperature is not None:
                config["temperature"] = self.temperature
        writer = resolve(group["lm"]) if group["lm"] is not None else own
        solution = parameter.kind == "solution"
        hunks: tuple[Hunk, ...] = ()
        with track_usage() as usage, _failing_as_lm():
            if self.edits == "hunks" and not solution:
                text, hunks, reason = await amend(self.proposer, inputs, lm=writer, config=config)
            else:
                proposer = self.solver if solution else self.proposer
                text, reason = await write(proposer, inputs, lm=writer, config=config)
        change = Change(
            path, parameter.kind, "rejected", reason, old, text, variant=variant, hunks=hunks, usage=usage.total
        )
        if text is None:
            return change
        change = replace(change, edit=edit_ratio(old, text))
        refused = refusal(
            old,
            text,
            max_edit=float(group["max_edit"]),
            max_tokens=group["max_tokens"],
            constraints=constraints,
            tried=[entry["text"] for entry in tried if entry.get("measured")],
            verbatim=solution,
        )
        if refused is not None:
            return change.to("rejected", refused)
        return change.to("proposed", f"{len(critiques)} critique{'' if len(critiques) == 1 else 's'}")

    # -- what the proposer hears --------------------------------------------------------------------------------

    def _tell(
        self, trained: Sequence[tuple[Parameter, Mapping[str, Any]]], count: int, rng: random.Random
    ) -> dict[Parameter, list[list[str]]]:
        """For each parameter the critiques that each of `count` variants hears.

        The first hears the weightiest. The others are hypotheses that the majority would drown: by turns one critique
        alone and a random half of them, in an order drawn by weight, so that no two hear the same while there are more.
        """
        told: dict[Parameter, list[list[str]]] = {}
        for parameter, group in trained:
            weights = self._fold(parameter, float(group["momentum"]))
            heard = sorted(weights, key=lambda text: -weights[text])  # stable: the earlier of equals first
            drawn = sorted(heard, key=lambda text: -(rng.random() ** (1 / max(weights[text], 1e-6))))
            told[parameter] = [heard[: self.max_critiques]]
            for variant in range(1, count):
                few = min(self.max_critiques, max(1, len(heard) // 2))
                turn = (variant // 2) % max(1, len(drawn))
                chosen = drawn[turn : turn + 1] if variant % 2 else [*drawn[turn:], *drawn[:turn]][:few]
                told[parameter].append([text for text in heard if text in chosen])
        return told

    def _fold(self, parameter: Parameter, momentum: float) -> dict[str, float]:
        """The weight of each critique of a parameter: its support, and `momentum` times what it weighed before.

        Critiques that say the same in other words are one, see `Gradient.cluster`. Called once a step, so that what is
        not said again fades; a gradient that was counted already, as when a step is proposed again, is not counted
        twice. Nothing where there is no critique now.
        """
        fresh: dict[str, float] = {}
        if parameter.grad is not None:
            for critique in parameter.grad.cluster().critiques:
                text = str.__str__(critique.text).strip()
                fresh[text] = fresh.get(text, 0.0) + critique.support * critique.agreement
        if not momentum:
            return fresh
        state = self.state[parameter]
        grad, folded = self._folded.get(parameter, (None, None))
        if grad is None or grad is not parameter.grad or state.get("critiques") is not folded:
            state["critiques"] = _averaged(fresh, state.get("critiques", {}), momentum)
            self._folded[parameter] = parameter.grad, state["critiques"]
        return dict(state["critiques"]) if fresh else {}

    def _failures(self, parameter: Parameter, critiques: Sequence[str]) -> list[dict[str, Any]]:
        """A few of the calls that the critiques are about, each with its inputs, outputs and feedback."""
        shown: list[dict[str, Any]] = []
        for critique in parameter.grad.critiques if parameter.grad is not None else ():
            if len(shown) == self.max_failures:
                break
            if str.__str__(critique.text).strip() in critiques and critique.evidence:
                shown.append({name: to_json(value) for name, value in critique.evidence.items()})
        return shown

    # -- what is learnt from the fate of a proposal -------------------------------------------------------------

    def _remember(self, parameter: Parameter, change: Change, *, alone: bool = True) -> None:
        if change.status == "accepted":
            self._forget(parameter, change.new)
        passed = change.verdict is not None and change.verdict.accepted
        if change.status != "rejected" or (passed and change.reason != REVERTED):
            return
        if change.reason == TWICE or change.reason.startswith(UNTRIED) or change.edit == 0:
            return
        if change.reason == REVERTED:
            self._reject(parameter, change.new, "taken back")
        elif change.reason == DROPPED:
            self._reject(parameter, change.new, "not tried", measured=False)
        elif change.verdict is not None:
            self._judged(parameter, change.new, change.verdict, alone=alone, useless=_is_useless(change.verdict))
        elif change.hunks and change.new is None:
            self._reject(parameter, "; ".join(map(str, change.hunks)), f"refused: {change.reason}", measured=False)
        elif isinstance(change.new, str):
            self._reject(parameter, change.new, f"refused: {change.reason}", measured=False)

    def _judged(self, parameter: Parameter, text: str, verdict: Verdict, *, alone: bool, useless: bool) -> None:
        """Remember what a measurement said; nothing where no pair could be compared."""
        if verdict.pairs:
            self._reject(parameter, text, _effect(verdict, alone=alone, useless=useless), measured=alone and useless)

    def _forget(self, parameter: Parameter, text: Any) -> None:
        """What is installed is no rejected text any more."""
        known = self.state[parameter].get("rejected", ()) if parameter in self.state else ()
        if any(entry["text"] == text for entry in known):
            self.state[parameter]["rejected"] = [entry for entry in known if entry["text"] != text]

    def _reject(self, parameter: Parameter, text: str, effect: str, *, measured: bool = True) -> None:
        """Remember a text and its effect.

        What was only refused by a rule may be proposed again, as rules move; so may what was measured only together
        with other changes, which may have done the harm, and what looked better and was not shown to be.
        """
        known = list(self.state[parameter].get("rejected", ()))
        old = next((entry for entry in known if entry["text"] == text), None)
        if not self.memory or (old is not None and old.get("measured") and not measured):
            return
        entry = {"text": text, "effect": effect, "measured": measured}
        self.state[parameter]["rejected"] = [*(each for each in known if each is not old), entry][-self.memory :]

    def _price(self, changes: Iterable[tuple[Parameter, Change]]) -> float:
        groups = dict(self.trained())
        return sum(
            price_of(change.old, change.new, float(groups[parameter]["length_price"]))
            for parameter, change in changes
            if change.status == "proposed"
        )

    def _notes(self, loss: Loss | None) -> list[str]:
        if loss is None or any(p.grad is not None and p.grad.critiques for p, _ in self.trained()):
            return []
        rows = [row for row in loss.rows if row.error is None]
        failed = sum(1 for row in rows if row.failed)
        if not failed:
            return []
        why = _whose(loss, seen=self._is_backward_seen())
        return [f"{failed} of {len(rows)} samples failed and nobody was blamed{why}"]

    # -- the managed search -------------------------------------------------------------------------------------

    async def fit(self, session: Session) -> None:
        """Take gated steps over training batches until the steps, the patience or the budget end."""
        self.state.clear()
        for scheduler in self._schedulers:
            scheduler.reset()
        known = places(session.model)
        trained = [(p, group) for p, group in self.trained() if (p.name or "") in known]
        own = session.program_lm()
        loader = DataLoader(
            session.train, batch_size=min(self.batch_size, len(session.train)), shuffle=True, seed=session.spawn("tgd")
        )
        epoch, batches = 0, iter(loader)
        idle = unblamed = back = taken = 0
        lineage = [session.incumbent]
        self._refused = Counter()
        with session.bar(self.steps, "TGD") as bar, self._told_why(session):
            for number in range(self.steps):
                batch = next(batches, None)
                if batch is None:
                    epoch += 1
                    loader.set_epoch(epoch)
                    batches = iter(loader)
                    batch = next(batches)
                base = lineage[max(0, len(lineage) - 1 - back)]
                report = await self._gated_step(session, number, base, batch, trained, known, own)
                for scheduler in self._schedulers:
                    scheduler.step(report)
                taken += 1
                gained = bool(report.accepted)
                idle = 0 if gained else idle + 1
                unblamed += bool(report.notes)
                back = back + 1 if report.notes else 0
                if gained:
                    lineage.append(session.incumbent)
                bar.advance(note=f"{'kept' if gained else 'no gain'}")
                if session.perfect() or idle >= self.patience:
                    why = f"{idle} steps without a gain" if idle else "every validation example is right"
                    session.decide("stop", reason=why)
                    break
        if unblamed:
            session.notes.append(f"in {unblamed} of {taken} steps samples failed and nobody was blamed")

    @contextmanager
    def _told_why(self, session: Session) -> Iterator[None]:
        """Note what became of the proposals of a search that found nothing, also where the budget ended it."""
        try:
            yield
        finally:
            if session.incumbent is session.base and self._refused:
                session.notes.append(_refusals(self._refused))

    async def _gated_step(
        self,
        session: Session,
        number: int,
        base: Candidate,
        batch: Sequence[Any],
        trained: Sequence[tuple[Parameter, Mapping[str, Any]]],
        known: Mapping[str, Place],
        own: LM | None,
    ) -> StepReport:
        """Rewrite the texts of `base` as they are criticised there; the best rewrite must beat the incumbent."""
        incumbent = session.incumbent
        saved = {parameter: parameter.grad for parameter, _ in trained}
        self._clear(trained)
        try:
            loss = await session.forward(base, batch, scope=f"step/{number}/forward")
            with session.scope(f"step/{number}/backward"):
                report = await session.backward(loss, [parameter for parameter, _ in trained])
            blamed = sum(1 for parameter, _ in trained if parameter.grad is not None and parameter.grad.critiques)
            session.decide("gradient", step=number, loss=loss.item(), parameters=blamed, skipped=len(report.skipped))
            if not blamed:
                return StepReport((), notes=tuple(self._notes(loss)))
            candidates = await self._rewritten(session, number, base, trained, known, own)
        finally:
            for parameter, grad in saved.items():
                parameter.grad = grad
        if not candidates:
            return StepReport(())
        changes = [self._changed(incumbent, candidate, trained) for candidate in candidates]
        prices = [self._price(changed) for changed in changes]
        races = await race(session, candidates, scope=f"step/{number}/race", confidence=self.gate, prices=prices)
        told: list[Change] = []
        for changed, result, price in zip(changes, races.results, prices, strict=True):
            won = result is races.winner
            verdict = _verdict(races.champion, result, price, accepted=won, confidence=self.gate, of=len(candidates))
            told += [replace(change.to("accepted" if won else "rejected"), verdict=verdict) for _, change in changed]
            if 0 < verdict.gain <= price:
                self._refused["it gained less than length_price charges for its length"] += 1
            if not won:
                alone = len(changed) == 1
                for parameter, change in changed:
                    self._judged(parameter, change.new, verdict, alone=alone, useless=result in races.hopeless)
        if races.winner is not None:
            session.promote(races.winner)
            session.offer(races.winner)
        installed = tuple(change for change in told if change.status == "accepted")
        return StepReport(installed, (installed or told)[0].verdict, proposals=tuple(told))

    def _changed(
        self, incumbent: Candidate, candidate: Candidate, trained: Sequence[tuple[Parameter, Mapping[str, Any]]]
    ) -> list[tuple[Parameter, Change]]:
        """What a candidate changes of the incumbent."""
        changed = []
        for parameter, _ in trained:
            path = parameter.name or ""
            old = incumbent.values.get(path, parameter.data)
            new = candidate.values.get(path, parameter.data)  # not named: as at the start, which may be a change back
            if new != old:
                changed.append((parameter, Change(path, parameter.kind, "proposed", "", old, new, parameter=parameter)))
        return changed

    def _clear(self, trained: Sequence[tuple[Parameter, Mapping[str, Any]]]) -> None:
        for parameter, _ in trained:
            parameter.grad = None

    async def _rewritten(
        self,
        session: Session,
        number: int,
        base: Candidate,
        trained: Sequence[tuple[Parameter, Mapping[str, Any]]],
        known: Mapping[str, Place],
        own: LM | None,
    ) -> list[Candidate]:
        """The base with its texts rewritten, in up to `proposals` ways."""
        session.admit(calls=len(trained) * self.proposals)
        told = self._tell(trained, self.proposals, session.rng("tgd", number))
        candidates: list[Candidate] = []
        with session.scope(f"step/{number}/propose"), session.model.candidate(dict(base.values)):
            jobs = [(variant, parameter, group) for variant in range(self.proposals) for parameter, group in trained]
            changes = await session.ask_all(
                [f"step/{number}/{variant}/{parameter.name}" for variant, parameter, _ in jobs],
                [
                    partial(
                        self._rewrite,
                        parameter,
                        group,
                        told[parameter][variant],
                        place=known[parameter.name or ""],
                        own=own,
                        variant=variant,
                    )
                    for variant, parameter, group in jobs
                ],
            )
        for variant in range(self.proposals):
            values: dict[str, Any] = {}
            for (turn, parameter, _), change in zip(jobs, changes, strict=True):
                if turn == variant and change is None:
                    self._refused["the language model gave no answer"] += 1
                if turn != variant or change is None or change.status == "untouched":
                    continue
                if change.status == "proposed":
                    values[parameter.name or ""] = change.new
                else:
                    self._refused[change.reason] += 1
                    self._remember(parameter, change)
                session.decide(
                    "proposal",
                    step=number,
                    variant=variant,
                    path=change.path,
                    text=change.new,
                    refused=change.reason if change.status == "rejected" else None,
                )
            if values:
                candidate = base.child(values, f"step {number}, rewrite {variant}")
                if all(candidate.key != other.key for other in (session.incumbent, *candidates)):
                    candidates.append(candidate)
        return candidates

    def expected_calls(self, plan: Any) -> list[tuple[str, float, bool]]:
        """Return the phases, each at most: forward, backward, proposals, races."""
        per, texts = plan.calls_per_example, len(self.trained())
        return [
            ("forward", self.steps * self.batch_size * per, False),
            ("backward", self.steps * self.batch_size * per, False),
            ("proposals", self.steps * self.proposals * texts, False),
            ("races", self.steps * self.proposals * plan.val * per, False),
        ]


@contextmanager
def _failing_as_lm() -> Iterator[None]:
    """Let a language model that raises an error of its own, such as a function, fail as one that cannot be reached."""
    try:
        yield
    except (PromptgradError, ImportError):
        raise
    except BaseException as error:
        if not aio.is_failure(error):
            raise
        raise LMError(f"{type(error).__name__}: {error}") from error


def _averaged(fresh: Mapping[str, float], old: Mapping[str, float], momentum: float) -> dict[str, float]:
    """The weights of now and those of before, faded; what says the same adds up, in the words of now."""
    texts = [*fresh, *(text for text in old if text not in fresh)]
    weights: dict[str, float] = {}
    for cluster in Gradient(Critique("", "", 0, "", text) for text in texts).clusters():
        said = [critique.text for critique in cluster.critiques]
        weight = sum(fresh.get(text, 0.0) + momentum * old.get(text, 0.0) for text in said)
        if weight >= FORGOTTEN or said[0] in fresh:
            weights[said[0]] = weight
    return {text: weights[text] for text in texts if text in weights}


def _rules(group: Mapping[str, Any], constraints: Iterable[Constraint | str]) -> list[str]:
    """What the proposer is told of the checks that its rewrite will have to pass."""
    rules = []
    if group["max_edit"] < 1:
        rules.append(f"change at most {group['max_edit']:.0%} of the words")
    if group["max_tokens"] is not None:
        rules.append(f"at most {group['max_tokens']} words and punctuation marks")
    if group["length_price"]:
        price = f"{group['length_price']:g}"
        rules.append(f"be short: each 100 words that are added must raise the score by more than {price}")
    for constraint in constraints:
        if isinstance(constraint, str):
            rules.append(" ".join(constraint.split()))
            continue
        told = (getattr(constraint, "__doc__", None) or "").strip().splitlines()
        if told:
            rules.append(told[0])
    return rules


def _whose(loss: Loss, *, seen: bool) -> str:
    """Why nobody was blamed, as far as the backward of this loss says, or whether there was one."""
    if loss.report is None and seen:
        return " (of the closure's batch): backward() reached other parameters, and the critic blamed no text or failed"
    if loss.report is None:
        return " (of the closure's batch; was backward() called, on a batch with failures?)"
    if loss.report.skipped:
        first = loss.report.skipped[0]
        count = len(loss.report.skipped)
        return f": {count} call{'' if count == 1 else 's'} got no critique, the first as {first.reason}"
    return ": the critic found every instruction right. Take the gradient at an earlier text, or ask another critic"


def _refusals(reasons: "Counter[str]") -> str:
    """Why proposals were refused, the most frequent reason first; reasons that differ in numbers only are one."""
    alike: dict[str, list[str]] = {}
    for reason in reasons.elements():
        alike.setdefault(re.sub(r"\d+", "0", reason), []).append(reason)
    most = sorted(alike.values(), key=lambda same: -len(same))
    count = reasons.total()
    told = "; ".join(f"{len(same)}x {same[0]}" for same in most[:3])
    more = f"; {sum(map(len, most[3:]))}x other reasons" if most[3:] else ""
    return f"{count} proposal{'' if count == 1 else 's'} refused: {told}{more}"


def _is_useless(verdict: Verdict) -> bool:
    """Whether a text gained nothing, or less than its length costs. What gained is at worst undecided."""
    return verdict.gain <= verdict.price


def _effect(verdict: Verdict, *, alone: bool, useless: bool) -> str:
    """What a measured proposal did, as the proposer is told."""
    more = "" if useless else "; undecided, it may come again"
    return f"{verdict.effect} on {verdict.pairs} pairs{'' if alone else ', with other changes'}{more}"


def _verdict(
    champion: Measured | None, result: Measured, price: float, *, accepted: bool, confidence: float, of: int
) -> Verdict:
    """How a race ended for one candidate."""
    before, after = ([], []) if champion is None else pairs(champion, result)
    count = len(before)
    if not count:
        return Verdict(accepted=accepted, confidence=confidence, price=price, of=of)
    low, high = paired_interval(before, after, level=max(2 * confidence - 1, 1e-9))
    first, second = sum(before) / count, sum(after) / count
    return Verdict(accepted, first, second, low, high, count, confidence, price=price, of=of)
