"""GEPA: reflective evolution of the texts of a program, with a Pareto pool and merges."""

from typing import Any, NoReturn

from promptgrad.lm import LM
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


class GEPA(Search):
    """Evolve the texts of a program by reflection on minibatches, from candidates that are each the best at something.

    In each step a parent is drawn from the pool, weighted by the number of validation examples on which it is unbeaten,
    and run on a minibatch. One of its texts, by turns, is rewritten from its failures there. A child that does better
    on the same minibatch is measured on all validation examples and joins the pool, whatever its score. Then a merge is
    tried: two candidates that improved different texts since their common ancestor are put together, and the merge
    joins the pool if it does as well as both on a few validation examples. The candidates with the best means are
    confirmed.

    Cost in `Trainer.fit`: for each step two runs of the program on a minibatch and one LM call; for each candidate that
    joins the pool one run on all validation examples.
    Source: Agrawal et al. 2025, arXiv 2507.19457. Differs: the runs that show the failures are also the baseline of the
    child; the writer sees only failures; the pairs that can be merged are computed, not found by trial.

    Args:
        params: Parameters; instructions, and descriptions that require a gradient, are trained.
        lm: LM that writes; None for that of the program.
        steps: Most steps, merges included.
        minibatch_size: Training examples a step.
        fronts: The fronts that candidates compete on: each validation "example", each "part" of the scores, or "both".
        max_merges: Most merges that join the pool; 0 for none.
        merge_examples: Number of validation examples that a merge is tried on.
        critique: True to let the critic divide the blame among the texts first, at the cost of its calls. Otherwise the
            writer sees the metric's feedback unchanged, as in the paper.
        rules: What new texts must satisfy.

    Raises:
        ValueError: A number is out of range, or `fronts` is unknown.
        TypeError: `lm` is not a language model; or an argument is unknown: for those of DSPy's GEPA the message names
            the replacement.
    """

    kinds = ("instruction", "description")

    def __init__(
        self,
        params: Params,
        lm: LM | str | None = None,
        *,
        steps: int = 30,
        minibatch_size: int = 3,
        fronts: Fronts = "example",
        max_merges: int = 5,
        merge_examples: int = 5,
        critique: bool = False,
        rules: Rules = Rules(),  # noqa: B008 - frozen
        **habits: NoReturn,
    ) -> None:
        refuse_habits("GEPA", habits, GEPA_HABITS)
        check_counts(steps=(steps, 1), minibatch_size=(minibatch_size, 1), merge_examples=(merge_examples, 1))
        check_counts(max_merges=(max_merges, 0))
        check_writer(lm)
        super().__init__(params)
        self.lm, self.steps, self.minibatch_size, self.fronts = lm, steps, minibatch_size, check_fronts(fronts)
        self.max_merges, self.merge_examples, self.critique, self.rules = max_merges, merge_examples, critique, rules
        self.proposer = make_proposer(Improve, None)

    async def fit(self, session: Session) -> None:
        """Evolve; see the class."""
        self.state.clear()
        places, critic = session.places(self.kinds), None if self.critique else Feedback()
        paths, most = [place.path for place in places], self.minibatch_size
        rewriter = Rewriter(Attempts(self.state, 8), self.proposer, rules=self.rules, lm=self.lm, max_failures=most)
        pool, merges, fresh = await Pareto.of(session, self.fronts), 0, False
        for step in session.steps(self.steps, "GEPA", batch_size=self.minibatch_size, drop_last=True):
            merge = pool.merge(step.rng, paths, step.name) if fresh and merges < self.max_merges else None
            fresh = False
            if merge is not None:
                sample = merge.sample(session.val, self.merge_examples, step.rng)
                if merge.holds(await step.evaluate(merge.candidate, sample), step):
                    pool.add(await step.validate(merge.candidate, "a merge joins the pool"))
                    merges += 1
                continue
            parent, batch = pool.draw(step.rng), step.minibatch()
            place = step.turn(places, parent)
            loss, gradients = await step.gradients(parent, batch, [place], critic=critic)
            edit = await rewriter(step, parent, place, gradients[place.path])
            if edit is None:
                continue
            child = parent.child(edit.values, step.name)
            before, after = step.measured(parent, loss), await step.evaluate(child, batch)
            fresh = rewriter.is_better(step, place, edit, before, after)
            if fresh:
                pool.add(await step.validate(child, "joins the pool"))

    def expected_calls(self, plan: Any) -> list[tuple[str, float, bool]]:
        """Return the phases, each at most: minibatches, critiques, proposals, full validations and merges."""
        runs = self.steps * self.minibatch_size * plan.calls_per_example
        full = self.steps * max(plan.val, self.merge_examples) * plan.calls_per_example
        phases = {"minibatches": 2 * runs, "critiques": runs * self.critique, "proposals": self.steps}
        phases |= {"full validations and merges": full}
        return [(name, calls, False) for name, calls in phases.items() if calls]
