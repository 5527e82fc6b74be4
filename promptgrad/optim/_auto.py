"""Auto: looks first, then spends the budget on what pays: texts, demos and choices, one search for all."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from promptgrad._habits import refuses
from promptgrad.autograd import Gradient
from promptgrad.data import Example
from promptgrad.lm import LM
from promptgrad.optim._chain_arm import ChainArm
from promptgrad.optim._groups import Params
from promptgrad.optim._habits import AUTO_HABITS
from promptgrad.optim._search import Search
from promptgrad.search import (
    Arm,
    Attempts,
    Candidate,
    ChoiceArm,
    DemosArm,
    Measured,
    MergeArm,
    ReviseArm,
    Rewriter,
    Rules,
    Session,
    Step,
    TextArm,
    chance,
    check_counts,
    check_writer,
    meet,
    pairs,
    reviser_for,
    sift,
    untie,
)

GAINS = {"text": 0.3, "demos": 0.15, "choice": 0.1, "merge": 0.03}
"""What an arm is expected to gain with its first 60 calls."""

STEPS = 60
"""Steps of a search without a budget of calls."""

PATIENCE = 12
"""Steps in a row without a new incumbent that end a search without a budget, or without a new candidate any."""

SURE = 0.55
"""Probability of being better from which on a candidate becomes the incumbent: the search may err, the ending not."""


LOOK = 0.15
"""Share of the budget for the runs on training examples with which a candidate's first visit begins."""

SECOND = 0.5
"""Share of the best arm's gain per call from which on the best of another kind is pulled as well."""

MEETINGS = 4
"""Full meetings of one candidate that the budget shall pay for; where it does not, they end earlier."""

SHRINK = 8
"""Examples without a gain that are averaged into what an arm's candidate gained."""

ENTRY = 12
"""Validation runs that each candidate of a meeting takes on average before it leaves."""

LEAST = 10
"""Validation runs without which a step is not worth its proposals, and the least that a pull costs."""

ASKED = (1, 1, 2, 4)
"""How many times `proposals` texts are written in a step, until one is right where its parent is wrong."""

TRIED = (2, 3)
"""Training examples that the parent fails on which such texts are tried, block by block."""

FEW_RUNS = 250
"""Runs of the program below which a budget pays for two texts of a place in a step, not for all, and for no sifting."""


class Auto(Search):
    """Improve texts, demos and choices in one search that spends its budget on what pays: the default optimizer.

    It has *arms*, ways of making candidates from the incumbent: rewrite the text; draw demos; try another option of a
    choice; take a value from another good candidate. Where several texts may be to blame, one writer sees whole runs
    and rewrites those that it blames (`Revise`), and the first time each text is also written by itself. For LMs that
    know only their own tasks, and where the run has a critic (`Trainer(critic=...)`), a critic divides the blame
    instead, and the arms rewrite one text, or all of them, each from runs under those rewritten before it. A step pulls
    the arm that has paid most gain per call, and the best of another kind if it pays at least half as much.

    1. *Rows*. Writers see everything known at the present values, side by side: runs on training examples, and the
       labels of those that were not run. The first visit of a candidate takes up to `rows` runs, fewer if the budget is
       small; each further visit adds some.
    2. *Candidates*. All texts of a step are written side by side, the first of a candidate at the temperature of the
       LM, all others sampled and with a tip, so that no request is sent twice. With a budget of more than 250 runs
       they are tried on five training examples that the candidate fails, and more are written, until one is right on
       all five or 30 % of what is left is spent; the best `proposals` go on (`search.sift`). From the start, demos are
       tried on two of the new texts and without one. New candidates meet the incumbent on validation examples, block by
       block; those that fall behind, or behind their best sibling, leave, and so does the worse half of the others.
    3. *Promotion*. The best of those that kept up becomes the incumbent if it is more likely better than not. Where
       validation examples leave that open and the budget allows, both are run on all training examples that their demos
       do not show, which count as well, and serve as rows of the next proposal.
    4. *Plateaus*. After three steps without a new incumbent every second step starts from another candidate, drawn by
       what the standings believe of it. The search ends when the budget does, when the incumbent is right on all
       validation examples, or nothing new comes; without a budget of calls also after `patience` steps without a new
       incumbent. The last part of a budget is kept to measure the incumbent on the validation examples that it lacks.

    Whether the result is better than the start is decided by the trainer, on validation examples alone, which no writer
    ever sees. With `lm` a stronger model writes; it is worth it, as only a few calls of a hundred are its own.

    Cost in `Trainer.fit`: for each step up to `rows` runs of the program on training examples, one to eight times
    `proposals` LM calls for writing and two to five runs for each text written, and runs on validation examples: most
    candidates leave after the first block of ten.
    Source: ways are compared by what they paid as in a multi-armed bandit; for instructions see Lin et al. 2024, arXiv
    2310.02905 (INSTINCT), here by a rule without chance. Reflection on rows is that of GEPA (Agrawal et al. 2025,
    arXiv 2507.19457), with all rows instead of three; demos are drawn as in Khattab et al. 2023, arXiv 2310.03714.

    Args:
        params: Parameters; texts, demos and choices that require a gradient are trained.
        lm: LM that writes; None for that of the program.
        steps: Most steps; None for 60, or for as many as a budget of calls allows.
        rows: Most training examples that a candidate is run on when it is visited first.
        batch_size: Training examples that each further visit of a candidate adds.
        proposals: Texts written for one place in a step.
        demos: Numbers of demos to try, the first one first; empty for no demos.
        patience: Steps in a row without a new incumbent after which the search ends; None for 12, or for no such end
            with a budget of calls.
        temperature: Sampling temperature of the second and further proposals; None for that of the LM.
        rules: What new texts must satisfy.

    Raises:
        ValueError: A number is out of range.
        TypeError: A count is not a whole number, or `lm` is not a language model; or an argument is unknown.
    """

    kinds = ("is_text", "is_demos", "has_options")

    @refuses(AUTO_HABITS)
    def __init__(
        self,
        params: Params,
        lm: LM | str | None = None,
        *,
        steps: int | None = None,
        rows: int = 24,
        batch_size: int = 8,
        proposals: int = 3,
        demos: Sequence[int] = (8, 4, 16),
        patience: int | None = None,
        temperature: float | None = 1.0,
        rules: Rules = Rules(),  # noqa: B008 - frozen
    ) -> None:
        check_counts(
            steps=(STEPS if steps is None else steps, 1),
            rows=(rows, 1),
            batch_size=(batch_size, 1),
            proposals=(proposals, 1),
        )
        check_counts(
            patience=(PATIENCE if patience is None else patience, 1),
            **{f"demos[{n}]": (size, 1) for n, size in enumerate(demos)},
        )
        check_writer(lm, temperature)
        super().__init__(params)
        self.lm, self.steps, self.rows, self.batch_size, self.proposals = lm, steps, rows, batch_size, proposals
        self.demos, self.patience, self.temperature, self.rules = tuple(demos), patience, temperature, rules

    async def fit(self, session: Session) -> None:
        """Look, then pull arms until the budget, a plateau or perfection ends the search; see the class."""
        self.state.clear()
        course = Course(self, session)
        patience = self.patience
        if patience is None and session.ledger.budget.calls is None:
            patience = PATIENCE
        try:
            for step in session.steps(session.most_steps(self.steps, STEPS), "Auto", patience=patience):
                if not course.goes_on():
                    if course.dry < PATIENCE:
                        last, next_ = f"step {step.number - 1}", "another step"
                        if not step.number:
                            last, next_ = "the start", "a step of Auto"
                        left = int(session.runs_left())
                        session.notes.append(
                            f"the budget leaves {left} runs of the program after {last}, too few for {next_}"
                        )
                    await course.finish(step)
                    break
                await course.step(step)
        finally:
            course.offer()

    def expected_demos(self) -> tuple[int, int]:
        """Return the most traces, and the most demos."""
        return max(self.demos, default=0), max(self.demos, default=0)

    def expected_calls(self, plan: Any) -> list[tuple[str, float, bool]]:
        """Return the phases, each at most: runs on training examples, critiques, proposals, meetings."""
        kinds = [parameter.kind for parameter, _ in self.trained()]
        texts = sum(kind.is_text for kind in kinds)
        per, most = plan.calls_per_example, 2 * max(self.proposals, 2) + 2
        steps = self.steps or STEPS
        written = self.proposals * sum(ASKED) * (texts > 0)
        runs = steps * (self.rows + max(0, texts - 1) * self.rows + 4 * plan.train + sum(TRIED) * written)
        phases = {
            "runs on training examples": runs * per,
            "critiques": runs * per * max(1, texts) * (texts > 1),
            "proposals": steps * (2 * texts * self.proposals + written),
            "meetings": steps * (1 + most) * plan.val * per,
        }
        return [(name, calls, False) for name, calls in phases.items() if calls]


class Course:
    """One search of `Auto`: its arms, and what it knows of candidates on training examples."""

    def __init__(self, auto: Auto, session: Session) -> None:
        self.auto = auto
        self.session = session
        self.texts = session.places(("is_text",))
        self.rewriter = Rewriter(
            Attempts(auto.state, 8),
            rules=auto.rules,
            lm=auto.lm,
            temperature=auto.temperature,
            labeled=session.train,
        )
        runs = session.runs_left()
        self.first = min(auto.rows, max(auto.batch_size, _whole(LOOK * runs, auto.rows)))
        self.sifts = runs >= FEW_RUNS
        self.proposals = auto.proposals if self.sifts else min(2, auto.proposals)
        demos = session.places(("is_demos",))
        reviser = None if session.critic is not None else reviser_for(session, self.texts, auto.lm)
        self.writers: list[Arm] = []
        if reviser is not None:
            self.writers = [ReviseArm(self.texts, self.rewriter, reviser, gain=GAINS["text"])]
        else:
            self.writers = [ChainArm(self, gain=GAINS["text"])] if len(self.texts) > 1 else []
            self.writers += [TextArm(place, self.rewriter, gain=GAINS["text"]) for place in self.texts]
        self.divides = reviser is None and len(self.texts) > 1 and session.needs_critic(self.texts)
        self.arms = list(self.writers)
        self.pool = DemosArm(session, demos, auto.demos, gain=GAINS["demos"])
        self.arms += [self.pool] if demos and auto.demos else []
        self.arms += [ChoiceArm(place, gain=GAINS["choice"]) for place in session.places(("has_options",))]
        self.arms += [MergeArm(session.places(auto.kinds), gain=GAINS["merge"])]
        self.trained: dict[str, Measured] = {}
        self.sifted = set[str]()
        self.idle = self.dry = 0

    # -- a step -------------------------------------------------------------------------------------------------

    async def step(self, step: Step) -> None:
        """Pull the arms that pay best, let their candidates meet the incumbent, and promote the best of them."""
        session, before = self.session, self.session.ledger.spent.calls
        parent, arms = self.parent(step), self.chosen()
        if not self.trained or any(arm in self.writers for arm in arms):
            await self.observe(step, parent, "forward")
        made = self.entering(await self.pulled(step, parent, arms))
        shared = (session.ledger.spent.calls - before) / len(arms)
        candidates = [child for arm in arms for child in made[arm]]
        self.dry = 0 if candidates else self.dry + 1
        depth, old = self.depth(), session.incumbent
        kept = await meet(session, candidates, scope=step.scope("meet"), depth=depth) if candidates else []
        gained = {arm: [self.gain(child) for child in made[arm]] for arm in arms}
        await self.judge(step, kept)
        self.idle = 0 if session.incumbent is not old else self.idle + 1
        for arm in arms:
            runs = sum(len(known.ids) for child in made[arm] if (known := session.standings.of(child)) is not None)
            arm.credit(max([0.0, *gained[arm]]), max(shared + session.cost_per_example.calls * runs, LEAST))
        rates = {arm.name: round(arm.rate, 9) for arm in self.arms}
        session.decide("arms", step=step.number, pulled=[arm.name for arm in arms], rates=rates)

    async def pulled(self, step: Step, parent: Candidate, arms: Sequence[Arm]) -> dict[Arm, list[Candidate]]:
        """The new candidates of some arms. From the start, demos are tried on new texts and without."""
        session, made = self.session, dict[Arm, list[Candidate]]()
        seen, bases = {session.base.key}, [parent]
        for arm in arms:
            if arm in self.writers:
                found = await self.written(step, parent, arm)
            else:
                found = [one for base in bases for one in await arm.make(step, base, -(-2 // len(bases)))]
            made[arm] = [one for one in found if one.key not in seen and session.standings.of(one) is None]
            seen |= {one.key for one in made[arm]}
            if arm in self.writers and parent is session.base:
                bases = [*made[arm][:1], parent, *made[arm][1:2]]
        return made

    async def written(self, step: Step, parent: Candidate, arm: Arm) -> list[Candidate]:
        """New texts: the best by training examples that their parent fails, see `sift`."""
        session, before = self.session, self.trained.get(parent.key)
        if before is None or not self.sifts or isinstance(arm, ChainArm):
            return await arm.make(step, parent, self.proposals)

        async def ask(number: int, count: int) -> list[Candidate]:
            made = await arm.make(step.part(f"again/{number}") if number else step, parent, count)
            made = [one for one in made if one.key not in self.sifted]
            self.sifted.update(one.key for one in made)
            return made

        before = before.without(self.leaked(parent))
        scope, count = step.scope("sift"), self.proposals
        kept = await sift(session, ask, before, scope=scope, count=count, rounds=ASKED, blocks=TRIED)
        self.sifted -= {one.key for one in kept}
        return kept

    def entering(self, made: Mapping[Arm, Sequence[Candidate]]) -> dict[Arm, list[Candidate]]:
        """As many of the candidates, by turns of the arms, as the budget pays for beside one full measurement."""
        turns = [(arm, child) for turn in zip_longest(*made.values()) for arm, child in zip(made, turn, strict=True)]
        found = [(arm, child) for arm, child in turns if child is not None]
        most = max(1, _whole((self.session.runs_left() - self.depth()) / ENTRY, len(found)))
        return {arm: [child for owner, child in found[:most] if owner is arm] for arm in made}

    def goes_on(self) -> bool:
        """Whether the budget pays for another step, and for measuring the incumbent on all validation examples."""
        session = self.session
        if self.dry >= PATIENCE:
            session.notes.append(f"{self.dry} steps brought nothing new")
            return False
        step = self.auto.batch_size + self.proposals / session.cost_per_example.calls + LEAST
        return session.runs_left() >= step + len(self.lacking())

    def lacking(self) -> list[Example]:
        """The validation examples on which the incumbent was not run."""
        known = self.session.standings.of(self.session.incumbent)
        ids = known.by_id() if known is not None else {}
        return [example for example in self.session.val if example.id not in ids]

    async def finish(self, step: Step) -> None:
        """Measure the incumbent on the validation examples that it lacks, as far as the budget goes."""
        session = self.session
        lacking = self.lacking()[: _whole(session.runs_left(), len(session.val))]
        if lacking:
            await step.evaluate(session.incumbent, lacking)

    def chosen(self) -> list[Arm]:
        """The arm that pays best, and the best of another kind if it pays at least half as much."""
        first, *others = sorted(self.arms, key=lambda arm: -arm.rate)
        second = next((arm for arm in others if not {first, arm} <= set(self.writers)), first)
        return [first] + [second] * (second is not first and second.rate >= SECOND * first.rate)

    def parent(self, step: Step) -> Candidate:
        """The incumbent; on a plateau by turns another candidate that may well be better than it seems."""
        session = self.session
        if self.idle < 3 or self.idle % 2 == 0:
            return session.incumbent
        drawn = [(one.gain + one.sd * step.rng.gauss(0, 1), one.candidate) for one in session.standings.posterior()]
        return max(drawn, key=lambda entry: entry[0])[1] if drawn else session.incumbent

    def depth(self) -> int:
        """Validation examples of a meeting, so that the budget is good for several more."""
        return min(len(self.session.val), max(20, _whole(self.session.runs_left() / MEETINGS, len(self.session.val))))

    def gain(self, candidate: Candidate) -> float:
        """What a candidate gained over the incumbent, shrunken by some examples without a gain."""
        champion, measured = (self.session.standings.of(one) for one in (self.session.incumbent, candidate))
        if champion is None or measured is None:
            return 0.0
        before, after = pairs(champion, measured)
        return (sum(after) - sum(before)) / (len(after) + SHRINK)

    # -- training examples ----------------------------------------------------------------------------------------

    async def observe(self, step: Step, candidate: Candidate, what: str, wanted: int | None = None) -> None:
        """Run a candidate on training examples that it was not run on, for its rows and as further evidence.

        A candidate is first run on `first` of them, and at each further visit on a batch.
        Examples that its demos show are left out while there are others: it knows their answers.
        """
        session = self.session
        known = self.trained.get(candidate.key)
        ids = set(known.ids) if known is not None else set()
        if wanted is None:
            wanted = self.auto.batch_size if ids else self.first
        out = ids | self.leaked(candidate) | session.unanswered.rows(candidate.key)
        left = [example for example in session.train if example.id not in out]
        session.rng("observe", candidate.key, len(ids)).shuffle(left)
        batch = left[:wanted]
        if not batch:
            return
        loss = await session.forward(candidate, batch, scope=step.scope(what))
        measured = step.measured(candidate, loss)
        self.trained[candidate.key] = measured if known is None else known + measured
        if self.divides:
            program = session.program(candidate)
            parameters = {place.path: program.get_parameter(place.path) for place in self.texts}
            with session.scope(step.scope(f"{what}/backward")):
                found = await session.gradients(loss, list(parameters.values()))
            session.rows.add(candidate, loss, {path: found.get(one, Gradient()) for path, one in parameters.items()})

    def leaked(self, candidate: Candidate) -> set[str]:
        """The training examples that a candidate's demos show."""
        return {key for place in self.pool.places for key in self.pool.shown(self.session.value(place.path, candidate))}

    # -- decisions ------------------------------------------------------------------------------------------------

    async def judge(self, step: Step, kept: Sequence[Candidate]) -> None:
        """Promote the best of those that kept up, if it is likely to be better than the incumbent.

        Where validation examples leave it open and the budget allows, both are run on training examples as well. These
        only choose among candidates: whether the result is better than the start is decided on validation data alone.
        """
        session, standings = self.session, self.session.standings
        champion = session.incumbent

        async def asked(candidate: Candidate, scope: str) -> Measured | None:
            await self.observe(step, candidate, scope, len(session.train))
            return self.pooled(candidate)

        known = [(one, chance(standings.of(champion), standings.of(one)), 0.0) for one in kept]
        rivals = sorted(known, key=lambda rival: -rival[1])[:2]
        chances = await untie(session, champion, rivals, scope="tie", asked=asked)
        for (best, *_), likely in sorted(zip(rivals, chances, strict=True), key=lambda found: -found[1])[:1]:
            measured = standings.of(best)
            if measured is not None and likely > SURE:
                session.trial(measured, f"{likely:.0%} better")
                session.promote(measured)

    def pooled(self, candidate: Candidate) -> Measured | None:
        """All that is known of a candidate, on validation and training examples."""
        measured, trained = self.session.standings.of(candidate), self.trained.get(candidate.key)
        leaked = self.leaked(candidate)
        trained = trained.without(leaked) if trained is not None else None
        return trained if measured is None else measured if trained is None else measured + trained

    def offer(self) -> None:
        """Offer all that is believed to gain: what has come far by many steps may be too doubtful to ship."""
        for one in self.session.standings.posterior():
            if one.gain > 0:
                self.session.offer(one.measured)


def _whole(number: float, most: int) -> int:
    """A number as a whole one, at most `most`."""
    return int(min(number, most))
