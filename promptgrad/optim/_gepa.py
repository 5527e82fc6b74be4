"""GEPA: reflective evolution of the texts of a program, with a Pareto pool and merges."""

from typing import Any, Literal, NoReturn, get_args

from promptgrad.lm import LM
from promptgrad.optim._gepa_parity import Evolution
from promptgrad.optim._groups import Params
from promptgrad.optim._habits import GEPA_HABITS, refuse_habits
from promptgrad.optim._search import Search
from promptgrad.search import (
    Attempts,
    Feedback,
    Fronts,
    Improve,
    Pareto,
    Rewriter,
    Rules,
    Session,
    check_counts,
    check_fronts,
    check_writer,
    make_proposer,
)

Components = Literal["round_robin", "all"]
"""Which texts a step rewrites: the one whose turn it is, or all."""

STEPS = 30
"""Steps of a search without a budget."""

MOST = 1000
"""Most steps of a search on a budget."""

FREE = 30
"""Steps in a row that cost no call after which a search on a budget ends: all that they would ask is known."""


class GEPA(Search):
    """Evolve the texts of a program by reflection on minibatches, from candidates that are each the best at something.

    In each step a parent is drawn from the pool, weighted by the number of validation examples on which it is unbeaten,
    and run on a minibatch. One of its texts, by turns, or each of them, is rewritten from its failures there. A child
    that does better on the same minibatch is measured on all validation examples and joins the pool, whatever its
    score. Then a merge is tried: two candidates that improved different texts since their common ancestor are put
    together, and the merge joins the pool if it does as well as both on a few validation examples. The candidates with
    the best means are confirmed.

    Cost in `Trainer.fit`: for each step two runs of the program on a minibatch and one LM call for each text that is
    rewritten; for each candidate that joins the pool one run on all validation examples.
    Source: Agrawal et al. 2025, arXiv 2507.19457. Differs: the runs that show the failures are also the baseline of the
    child; the writer sees every run of the parent on training data, not only those of the minibatch; no row is run
    twice with the same values; the pairs that can be merged are computed, not found by trial; scores that agree to nine
    digits are equal.

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
        steps: Most steps, merges included; None for 30, or for as many as a budget of calls allows; it ends
            as well after 30 steps in a row in which no call is left to make.
        minibatch_size: Training examples a step.
        components: What a step rewrites: one text, by turns ("round_robin"), or each of them ("all").
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

    def __init__(
        self,
        params: Params,
        lm: LM | str | None = None,
        *,
        steps: int | None = None,
        minibatch_size: int = 3,
        components: Components = "round_robin",
        fronts: Fronts = "example",
        max_merges: int = 5,
        merge_examples: int = 5,
        critique: bool = False,
        rules: Rules = Rules(),  # noqa: B008 - frozen
        parity: bool = False,
        **habits: NoReturn,
    ) -> None:
        refuse_habits("GEPA", habits, GEPA_HABITS)
        check_counts(
            steps=(1 if steps is None else steps, 1),
            minibatch_size=(minibatch_size, 1),
            merge_examples=(merge_examples, 1),
        )
        check_counts(max_merges=(max_merges, 0))
        check_writer(lm)
        if components not in get_args(Components):
            raise ValueError(f'components are rewritten "round_robin" or "all" at once, not {components!r}')
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
        spent, since = -1, 0
        for step in session.steps(self.length(session), "GEPA", batch_size=self.minibatch_size, drop_last=True):
            if session.ledger.spent.calls > spent:
                spent, since = session.ledger.spent.calls, step.number
            if self.steps is None and step.number - since > FREE:
                session.decide("stop", reason=f"{FREE} steps without a call: all that they ask is known")
                session.notes.append(f"the search ended after {FREE} steps in a row in which nothing new was asked")
                break
            merge = pool.merge(step.rng, paths, step.name) if fresh and merges < self.max_merges else None
            fresh = False
            if merge is not None:
                sample = merge.sample(session.val, self.merge_examples, step.rng)
                if merge.holds(await step.evaluate(merge.candidate, sample), step):
                    pool.add(await step.validate(merge.candidate, "a merge joins the pool"))
                    merges += 1
                continue
            parent, batch = pool.draw(step.rng), step.minibatch()
            turn = places if self.components == "all" else [step.turn(places, parent)]
            loss, gradients = await step.gradients(parent, batch, turn, critic=critic)
            if self.critique:
                turn = [place for place in turn if gradients[place.path].critiques]
            tried = [(place, edit) for place in turn for edit in await rewriter(step, parent, place)]
            if not tried:
                continue
            child = parent.child({path: text for _, edit in tried for path, text in edit.values.items()}, step.name)
            before, after = step.measured(parent, loss), await step.evaluate(child, batch)
            verdicts = [rewriter.is_better(step, place, edit, before, after) for place, edit in tried]
            fresh = verdicts[0]  # of one comparison, remembered for each of the texts
            if fresh:
                pool.add(await step.validate(child, "joins the pool"))

    def length(self, session: Session) -> int:
        """Most steps of a search."""
        if self.steps is not None:
            return self.steps
        return STEPS if session.ledger.budget.calls is None else MOST

    def expected_calls(self, plan: Any) -> list[tuple[str, float, bool]]:
        """Return the phases, each at most: minibatches, critiques, proposals, full validations and merges."""
        texts = len(self.trained()) if self.components == "all" else 1
        steps = self.steps or STEPS
        runs = steps * self.minibatch_size * plan.calls_per_example
        tried = self.merge_examples if self.parity and self.max_merges else 0  # again in the full validation
        full = steps * (max(plan.val, self.merge_examples) + tried) * plan.calls_per_example
        phases = {"minibatches": 2 * runs, "critiques": texts * runs * self.critique}
        phases |= {"proposals": texts * steps, "full validations and merges": full}
        return [(name, calls, False) for name, calls in phases.items() if calls]
