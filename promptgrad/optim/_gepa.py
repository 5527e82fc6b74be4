"""GEPA: reflective evolution of the texts of a program, with a Pareto pool and merges."""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

from promptgrad._habits import refuses
from promptgrad.lm import LM
from promptgrad.nn import Predict
from promptgrad.optim._descent import FEW_RUNS, FIRST, SURE
from promptgrad.optim._gepa_parity import Evolution
from promptgrad.optim._groups import Params
from promptgrad.optim._habits import GEPA_HABITS
from promptgrad.optim._search import Search
from promptgrad.search import (
    BLOCK,
    Attempts,
    Candidate,
    Edit,
    Evidence,
    Feedback,
    Fronts,
    Improve,
    Measured,
    Pareto,
    Place,
    Rewriter,
    Rules,
    Session,
    Step,
    chance,
    check_counts,
    check_fronts,
    check_writer,
    children,
    make_proposer,
    race,
    recombined,
    revise,
    reviser_for,
    sift,
    untie,
    varied,
)

Components = Literal["blamed", "round_robin", "all"]
"""Which texts a step rewrites: those that the writer blames in whole runs, the one whose turn it is, or all."""

PROPOSALS = 3
"""Most proposals of a step; one with `parity`."""

STEPS = 10
"""Steps of a search without a budget; with `parity`, as many as make the same number of proposals."""

MOST = 1000
"""Most steps of a search on a budget."""

IDLE = 10
"""Steps in a row without a new candidate after which a search on a budget ends."""


class GEPA(Search):
    """Evolve the texts of a program by reflection on minibatches, from candidates that are each the best at something.

    In each step a parent is taken: by turns the incumbent, and one drawn from the pool, weighted by the number of
    validation examples on which it is unbeaten. After steps that brought no new candidate it is not the incumbent but
    who came before it, so many generations back as there were such steps. The first time a parent is run on 24 training
    examples, each further time on a minibatch of those that it was not run on. The writer sees all its runs, right ones
    too, and the scored attempts; of several texts it finds those that are to blame in whole runs and rewrites them in
    one reply (`Revise`). It is asked for three proposals, or as many as the budget pays for trying; all but the first
    from a parent are sampled and get a tip. In the first step, with a budget of more than 250 runs and no number of
    steps, it is asked again until a text is right where the start is wrong (`search.sift`). The children are run on a
    minibatch of the same examples. Those that do no worse there meet their parent and one another on validation
    examples, ten at a time, and leave once they are probably worse. What came through all of them joins the pool,
    whatever its score. Then a merge is tried: two candidates that improved different texts since their common ancestor
    are put together, and the merge joins the pool if it does as well as both on a few validation examples. With a
    budget of calls and no number of steps, each step but the first also puts together up to two texts that nobody
    wrote: the incumbent's without sentences that seem to harm, and with such of other texts that seem to help, by all
    runs of all texts that held them (`search.recombined`); they race the incumbent. Where validation examples leave
    open whether a child is better than the incumbent, training examples are asked too, if a budget of calls pays for it
    (`search.untie`). What is better than the start is decided at the end, on all that was measured.

    Cost in `Trainer.fit`: for each step at most 24 runs of the program for a parent (or a minibatch, if that is more);
    for each of three proposals a minibatch for the child, one LM call for the reply, or for each text that is rewritten
    on its own, and at most one run on each validation example; in the first step up to eight times as many replies, and
    two to five runs for each; in later ones no reply for two recombined texts, and at most one run of each on each
    validation example.
    Source: Agrawal et al. 2025, arXiv 2507.19457. Differs: the first reflection on a candidate is on 24 examples, and
    each is on all its runs, not on those of a minibatch; the runs that show the failures are also the baseline of the
    child; a child that is as good on its minibatch goes on; a parent has several children at once; validation is a race
    against the parent, and every second parent is the incumbent; one reply may rewrite several texts; no row is run
    twice with the same values; sentences of one text are recombined as texts of a program are merged; the pairs that
    can be merged are computed, not found by trial; scores that agree to nine digits are equal.

    With `parity=True` every draw, accept and count is that of the package gepa (0.1.4) with the same seed, data and
    scores: parents, minibatches and their padding, turns, merges and their examples, and blocks that are run again
    although their scores are known; the search does not end at a perfect candidate. What stays ours: the prompt of the
    writer, the checks of its texts (a text that is refused is not run), the budget (the package ends up to a block
    late), an ancestor at 0 (the package raises), and, where two texts were changed by both sides of a merge that are
    equally good, which of them is drawn for first (the package's own choice depends on the process).
    `benchmarks/parity_gepa.py` runs both side by side.

    Args:
        params: Parameters; instructions, and descriptions that require a gradient, are trained.
        lm: LM that writes; None for that of the program.
        steps: Most steps, merges included; None for 10 (30 with `parity`), or for as many as a budget of calls
            allows; it ends as well after 10 steps in a row that brought no new candidate.
        minibatch_size: Training examples that a child is compared with its parent on, and that a parent is run on each
            further time; None for 8, or for 3 with `parity`.
        components: What a step rewrites: the texts that are to blame ("blamed"), one text, by turns ("round_robin"), or
            each of them ("all"). None for "blamed", or for turns with `parity`. The writer finds what is to blame, with
            `critique` the critic; where no blame has to be divided, or the LM knows only its own tasks, texts take
            turns.
        fronts: The fronts that candidates compete on: each validation "example", each "part" of the scores, or "both".
        max_merges: Most merges that join the pool; 0 for none.
        merge_examples: Number of validation examples that a merge is tried on.
        critique: True to let the critic divide the blame among the texts first, at the cost of its calls. Otherwise the
            writer sees the metric's feedback unchanged, as in the paper.
        rules: What new texts must satisfy.
        parity: True for the package's own sequence of decisions, see above.

    Raises:
        ValueError: A number is out of range, or `components` or `fronts` is unknown.
        TypeError: `lm` is not a language model; or an argument is unknown: for those of DSPy's GEPA the message names
            the replacement.
    """

    kinds = ("instruction", "description")

    @refuses(GEPA_HABITS)
    def __init__(
        self,
        params: Params,
        lm: LM | str | None = None,
        *,
        steps: int | None = None,
        minibatch_size: int | None = None,
        components: Components | None = None,
        fronts: Fronts = "example",
        max_merges: int = 5,
        merge_examples: int = 5,
        critique: bool = False,
        rules: Rules = Rules(),  # noqa: B008 - frozen
        parity: bool = False,
    ) -> None:
        check_counts(
            steps=(1 if steps is None else steps, 1),
            minibatch_size=(1 if minibatch_size is None else minibatch_size, 1),
            merge_examples=(merge_examples, 1),
        )
        check_counts(max_merges=(max_merges, 0))
        check_writer(lm)
        if components not in (None, *get_args(Components)):
            raise ValueError(
                f'components are "blamed", rewritten by "round_robin" or "all" at once, not {components!r}'
            )
        if parity and components == "blamed":
            raise ValueError('the package blames no component: use components="round_robin" or "all" with parity=True')
        if minibatch_size is None:
            minibatch_size = 3 if parity else 8
        if components is None:
            components = "round_robin" if parity else "blamed"
        super().__init__(params)
        self.lm, self.steps, self.minibatch_size, self.fronts = lm, steps, minibatch_size, check_fronts(fronts)
        self.max_merges, self.merge_examples, self.critique, self.rules = max_merges, merge_examples, critique, rules
        self.components, self.parity = components, parity
        for parameter in self.parameters():
            parameter.critic = lm
        self.proposer = make_proposer(Improve, None)

    async def fit(self, session: Session) -> None:
        """Evolve; see the class."""
        self.state.clear()
        places, critic = session.places(self.kinds), None if self.critique else Feedback()
        paths = [place.path for place in places]
        rewriter = Rewriter(Attempts(self.state, 8), self.proposer, rules=self.rules, lm=self.lm)
        if self.parity:
            await Evolution(self, session, places, rewriter, critic).run()
            return
        pool, merges, fresh = await Pareto.of(session, self.fronts), 0, False
        finds = self.components == "blamed" and not self.critique
        reviser = reviser_for(session, places, self.lm) if finds else None
        seen = {session.base.key}
        by_turns = self.components == "round_robin" or (finds and reviser is None)
        made, since = 0, 0
        try:
            for step in session.steps(self.length(session), "GEPA", batch_size=self.minibatch_size):
                if len(seen) > made:
                    made, since = len(seen), step.number
                if self.steps is None and step.number - since > IDLE:
                    session.decide("stop", reason=f"{IDLE} steps without a new candidate")
                    session.notes.append(f"the search ended after {IDLE} steps in a row that brought nothing new")
                    break
                merge = pool.merge(step.rng, paths, step.name) if fresh and merges < self.max_merges else None
                fresh = False
                if merge is not None:
                    sample = merge.sample(session.val, self.merge_examples, step.rng)
                    if merge.holds(await step.evaluate(merge.candidate, sample), step):
                        pool.add(await step.validate(merge.candidate, "a merge joins the pool"))
                        merges += 1
                    continue
                parent = _ancestor(session.incumbent, step.number - since) if step.number % 2 else pool.draw(step.rng)
                turn = [step.turn(places, parent)] if by_turns else places
                if batch := step.fresh(parent, self._wanted(session, parent)):
                    _, gradients = await step.gradients(parent, batch, turn, critic=critic)
                    if self.critique:
                        turn = [place for place in turn if gradients[place.path].critiques]
                racing = await self._tried(step, rewriter, reviser, parent, turn, seen)
                fresh = await self._raced(step, parent, racing, pool)
                if step.number and self._is_free(session):
                    texts = [rewriter.evidence(session, session.incumbent, place) for place in places]
                    edits = recombined(rewriter, step, session.incumbent, texts, PROPOSALS)
                    put = [one for one in children(step, session.incumbent, edits) if one.key not in seen]
                    seen.update(one.key for one in put)
                    fresh |= await self._raced(step.part("recombined"), session.incumbent, put, pool)
        finally:
            session.offer_likely()

    async def _raced(self, step: Step, parent: Candidate, racing: Sequence[Candidate], pool: Pareto) -> bool:
        """Let children meet their parent; whether one that came through joined the pool."""
        session, fresh = step.session, False
        while len(racing) > 1 and not session.affords(len(racing) * BLOCK + len(session.val)):
            racing = racing[:-1]
        if not racing:
            return False
        races = await race(session, racing, scope=step.scope("race"), confidence=SURE, against=parent)
        ended = [result for result in races.results if len(result.ids) == len(session.val)]
        for result in ended:
            session.offer(result)
            fresh |= pool.add(result)
        await self._promote(step, ended)
        return fresh

    async def _promote(self, step: Step, ended: Sequence[Measured]) -> None:
        """Make the best of what was run on all validation examples the incumbent, if it is likely to be better."""
        session = step.session
        champion = session.standings.of(session.incumbent)
        order = sorted(ended, key=lambda result: -chance(champion, result))[:2]
        rivals = [(result.candidate, chance(champion, result), 0.0) for result in order]
        likely = [rival[1] for rival in rivals]
        if session.runs_left() < math.inf:
            likely = await untie(session, session.incumbent, rivals, scope=step.scope("tie"))
        for probability, best in sorted(zip(likely, order, strict=True), key=lambda found: -found[0])[:1]:
            if probability > SURE:
                session.promote(best)

    def _wanted(self, session: Session, parent: Candidate) -> int:
        """How many examples that are new to a parent it is run on before it is rewritten."""
        missing = FIRST - len(session.rows.known(parent))
        return missing if missing > 0 and session.affords(missing + BLOCK) else self.minibatch_size

    def _proposals(self, session: Session, texts: int) -> int:
        """How many proposals a step makes, each for so many texts: as many as the budget pays for trying."""
        count, val = PROPOSALS, len(session.val)
        while count > 1 and not session.affords(count * (self.minibatch_size + BLOCK) + val, count * texts):
            count -= 1
        return count

    async def _written(
        self,
        step: Step,
        rewriter: Rewriter,
        reviser: Predict | None,
        parent: Candidate,
        texts: Sequence[Evidence],
        count: int,
    ) -> dict[Candidate, list[Edit]]:
        """The children of some proposals, each with the edits that made it, from all that is known of a parent."""
        before, made = rewriter.numbered(parent, texts, count), dict[int, list[Edit]]()
        if reviser is None:
            edits = await rewriter.rewrite(step, varied(texts, count, before))
        else:
            edits = await revise(rewriter, reviser, step, parent, texts, count, before)
        for edit in edits:
            if edit is not None and edit.passed:
                made.setdefault(edit.variant, []).append(edit)
        values = [({path: text for edit in own for path, text in edit.values.items()}, own) for own in made.values()]
        return {parent.child(texts, step.name): own for texts, own in values}

    async def _tried(
        self,
        step: Step,
        rewriter: Rewriter,
        reviser: Predict | None,
        parent: Candidate,
        turn: Sequence[Place],
        seen: set[str],
    ) -> list[Candidate]:
        """The new children that do no worse than their parent on a minibatch of what it was run on, best first.

        There is none where no run of the parent failed. Those of the first step are the best by rows that the parent
        fails, see `sift`.
        """
        session, held, made = step.session, list[Measured](), dict[str, list[Edit]]()
        texts = [rewriter.evidence(session, parent, place) for place in turn]
        texts = [text for text in texts if not all(row.right for row in text.rows)]
        if not texts:
            return []

        async def ask(number: int, count: int) -> list[Candidate]:
            part = step.part(f"again/{number}") if number else step
            found = await self._written(part, rewriter, reviser, parent, texts, count)
            new = {one.key: one for one in found if one.key not in seen}
            made.update({key: found[one] for key, one in new.items()})
            seen.update(new)
            return list(new.values())

        known = session.rows.known(parent)
        sample = [example for example in session.train if example.id in known]
        count = self._proposals(session, len(texts))
        if step.number or not self._is_free(session) or session.runs_left() < FEW_RUNS:
            born = await ask(0, count)
        else:
            before = session.rows.measured(parent, sample)
            born = await sift(session, ask, before, scope=step.scope("sift"), count=count)
        sample = step.rng.sample(sample, min(self.minibatch_size, len(sample)))
        before = session.rows.measured(parent, sample)
        for child in born:
            part = step.part(f"child {made[child.key][0].variant}")
            after = part.measured(child, await session.forward(child, sample, scope=part.scope("forward")))
            tried = [(place, edit) for place in turn for edit in made[child.key] if edit.path == place.path]
            verdicts = [rewriter.holds(part, place, edit, before, after) for place, edit in tried]
            if all(verdicts):  # of one comparison, remembered for each of the texts
                held.append(after)
        return [after.candidate for after in sorted(held, key=lambda after: -after.total)]

    def _is_free(self, session: Session) -> bool:
        """Whether a search may spend what it likes of its budget of calls, and not so many steps."""
        return self.steps is None and session.runs_left() < math.inf

    def length(self, session: Session) -> int:
        """Most steps of a search."""
        return self._least() if self.steps is not None or session.ledger.budget.calls is None else MOST

    def _least(self) -> int:
        """The steps that were asked for, or those of a search without a budget."""
        return self.steps or STEPS * (PROPOSALS if self.parity else 1)

    def expected_calls(self, plan: Any) -> list[tuple[str, float, bool]]:
        """Return the phases, each at most: minibatches, critiques, proposals, full validations and merges."""
        texts = 1 if self.components == "round_robin" else len(self.trained())
        steps = self._least()
        tries = steps * (1 if self.parity else PROPOSALS)
        most = self.minibatch_size if self.parity else max(FIRST, self.minibatch_size) + self.minibatch_size - 1
        runs = steps * min(most, max(plan.train, self.minibatch_size)) * plan.calls_per_example
        children = tries * self.minibatch_size * plan.calls_per_example
        tried = self.merge_examples if self.parity and self.max_merges else 0  # again in the full validation
        full = tries * (max(plan.val, self.merge_examples) + tried) * plan.calls_per_example
        phases = {"minibatches": runs + children, "critiques": texts * runs * self.critique}
        phases |= {"proposals": texts * tries, "full validations and merges": full}
        return [(name, calls, False) for name, calls in phases.items() if calls]


def _ancestor(candidate: Candidate, back: int) -> Candidate:
    """Who came so many generations before a candidate, or the start."""
    while back > 0 and candidate.parents:
        candidate, back = candidate.parents[0], back - 1
    return candidate
