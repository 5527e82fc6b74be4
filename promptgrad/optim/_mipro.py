"""MIPRO: Bayesian search over instructions and demos together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from promptgrad._habits import refuses
from promptgrad.data import Example
from promptgrad.lm import LM, resolve
from promptgrad.optim._groups import Params
from promptgrad.optim._habits import MIPRO_HABITS
from promptgrad.optim._mipro_trials import Dimension, Trials
from promptgrad.optim._search import Search
from promptgrad.run import value_digest
from promptgrad.search import (
    TIPS,
    Candidate,
    DemoPool,
    Place,
    ProposeInstruction,
    Rules,
    Session,
    Study,
    attempted,
    bootstrap,
    check_counts,
    check_writer,
    describe,
    in_order,
    interface,
    make_proposer,
    role,
    sight,
    write,
)

Auto = Literal["light", "medium", "heavy"]
"""How much MIPRO does."""


@dataclass(frozen=True)
class _Size:
    """What DSPy does at one setting of `auto`: choices by dimension, and validation examples."""

    choices: int
    examples: int


SMALL = 50
"""With `auto`, as many validation examples or fewer are all in each minibatch."""

TRACES = 0.25
"""Share of a budget for the runs that make traces."""

LOOK = 0.33
"""Share of what is left for the runs that a proposer is shown."""

LEAST = 10
"""Validation runs that a budget shall pay for each new instruction, and the least of a minibatch that it cuts short."""

FEW_TRIALS = 3
"""Minibatches that a budget shall pay for: where it does not, they are smaller."""

_SIZES: dict[Auto, _Size] = {"light": _Size(6, 100), "medium": _Size(12, 300), "heavy": _Size(18, 1000)}


class MIPRO(Search):
    """Search over instruction candidates and demo sets of all modules at once, with a Bayesian model.

    1. *Demo sets*: the present demos; none, if there are some; labelled examples; traces of successful runs on training
       data, in several seeded draws. The traces are made once and shared by all sets.
    2. *Instructions*: the program runs on some training examples, and a proposer LM writes candidates for each module
       from these rows: what it was given, what it answers now, what is right, and the score; each time in another style
       and as another sample. The present instruction stays among them.
    3. *Search*: a multivariate TPE proposes combinations. Each is scored on a minibatch of the validation data (the
       same for all trials of a round, so that they differ by merit and not by luck) and reported as a mean shrunken
       towards the start's. The first trial is the program as it is. After each round the combination with the best mean
       is scored on all validation data.
    4. *Anew*: then the best combination so far runs on the training examples, and further instructions are written for
       it, with what was tried and how it scored. They join the choices, and the next round tries each of them first.

    Where the budget ends first, the best of the combinations so far goes to the confirmation with the minibatches it
    was scored on, if these put it above the start.

    A parameter with only one choice is left out: with `num_demo_sets=0` only instructions are searched, with
    `num_candidates=0` only demos. A choice parameter is searched once `choice.requires_grad_()` was called: choices do
    not require a gradient by default, and the result has a note on those that were left out for that reason.

    Cost: bootstrap runs on training data; `examples_shown` runs on training data and `num_candidates` proposals for
    each instruction, then as many runs and `num_rewrites` proposals after each round but the last; `num_trials`
    minibatches and a full validation a round, less the cells that are stored already. `Trainer.plan()` gives the sum.
    Source: Opsahl-Ong et al. 2024, arXiv 2406.11695 (MIPROv2 as in DSPy). Differs: minibatches are shared within a
    round, means are shrunken before TPE sees them, proposals see scores, are checked in code and see no program source,
    and more are written while the search goes on.

    Args:
        params: Parameters; instructions, demos and choices that require a gradient are searched.
        lm: LM that writes the instructions; None for that of the program.
        num_candidates: New instructions to propose for each module before the search; 6, or as `auto` says.
        num_demo_sets: Demo sets to draw for each module, besides the present one; 5, or as `auto` says.
        num_trials: Combinations to try; None for max(2·dimensions·log2(choices), 1.5·choices).
        minibatch_size: Validation examples a trial is scored on; 25, or 35 with `auto`.
        full_eval_every: Trials in a round.
        max_bootstrapped_demos: Most traces in a set.
        max_labeled_demos: Most labelled examples in a set of these alone.
        teacher: LM or program that makes the traces; None for the program itself.
        auto: DSPy's sizes: with "light", "medium" or "heavy" there are n = 6, 12 or 18 demo sets, half as many
            instructions (n without demos), trials for n choices, and at most 100, 300 or 1,000 validation examples.
            What is given besides goes before it.
        num_rewrites: New instructions for each module after each round but the last; 0 for none.
        storage: URL of an Optuna storage, such as "sqlite:///mipro.db", or a storage of Optuna's: the trials are
            copied there, for `optuna-dashboard`. The search never reads it, and a resumed run adds what is missing.
        examples_shown: Number of runs on training examples that a proposer is shown.
        temperature: Sampling temperature of the second and further proposals; None for that of the LM.
        max_tokens: Longest instruction.
        constraints: Rules for new instructions: functions of the text that return None, or why it is refused.

    Raises:
        ValueError: A number is out of range, or `auto` is unknown.
        TypeError: A count is not a whole number, or `lm` is not a language model; or an argument is unknown: for
            those of DSPy's MIPROv2 the message names the replacement.
    """

    kinds = ("instruction", "demos", "choice")

    @refuses(MIPRO_HABITS)
    def __init__(
        self,
        params: Params,
        lm: LM | str | None = None,
        num_candidates: int | None = None,
        num_demo_sets: int | None = None,
        num_trials: int | None = None,
        minibatch_size: int | None = None,
        full_eval_every: int = 5,
        max_bootstrapped_demos: int = 4,
        max_labeled_demos: int = 4,
        teacher: Any = None,
        *,
        auto: Auto | None = None,
        num_rewrites: int = 2,
        storage: Any = None,
        examples_shown: int = 24,
        temperature: float | None = 1.0,
        max_tokens: int | None = 1000,
        constraints: Sequence[Any] = (),
    ) -> None:
        if auto is not None and auto not in get_args(Auto):
            raise ValueError(f'auto is "light", "medium" or "heavy", or None, not {auto!r}')
        super().__init__(params)
        size = _SIZES[auto] if auto is not None else None
        given = (num_candidates, num_demo_sets, minibatch_size)
        usual = self._usual(size, num_demo_sets)
        self.num_candidates, self.num_demo_sets, self.minibatch_size = (
            default if number is None else number for number, default in zip(given, usual, strict=True)
        )
        check_counts(
            num_candidates=(self.num_candidates, 0),
            num_demo_sets=(self.num_demo_sets, 0),
            num_trials=(1 if num_trials is None else num_trials, 1),
            minibatch_size=(self.minibatch_size, 1),
            full_eval_every=(full_eval_every, 1),
            max_bootstrapped_demos=(max_bootstrapped_demos, 0),
            max_labeled_demos=(max_labeled_demos, 0),
            num_rewrites=(num_rewrites, 0),
            examples_shown=(examples_shown, 1),
        )
        check_writer(lm, temperature)
        self.auto = auto
        self.num_trials = num_trials
        self.full_eval_every = full_eval_every
        self.max_bootstrapped_demos = max_bootstrapped_demos
        self.max_labeled_demos = max_labeled_demos
        self.lm = lm
        self.teacher = teacher
        self.num_rewrites = num_rewrites
        self.examples_shown = examples_shown
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.constraints = tuple(constraints)
        self._size, self._storage = size, storage
        self._rules = Rules(max_tokens=max_tokens, constraints=self.constraints)
        self.proposer = make_proposer(ProposeInstruction, None)

    def _usual(self, size: _Size | None, num_demo_sets: int | None) -> tuple[int, int, int]:
        """The usual numbers of instructions and of demo sets, and the usual minibatch."""
        if size is None:
            return 6, 5, 25
        demos = num_demo_sets != 0 and any(parameter.kind.is_demos for parameter, _ in self.trained())
        return (size.choices // 2 if demos else size.choices), size.choices - 1, 35

    # -- the pools ----------------------------------------------------------------------------------------------

    async def fit(self, session: Session) -> None:
        """Bootstrap, propose, search; see the class."""
        fixed = session.places(("choice",), requires_grad=False)
        if fixed:
            paths = ", ".join(place.path for place in fixed)
            session.notes.append(
                f"the choice parameter{'s' if len(fixed) > 1 else ''} {paths} kept the value as requires_grad is "
                "False: call requires_grad_() on a choice that shall be searched"
            )
        instructions = session.places(("instruction",))
        pool = await self._bootstrap(session, [place.path for place in session.places(("demos",))])
        dimensions = []
        for place in session.places(self.kinds):
            path, kind, present = place.path, place.parameter.kind, session.value(place.path)
            if kind.is_demos:
                choices = self._demo_sets(session, pool, path, present)
            elif kind.has_options:
                choices = (present, *(option for option in place.parameter.options or () if option != present))
            else:
                choices = (present,)
            dimensions.append(Dimension(path, kind, choices))
        if instructions and self.num_candidates:
            written = await self._propose_all(
                session, instructions, session.base, range(self.num_candidates), "propose", {}
            )
            dimensions = [Dimension(d.path, d.kind, (*d.choices, *written.get(d.path, ()))) for d in dimensions]
        dimensions = [dimension for dimension in dimensions if len(dimension.choices) > 1]
        session.decide("space", dimensions={dimension.path: len(dimension.choices) for dimension in dimensions})
        if not dimensions:
            session.notes.append("there was nothing to search: no parameter had more than one value to try")
            return
        await self._search(session, dimensions, instructions)

    async def _bootstrap(self, session: Session, demos: Sequence[str]) -> DemoPool:
        """Traces for demo sets, and for proposals for modules whose fields the examples lack."""
        if not demos or not self.num_demo_sets or not self.max_bootstrapped_demos:
            return await bootstrap(session, demos, wanted=0, max_labeled=0)
        return await bootstrap(
            session,
            demos,
            wanted=2 * self.max_bootstrapped_demos,
            max_labeled=self.max_labeled_demos,
            teacher=self.teacher if self.teacher is not None else session.teacher,
            limit=session.share_of_runs(TRACES, len(session.train)),
        )

    def _demo_sets(
        self, session: Session, pool: DemoPool, path: str, present: tuple[Example, ...]
    ) -> tuple[tuple[Example, ...], ...]:
        """The present demos first, then up to `num_demo_sets` others, all different."""
        sets: list[tuple[Example, ...]] = [present]

        def add(demos: tuple[Example, ...]) -> None:
            if len(sets) <= self.num_demo_sets and demos not in sets:
                sets.append(demos)

        if present and self.num_demo_sets:
            add(())
        shots, labels = self.max_bootstrapped_demos, self.max_labeled_demos
        add(pool.draw(path, session.rng("demos", path, "labeled"), bootstrapped=0, total=labels))
        if pool.traces.get(path):
            add(pool.draw(path, None, bootstrapped=shots, total=min(shots, len(pool.traces[path]))))
        for index in range(3 * self.num_demo_sets):
            rng = session.rng("demos", path, index)
            count = rng.randint(1, max(1, shots, labels))
            traces = rng.randint(0, min(shots, count)) if pool.traces.get(path) else 0
            add(pool.draw(path, rng, bootstrapped=traces, total=count))
        return tuple(demos for index, demos in enumerate(sets) if index == 0 or demos or present)

    async def _propose_all(
        self,
        session: Session,
        targets: Sequence[Place],
        candidate: Candidate,
        samples: range,
        name: str,
        known: Mapping[str, Sequence[Any]],
    ) -> dict[str, tuple[str, ...]]:
        """New instructions for each module of a candidate, written side by side from its runs on training data."""
        await self._look(session, candidate, name)
        samples = samples[: session.share_of_runs(1 / LEAST, len(samples))]
        own = resolve(self.lm) if self.lm is not None else session.program_lm()
        jobs = [(place, index) for place in targets for index in samples]
        session.admit(calls=len(jobs))
        with session.scope(name):
            replies = await session.ask_all(
                [f"{name}/{place.path}/{index}" for place, index in jobs],
                [partial(self._ask, session, place, index, candidate, own) for place, index in jobs],
            )
        written: dict[str, list[str]] = {place.path: [] for place in targets}
        for (place, index), reply in zip(jobs, replies, strict=True):
            text, reason = reply if reply is not None else (None, "the language model gave no answer")
            if text is not None:
                tried = [*known.get(place.path, ()), *written[place.path]]
                rules = self._rules.after(place.parameter.constraints)
                reason = rules.refusal(session.value(place.path, candidate), text, tried=tried) or ""
                if reason.startswith("it was tried"):
                    reason = "it was proposed before"
            if reason:
                session.refuse(reason)
            elif text is not None:
                written[place.path].append(text)
            session.decide("proposal", path=place.path, number=index, text=text, refused=reason or None)
        return {path: tuple(texts) for path, texts in written.items() if texts}

    async def _look(self, session: Session, candidate: Candidate, name: str) -> None:
        """Run a candidate on training examples, until as many of its runs are known as a proposer is shown."""
        texts = session.places(("instruction",))
        seen = {row.example for place in texts for row in session.rows.of(place, candidate)}
        order = list(session.train)
        session.rng("look").shuffle(order)
        fresh = [example for example in order if example.id not in seen]
        missing = fresh[: session.share_of_runs(LOOK, max(0, self.examples_shown - len(seen)))]
        if missing:
            loss = await session.forward(candidate, missing, scope=f"{name}/look")
            session.decide("looked", candidate=candidate.key, examples=len(loss.rows), loss=loss.item())

    async def _ask(
        self, session: Session, place: Place, index: int, candidate: Candidate, own: LM | None
    ) -> tuple[str | None, str]:
        config: dict[str, Any] = {"replicate": index}
        if index and self.temperature is not None:
            config["temperature"] = self.temperature
        rows, (attempts, worse) = session.rows.of(place, candidate), attempted(session, place, candidate)
        inputs = {
            "program": describe(session.program(candidate)),
            "role": role(place),
            "interface": interface(place),
            "instruction": session.value(place.path, candidate),
            "rules": self._rules.after(place.parameter.constraints).shown(),
            "attempts": attempts,
            "worse": worse,
            "rows": in_order(rows[: self.examples_shown], media=sight(self.proposer, own, session.program_lm())),
            "tip": TIPS[index % len(TIPS)],
        }
        return await write(self.proposer, inputs, lm=own, config=config)

    # -- the search ---------------------------------------------------------------------------------------------

    async def _search(self, session: Session, dimensions: Sequence[Dimension], instructions: Sequence[Place]) -> None:
        rows = list(session.val)
        session.rng("minibatches").shuffle(rows)
        rows = rows[: self._size.examples] if self._size is not None else rows
        count = self.trials([len(dimension.choices) for dimension in dimensions])
        size = self._minibatch(len(rows))
        size = min(size, max(LEAST, session.share_of_runs(1 / FEW_TRIALS, size)))
        trials = Trials(session, dimensions, count, rows, size, self.full_eval_every)
        places = [place for place in instructions if any(d.path == place.path for d in dimensions)]
        rewrites = self.num_rewrites if self.num_candidates else 0

        async def write_anew(number: int, best: Candidate) -> Mapping[str, Sequence[str]]:
            if not places or not rewrites:
                return {}
            known = {dimension.path: dimension.choices for dimension in trials.dimensions}
            first = self.num_candidates + number * rewrites
            samples = range(first, first + rewrites)
            return await self._propose_all(session, places, best, samples, f"rewrite/{number}", known)

        if self._storage is not None:
            more = rewrites * (self._rounds(count) - 1)
            texts = {place.path for place in places}
            slots = {d.path: len(d.choices) + more * (d.path in texts) for d in dimensions}
            ids = [[example.id for example in part] for part in (session.train, session.val)]
            run = value_digest([self.config(), session.seed, session.base.key, *ids, slots])
            trials.study = Study(self._storage, f"MIPRO {run[:12]}", slots)
            trials.describe()
        await trials.run(write_anew)
        if trials.study is not None and trials.study.failure is not None:
            session.notes.append(f"the copy of the trials for Optuna is incomplete: {trials.study.failure}")

    def trials(self, dimensions: Sequence[int]) -> int:
        """Number of trials for dimensions of these sizes."""
        if self.num_trials is not None:
            return self.num_trials
        most = max(dimensions, default=1) if self._size is None else self._size.choices
        return int(max(2 * len(dimensions) * math.log2(max(2, most)), 1.5 * most))

    def _minibatch(self, examples: int) -> int:
        """Examples in a minibatch: all of them in a small validation set of `auto`, as in DSPy."""
        return examples if self._size is not None and examples <= SMALL else min(self.minibatch_size, examples)

    def _rounds(self, count: int) -> int:
        return math.ceil(count / self.full_eval_every)

    def expected_demos(self) -> tuple[int, int]:
        """Return the most traces, and the most demos."""
        return (
            (self.max_bootstrapped_demos, max(self.max_bootstrapped_demos, self.max_labeled_demos))
            if self.num_demo_sets
            else (0, 0)
        )

    def expected_calls(self, plan: Any) -> list[tuple[str, float, bool]]:
        """Return the phases, each at most: bootstrap, runs to learn from, proposals, minibatches, full validations."""
        per = plan.calls_per_example
        kinds = [parameter.kind for parameter, _ in self.trained()]
        instructions, demos = sum(kind.is_text for kind in kinds), sum(kind.is_demos for kind in kinds)
        sizes = [self.num_candidates + 1] * instructions * bool(self.num_candidates)
        sizes += [self.num_demo_sets + 1] * demos * bool(self.num_demo_sets)
        options = [len(parameter.options or ()) for parameter, _ in self.trained()]
        sizes += [size for size in options if size > 1]
        count = self.trials(sizes) if sizes else 0
        rounds = self._rounds(count)
        val = min(plan.val, self._size.examples) if self._size is not None else plan.val
        size = self._minibatch(val)
        boot = plan.train if demos and self.num_demo_sets and self.max_bootstrapped_demos else 0
        written = bool(instructions and self.num_candidates)
        again = max(0, rounds - 1) if written and self.num_rewrites else 0
        looks = (written + again) * min(plan.train, self.examples_shown)
        texts = instructions * (self.num_candidates + again * self.num_rewrites)
        return [
            ("bootstrap", boot * per, False),
            ("runs to learn from", looks * per, False),
            ("propose", texts, not again),
            (f"{count} minibatches of {size}", max(0, count - 1) * size * per, False),
            (f"{rounds} full validations of {val}", rounds * val * per, False),
        ]


BayesianSignatureOptimizer = MIPRO
