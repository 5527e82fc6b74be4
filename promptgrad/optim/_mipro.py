"""MIPRO: Bayesian search over instructions and demos together."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from promptgrad.autograd import Kind
from promptgrad.data import Example
from promptgrad.errors import BudgetExceeded
from promptgrad.lm import LM, resolve
from promptgrad.optim._groups import Params
from promptgrad.optim._search import Search
from promptgrad.search import (
    SHRINK,
    TIPS,
    TPE,
    Candidate,
    DemoPool,
    Measured,
    Place,
    Point,
    ProposeInstruction,
    Rules,
    Session,
    bootstrap,
    check_counts,
    check_writer,
    describe,
    labeled_demos,
    make_proposer,
    role,
    write,
)


@dataclass(frozen=True)
class Dimension:
    """One categorical dimension of the search: the possible values of a parameter; choice 0 is the present one."""

    path: str
    kind: Kind
    choices: tuple[Any, ...]


class MIPRO(Search):
    """Search over instruction candidates and demo sets of all modules at once, with a Bayesian model.

    1. *Demo sets*: the present demos; none, if there are some; labelled examples; traces of successful runs on training
    data, in several seeded draws. The traces are made once and shared by all sets. 2. *Instructions*: a proposer LM
    writes candidates for each module from examples of its inputs and outputs, each
       time from other examples, in another style and as another sample. The present instruction stays among them.
    3. *Search*: a multivariate TPE proposes combinations. Each is scored on a minibatch of the validation data (the
       same for all trials of a round, so that they differ by merit and not by luck) and reported as a mean shrunken
       towards the start's. The first trial is the program as it is. After each round the combination with the best mean
       is scored on all validation data. Where the budget ends first, the best of the combinations so far goes to the
       confirmation with the minibatches it was scored on, if these put it above the start.

    A parameter with only one choice is left out: with `num_demo_sets=0` only instructions are searched, with
    `num_candidates=0` only demos. A choice parameter is searched once `choice.requires_grad_()` was called: choices do
    not require a gradient by default, and the result has a note on those that were left out for that reason.

    Cost: bootstrap runs on training data; `num_candidates` proposals for each instruction; `num_trials` minibatches
    and a full validation a round, less the cells that are stored already. `Trainer.plan()` gives the sum. Source:
    Opsahl-Ong et al. 2024, arXiv 2406.11695 (MIPROv2 as in DSPy). Differs: minibatches are shared within a round, means
    are shrunken before TPE sees them, proposals are checked in code and see no program source.

    Args:
        params: Parameters; instructions, demos and choices that require a gradient are searched.
        num_candidates: New instructions to propose for each module.
        num_demo_sets: Demo sets to draw for each module, besides the present one.
        num_trials: Combinations to try; None for max(2·dimensions·log2(choices), 1.5·choices).
        minibatch_size: Validation examples a trial is scored on.
        full_eval_every: Trials in a round.
        max_bootstrapped_demos: Most traces in a set.
        max_labeled_demos: Most labelled examples in a set of these alone.
        prompt_lm: LM that writes the instructions; None for that of the program.
        teacher: LM or program that makes the traces; None for the program itself.
        examples_shown: Number of examples that a proposer is shown.
        temperature: Sampling temperature of the second and further proposals; None for that of the LM.
        max_tokens: Longest instruction.
        constraints: Rules for new instructions: functions of the text that return None, or why it is refused.

    Raises:
        ValueError: A number is out of range.
        TypeError: A count is not a whole number, or `prompt_lm` is not a language model.
    """

    kinds = ("instruction", "demos", "choice")

    def __init__(
        self,
        params: Params,
        num_candidates: int = 6,
        num_demo_sets: int = 5,
        num_trials: int | None = None,
        minibatch_size: int = 25,
        full_eval_every: int = 5,
        max_bootstrapped_demos: int = 4,
        max_labeled_demos: int = 4,
        prompt_lm: LM | str | None = None,
        teacher: Any = None,
        *,
        examples_shown: int = 4,
        temperature: float | None = 1.0,
        max_tokens: int | None = 1000,
        constraints: Sequence[Any] = (),
    ) -> None:
        check_counts(
            num_candidates=(num_candidates, 0),
            num_demo_sets=(num_demo_sets, 0),
            num_trials=(1 if num_trials is None else num_trials, 1),
            minibatch_size=(minibatch_size, 1),
            full_eval_every=(full_eval_every, 1),
            max_bootstrapped_demos=(max_bootstrapped_demos, 0),
            max_labeled_demos=(max_labeled_demos, 0),
            examples_shown=(examples_shown, 1),
        )
        check_writer(prompt_lm, temperature)
        super().__init__(params)
        self.num_candidates = num_candidates
        self.num_demo_sets = num_demo_sets
        self.num_trials = num_trials
        self.minibatch_size = minibatch_size
        self.full_eval_every = full_eval_every
        self.max_bootstrapped_demos = max_bootstrapped_demos
        self.max_labeled_demos = max_labeled_demos
        self.prompt_lm = prompt_lm
        self.teacher = teacher
        self.examples_shown = examples_shown
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.constraints = tuple(constraints)
        self._rules = Rules(max_tokens=max_tokens, constraints=self.constraints)
        self.proposer = make_proposer(ProposeInstruction, None)

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
            written = await self._propose_all(session, instructions, pool)
            dimensions = [
                Dimension(d.path, d.kind, (*d.choices, *written[d.path])) if d.path in written else d
                for d in dimensions
            ]
        dimensions = [dimension for dimension in dimensions if len(dimension.choices) > 1]
        session.decide("space", dimensions={dimension.path: len(dimension.choices) for dimension in dimensions})
        if dimensions:
            await self._search(session, dimensions)
        else:
            session.notes.append("there was nothing to search: no parameter had more than one value to try")

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
        self, session: Session, targets: Sequence[Place], pool: DemoPool
    ) -> dict[str, tuple[str, ...]]:
        """New instructions for each module, written side by side."""
        program = describe(session.program())
        own = resolve(self.prompt_lm) if self.prompt_lm is not None else session.program_lm()
        jobs = [(place, index) for place in targets for index in range(self.num_candidates)]
        session.admit(calls=len(jobs))
        with session.scope("propose"):
            replies = await session.ask_all(
                [f"propose/{place.path}/{index}" for place, index in jobs],
                [partial(self._ask, session, place, index, pool, program, own) for place, index in jobs],
            )
        written: dict[str, list[str]] = {place.path: [] for place in targets}
        for (place, index), reply in zip(jobs, replies, strict=True):
            text, reason = reply if reply is not None else (None, "the language model gave no answer")
            if text is not None:
                rules = self._rules.after(place.parameter.constraints)
                reason = rules.refusal(session.value(place.path), text, tried=written[place.path]) or ""
                if reason.startswith("it was tried"):
                    reason = "it was proposed before"
            if reason:
                session.refuse(reason)
            elif text is not None:
                written[place.path].append(text)
            session.decide("proposal", path=place.path, number=index, text=text, refused=reason or None)
        return {path: tuple(texts) for path, texts in written.items() if texts}

    async def _ask(
        self, session: Session, place: Place, index: int, pool: DemoPool, program: str, own: LM | None
    ) -> tuple[str | None, str]:
        rng = session.rng("propose", place.path, index)
        shown = [example.to_dict() for example in self._evidence(session, place, pool, rng)]
        config: dict[str, Any] = {"replicate": index}
        if index and self.temperature is not None:
            config["temperature"] = self.temperature
        inputs = {
            "program": program,
            "role": role(place),
            "instruction": session.value(place.path),
            "examples": shown,
            "tip": TIPS[index % len(TIPS)],
        }
        return await write(self.proposer, inputs, lm=own, config=config)

    def _evidence(self, session: Session, place: Place, pool: DemoPool, rng: random.Random) -> list[Example]:
        """Examples of the module's inputs and right outputs.

        Labelled examples where they have the module's fields, else traces of runs that went right, else the inputs and
        labels of the program.
        """
        demos = labeled_demos(place.signature, session.train) or [
            demo
            for path, traces in pool.traces.items()
            if path.rpartition(".")[0] == place.module_path
            for demo in traces.values()
        ]
        if not demos:
            demos = [Example(example.to_dict()) for example in session.train]
        return rng.sample(demos, min(self.examples_shown, len(demos)))

    # -- the search ---------------------------------------------------------------------------------------------

    def trials(self, dimensions: Sequence[int]) -> int:
        """Number of trials for dimensions of these sizes."""
        if self.num_trials is not None:
            return self.num_trials
        most = max(dimensions, default=1)
        return int(max(2 * len(dimensions) * math.log2(max(2, most)), 1.5 * most))

    async def _search(self, session: Session, dimensions: Sequence[Dimension]) -> None:
        space = {dimension.path: len(dimension.choices) for dimension in dimensions}
        count = self.trials(list(space.values()))
        search = TPE(space, seed=session.spawn("tpe"), startup=max(3, count // 3))
        search.enqueue(dict.fromkeys(space, 0))
        known: dict[tuple[int, ...], Measured] = {}
        full: set[tuple[int, ...]] = set()
        start = tuple(0 for _ in dimensions)
        if session.baseline is not None:
            known[start] = session.baseline
            full.add(start)
        try:
            await self._trials(session, dimensions, search, known, full, count)
        except BudgetExceeded:
            best = _best(known, session) if known else start
            if best not in full and session.gain(known[best]) > 0:
                session.offer(known[best])  # without an event: a resumed run expects the end of the search here
            raise

    async def _trials(
        self,
        session: Session,
        dimensions: Sequence[Dimension],
        search: TPE,
        known: dict[tuple[int, ...], Measured],
        full: set[tuple[int, ...]],
        count: int,
    ) -> None:
        order = list(session.val)
        session.rng("minibatches").shuffle(order)
        size = min(self.minibatch_size, len(order))
        everything = {example.id for example in order}
        with session.bar(count, "MIPRO") as bar:
            for number in range(count):
                round_number, place = divmod(number, self.full_eval_every)
                if place == 0:
                    first = round_number * size % len(order)
                    minibatch = [order[(first + offset) % len(order)] for offset in range(size)]
                point = _next_point(session, search, known, full, minibatch, number)
                if point is None:
                    session.decide("stop", reason=f"all {search.size} combinations are known")
                    break
                candidate = _candidate(session, dimensions, point.choices, f"trial {number}")
                measured = await session.evaluate(candidate, minibatch, scope=f"trial/{number}/minibatch")
                search.tell(point, _shrunken(session, measured))
                if point.key not in full:
                    known[point.key] = _merged(known.get(point.key), measured)
                session.trial(measured, "minibatch", choices=dict(point.choices))
                if point.key not in full and everything <= set(known[point.key].ids):
                    full.add(point.key)
                    session.consider(known[point.key])
                best = _best(known, session)
                bar.advance(note=f"best {known[best].mean:.3f}")
                if place == self.full_eval_every - 1 or number == count - 1:
                    await self._full(session, dimensions, search, known, full, number)
                    if session.perfect():
                        session.decide("stop", reason="every validation example is right")
                        return
            else:
                return
            await self._full(session, dimensions, search, known, full, count)

    async def _full(
        self,
        session: Session,
        dimensions: Sequence[Dimension],
        search: TPE,
        known: dict[tuple[int, ...], Measured],
        full: set[tuple[int, ...]],
        number: int,
    ) -> None:
        """Score on all validation data the best of the combinations that have only been scored on minibatches."""
        open_points = {key: measured for key, measured in known.items() if key not in full}
        if not open_points:
            return
        key = _best(open_points, session)
        choices = dict(zip((dimension.path for dimension in dimensions), key, strict=True))
        candidate = _candidate(session, dimensions, choices, known[key].candidate.origin)
        measured = await session.evaluate(candidate, session.val, scope=f"trial/{number}/full")
        known[key] = measured
        full.add(key)
        search.add(choices, _shrunken(session, measured))
        session.trial(measured, "full", choices=choices)
        session.consider(measured)

    def expected_calls(self, plan: Any) -> list[tuple[str, float, bool]]:
        """Return the phases: bootstrap (at most), propose (exact), minibatches and full validations (at most)."""
        per = plan.calls_per_example
        kinds = [parameter.kind for parameter, _ in self.trained()]
        instructions, demos = sum(kind.is_text for kind in kinds), sum(kind.is_demos for kind in kinds)
        sizes = [self.num_candidates + 1] * instructions * bool(self.num_candidates)
        sizes += [self.num_demo_sets + 1] * demos * bool(self.num_demo_sets)
        options = [len(parameter.options or ()) for parameter, _ in self.trained()]
        sizes += [size for size in options if size > 1]
        count = self.trials(sizes) if sizes else 0
        rounds = math.ceil(count / self.full_eval_every)
        size = min(self.minibatch_size, plan.val)
        boot = plan.train if demos and self.num_demo_sets and self.max_bootstrapped_demos else 0
        return [
            ("bootstrap", boot * per, False),
            ("propose", instructions * self.num_candidates, True),
            (f"{count} minibatches of {size}", max(0, count - 1) * size * per, False),
            (f"{rounds} full validations of {plan.val}", rounds * plan.val * per, False),
        ]


def _next_point(
    session: Session,
    search: TPE,
    known: Mapping[tuple[int, ...], Measured],
    full: set[tuple[int, ...]],
    minibatch: Sequence[Example],
    number: int,
) -> Point | None:
    """The next point whose score on the minibatch is not known yet; None if there is none.

    In a small space the sampler repeats points. The known score of a repeated point is reported once more, which costs
    nothing, and another point is drawn; in the end any point that was never tried.
    """
    ids = {example.id for example in minibatch}
    for _ in range(10):
        point = search.ask()
        measured = known.get(point.key)
        if measured is None or (point.key not in full and not ids <= set(measured.ids)):
            return point
        search.tell(point, _shrunken(session, measured))
    rng = session.rng("unseen", number)
    for _ in range(100):
        choices = {path: rng.randrange(size) for path, size in search.space.items()}
        if tuple(choices.values()) not in known:
            search.enqueue(choices)
            return search.ask()
    return None


def _candidate(session: Session, dimensions: Sequence[Dimension], choices: Mapping[str, int], origin: str) -> Candidate:
    values = {
        dimension.path: dimension.choices[choices[dimension.path]]
        for dimension in dimensions
        if choices[dimension.path]
    }
    return session.base.child(values, origin) if values else session.base


def _merged(old: Measured | None, new: Measured) -> Measured:
    """The measurement of a combination over all minibatches it was scored on, each example once."""
    return new if old is None else old + new.without(old.ids)


def _shrunken(session: Session, measured: Measured) -> float:
    """The start's mean plus the candidate's paired gain, shrunken: comparable between minibatches of any difficulty."""
    if session.baseline is None:
        return measured.mean * len(measured.known) / (len(measured.known) + SHRINK)
    return session.baseline.mean + session.gain(measured)


def _best(known: Mapping[tuple[int, ...], Measured], session: Session) -> tuple[int, ...]:
    return max(known, key=lambda key: (session.gain(known[key]), -known[key].candidate.size))


BayesianSignatureOptimizer = MIPRO
