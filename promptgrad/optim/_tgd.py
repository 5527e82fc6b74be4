"""TGD: textual gradient descent, rewriting parameters as their critiques ask."""

import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from promptgrad import aio
from promptgrad.autograd import Gradient, Parameter
from promptgrad.autograd._gradient import plain
from promptgrad.data import DataLoader
from promptgrad.errors import LMError, NoLMError, ReplayError
from promptgrad.lm import LM, resolve, resolve_lm
from promptgrad.optim._candidate import Candidate
from promptgrad.optim._checks import Constraint, refusal
from promptgrad.optim._demos import Place, places
from promptgrad.optim._edit import edit_ratio
from promptgrad.optim._mipro import role
from promptgrad.optim._optimizer import Optimizer, Params
from promptgrad.optim._proposer import Improve, ImproveSolution, make_proposer, write
from promptgrad.optim._race import race
from promptgrad.optim._report import Change, Verdict
from promptgrad.optim._session import Session


class TGD(Optimizer):
    """Rewrite each text as its critiques ask.

    `loss.backward()` leaves critiques in `.grad`; `step()` counts equal ones, shows the proposer LM the text in full
    with the most frequent first, and checks its rewrite in code: placeholders kept, not empty, not tried before, at
    most `max_tokens` long, at most `max_edit` of its tokens edited, all constraints held. A rewrite that fails is
    rejected with its reason; nothing is repaired, and no parameter without a critique is touched.

    `step()` alone installs what passes the checks and says that it is not gated. `step(closure)` also measures it,
    see `Optimizer`. In `Trainer.fit` each step proposes `proposals` rewrites from one training batch, and they meet
    the present values on validation examples, block by block; the hopeless are dropped after each block.

    Shape: `.grad` holds one critique per failed example and call of the module, in batch order.
    Cost: one LM call a step for each parameter with a critique (one more for each re-ask of a reply that does not
    parse); none for the others.
    Source: Yuksekgonul et al. 2024, arXiv 2406.07496. Differs: a failed rewrite keeps the old text; critiques are
    counted as data; steps are gated; momentum averages critiques, instead of showing old values.

    Args:
        params: Parameters; texts (instructions, solutions, and descriptions that require a gradient) are trained.
        lm: LM that writes; None for that of the context or of `configure`, else the one that answered the blamed call;
            inside a trainer that of the program.
        max_edit: Largest accepted edit, as a share of the longer text's tokens; 1 accepts any.
        constraints: Rules for new texts: functions that return None, or why the text is refused.
        momentum: Share of a critique's weight that is kept from step to step, in [0, 1).
        max_critiques: Most critiques shown to the proposer.
        max_failures: Most failed calls shown besides; 0 for critiques alone.
        max_tokens: Longest text; None for no bound.
        memory: How many rejected rewrites are remembered for each parameter, shown to the proposer and not tried again.
        gate: Confidence that a gated step is an improvement, in [0.5, 1).
        steps: In `Trainer.fit`: most steps.
        batch_size: In `Trainer.fit`: training examples a step.
        proposals: In `Trainer.fit`: rewrites to try each step.
        patience: In `Trainer.fit`: steps without a gain after which it ends.
        temperature: In `Trainer.fit`: sampling temperature of the second and further rewrites of a step.

    Raises:
        ValueError: `max_edit` is not in (0, 1], `momentum` not in [0, 1), or a number is below one.
    """

    kinds = ("instruction", "description", "solution")

    def __init__(
        self,
        params: Params,
        lm: LM | str | None = None,
        *,
        max_edit: float = 1.0,
        constraints: Sequence[Constraint] = (),
        momentum: float = 0.0,
        max_critiques: int = 6,
        max_failures: int = 3,
        max_tokens: int | None = 1000,
        memory: int = 4,
        gate: float = 0.9,
        steps: int = 8,
        batch_size: int = 8,
        proposals: int = 3,
        patience: int = 4,
        temperature: float | None = 1.0,
    ) -> None:
        defaults = {
            "lm": lm,
            "max_edit": max_edit,
            "constraints": tuple(constraints),
            "momentum": momentum,
            "max_tokens": max_tokens,
        }
        for name, value in (
            ("max_critiques", max_critiques),
            ("steps", steps),
            ("batch_size", batch_size),
            ("proposals", proposals),
            ("patience", patience),
        ):
            if value < 1:
                raise ValueError(f"{name} is at least 1, not {value}")
        super().__init__(params, defaults, gate=gate)
        self.max_critiques = max_critiques
        self.max_failures = max_failures
        self.memory = memory
        self.steps = steps
        self.batch_size = batch_size
        self.proposals = proposals
        self.patience = patience
        self.temperature = temperature
        self.proposer = make_proposer(Improve, None)
        self.solver = make_proposer(ImproveSolution, None)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with options of their own: `lm`, `max_edit`, `constraints`, `momentum`, `max_tokens`.

        Raises:
            ValueError: As `Optimizer.add_param_group`; or an option is out of range.
            TypeError: The group holds something else than parameters.
        """
        options = {**self.defaults, **group}
        if not 0 < options["max_edit"] <= 1:
            raise ValueError(f"max_edit is a share of the text in (0, 1], not {options['max_edit']}")
        if not 0 <= options["momentum"] < 1:
            raise ValueError(f"momentum lies in [0, 1), not {options['momentum']}")
        super().add_param_group(group)

    # -- one step -----------------------------------------------------------------------------------------------

    async def _propose(self) -> list[tuple[Parameter, Change]]:
        trained = self.trained()
        changes = await aio.gather([partial(self._try_rewrite, parameter, group) for parameter, group in trained])
        return [(parameter, change) for (parameter, _), change in zip(trained, changes, strict=True)]

    async def _try_rewrite(self, parameter: Parameter, group: Mapping[str, Any]) -> Change:
        """One proposal, rejected where the language model gave no answer."""
        try:
            return await self._rewrite(parameter, group, own=self._writer(parameter, group))
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
        *,
        place: Place | None = None,
        own: LM | None = None,
        variant: int = 0,
        rng: random.Random | None = None,
    ) -> Change:
        """One proposal for one parameter. Variant 0 hears the weightiest critiques, each other a few drawn by `rng`."""
        path, old = parameter.name or "", parameter.data
        critiques = self._heard(parameter, float(group["momentum"]), fold=rng is None)
        if not critiques:
            reason = (
                "no gradient: nothing failed, the critic did not blame it, or backward() was not called"
                if parameter.grad is None
                else "no critique"
            )
            return Change(path, parameter.kind, "untouched", reason)
        if rng is None:
            critiques = critiques[: self.max_critiques]
        else:  # one critique alone, or a few: hypotheses that the majority would drown
            count = 1 if variant % 2 else min(self.max_critiques, max(1, len(critiques) // 2))
            critiques = [critiques[index] for index in sorted(rng.sample(range(len(critiques)), count))]
        rejected = list(self.state[parameter].get("rejected", ()))
        inputs = {
            "role": parameter.role or (role(place) if place is not None else path),
            "instruction": old,
            "critiques": critiques,
            "failures": self._failures(parameter, critiques),
            "rules": _rules(group),
            "rejected": rejected,
        }
        config: dict[str, Any] = {}
        if variant:
            config["replicate"] = variant
            if self.temperature is not None:
                config["temperature"] = self.temperature
        writer = resolve(group["lm"]) if group["lm"] is not None else own
        solution = parameter.kind == "solution"
        text, reason = await write(self.solver if solution else self.proposer, inputs, lm=writer, config=config)
        if text is None:
            return Change(path, parameter.kind, "rejected", reason, old)
        refused = refusal(
            old,
            text,
            max_edit=float(group["max_edit"]),
            max_tokens=group["max_tokens"],
            constraints=[*parameter.constraints, *group["constraints"]],
            tried=rejected,
            verbatim=solution,
        )
        edit = edit_ratio(old, text)
        if refused is not None:
            return Change(path, parameter.kind, "rejected", refused, old, text, edit)
        reason = f"{len(critiques)} critique{'' if len(critiques) == 1 else 's'}"
        return Change(path, parameter.kind, "proposed", reason, old, text, edit)

    def _heard(self, parameter: Parameter, momentum: float, *, fold: bool) -> list[str]:
        """The critiques of a parameter, equal ones counted, the weightiest first; older ones fade by `momentum`."""
        grad: Gradient = parameter.grad if parameter.grad is not None else Gradient()
        weights: dict[str, float] = {}
        for critique in grad.critiques:
            text = str.__str__(critique.text).strip()
            weights[text] = weights.get(text, 0.0) + critique.support
        if not weights:
            return []
        entry = self.state[parameter]
        if momentum:
            for text, weight in entry.get("critiques", {}).items():
                if momentum * weight >= 0.25:
                    weights[text] = weights.get(text, 0.0) + momentum * weight
            if fold:
                entry["critiques"] = dict(weights)
        order = {text: place for place, text in enumerate(weights)}
        return sorted(weights, key=lambda text: (-weights[text], order[text]))

    def _failures(self, parameter: Parameter, critiques: Sequence[str]) -> list[dict[str, Any]]:
        """A few of the calls that the critiques are about, each with its inputs, outputs and feedback."""
        shown: list[dict[str, Any]] = []
        for critique in parameter.grad.critiques if parameter.grad is not None else ():
            if len(shown) == self.max_failures:
                break
            if str.__str__(critique.text).strip() in critiques and critique.evidence:
                shown.append({name: plain(value) for name, value in critique.evidence.items()})
        return shown

    def _remember(self, parameter: Parameter, change: Change, verdict: Verdict | None) -> None:
        if change.status == "rejected" and isinstance(change.new, str):
            self._reject(parameter, change.new)

    def _reject(self, parameter: Parameter, text: str) -> None:
        if self.memory:
            rejected = [known for known in self.state[parameter].get("rejected", ()) if known != text]
            self.state[parameter]["rejected"] = [*rejected, text][-self.memory :]

    # -- the managed search -------------------------------------------------------------------------------------

    async def fit(self, session: Session) -> None:
        """Take gated steps over training batches until the steps, the patience or the budget end."""
        self.state.clear()
        known = places(session.model)
        trained = [(p, group) for p, group in self.trained() if (p.name or "") in known]
        own = session.program_lm()
        loader = DataLoader(
            session.train, batch_size=min(self.batch_size, len(session.train)), shuffle=True, seed=session.spawn("tgd")
        )
        epoch, batches = 0, iter(loader)
        idle = 0
        with session.bar(self.steps, "TGD") as bar:
            for number in range(self.steps):
                batch = next(batches, None)
                if batch is None:
                    epoch += 1
                    loader.set_epoch(epoch)
                    batches = iter(loader)
                    batch = next(batches)
                gained = await self._gated_step(session, number, batch, trained, known, own)
                idle = 0 if gained else idle + 1
                bar.advance(note=f"{'kept' if gained else 'no gain'}")
                if session.perfect() or idle >= self.patience:
                    why = f"{idle} steps without a gain" if idle else "every validation example is right"
                    session.decide("stop", reason=why)
                    break

    async def _gated_step(
        self,
        session: Session,
        number: int,
        batch: Sequence[Any],
        trained: Sequence[tuple[Parameter, Mapping[str, Any]]],
        known: Mapping[str, Place],
        own: LM | None,
    ) -> bool:
        incumbent = session.incumbent
        saved = {parameter: parameter.grad for parameter, _ in trained}
        self._clear(trained)
        try:
            loss = await session.forward(incumbent, batch, scope=f"step/{number}/forward")
            with session.scope(f"step/{number}/backward"):
                report = await session.backward(loss, [parameter for parameter, _ in trained])
            failed = sum(1 for parameter, _ in trained if parameter.grad is not None and parameter.grad.critiques)
            session.decide("gradient", step=number, loss=loss.item(), parameters=failed, skipped=len(report.skipped))
            if not failed:
                return False
            candidates = await self._candidates(session, number, incumbent, trained, known, own)
        finally:
            for parameter, grad in saved.items():
                parameter.grad = grad
        if not candidates:
            return False
        winner, hopeless = await race(session, candidates, scope=f"step/{number}/race", confidence=self.gate)
        for candidate in hopeless:
            for parameter, _ in trained:
                text = candidate.values.get(parameter.name or "")
                if text is not None and text != incumbent.values.get(parameter.name or ""):
                    self._reject(parameter, text)
        if winner is None:
            return False
        session.promote(winner)
        session.offer(winner)
        return True

    def _clear(self, trained: Sequence[tuple[Parameter, Mapping[str, Any]]]) -> None:
        for parameter, _ in trained:
            parameter.grad = None

    async def _candidates(
        self,
        session: Session,
        number: int,
        incumbent: Candidate,
        trained: Sequence[tuple[Parameter, Mapping[str, Any]]],
        known: Mapping[str, Place],
        own: LM | None,
    ) -> list[Candidate]:
        """The incumbent with its texts rewritten, in up to `proposals` ways."""
        session.admit(calls=len(trained) * self.proposals)
        candidates: list[Candidate] = []
        with session.scope(f"step/{number}/propose"), session.model.candidate(dict(incumbent.values)):
            jobs = [(variant, parameter, group) for variant in range(self.proposals) for parameter, group in trained]
            changes = await session.ask_all(
                [f"step/{number}/{variant}/{parameter.name}" for variant, parameter, _ in jobs],
                [
                    partial(
                        self._rewrite,
                        parameter,
                        group,
                        place=known[parameter.name or ""],
                        own=own,
                        variant=variant,
                        rng=session.rng("tgd", number, variant) if variant else None,
                    )
                    for variant, parameter, group in jobs
                ],
            )
        for variant in range(self.proposals):
            values: dict[str, Any] = {}
            for (turn, parameter, _), change in zip(jobs, changes, strict=True):
                if turn != variant or change is None or change.status == "untouched":
                    continue
                if change.status == "proposed":
                    values[parameter.name or ""] = change.new
                session.decide(
                    "proposal",
                    step=number,
                    variant=variant,
                    path=change.path,
                    text=change.new,
                    refused=change.reason if change.status == "rejected" else None,
                )
            if values:
                candidate = incumbent.with_values(values, f"step {number}, rewrite {variant}")
                if all(candidate.key != other.key for other in candidates):
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


def _rules(group: Mapping[str, Any]) -> list[str]:
    """What the proposer is told of the checks that its rewrite will have to pass."""
    rules = []
    if group["max_edit"] < 1:
        rules.append(f"change at most {group['max_edit']:.0%} of the words")
    if group["max_tokens"] is not None:
        rules.append(f"at most {group['max_tokens']} words and punctuation marks")
    for constraint in group["constraints"]:
        told = (getattr(constraint, "__doc__", None) or "").strip().splitlines()
        if told:
            rules.append(told[0])
    return rules
