"""The search of `TGD` in `Trainer.fit`: which runs a step looks at, who writes from them, and when it ends."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from promptgrad.autograd import Gradient
from promptgrad.nn import Predict
from promptgrad.optim._fate import raced
from promptgrad.optim._report import Change, StepReport
from promptgrad.search import (
    BLOCK,
    SWAPS,
    Candidate,
    Edit,
    Evidence,
    Rules,
    Session,
    Step,
    check_swaps,
    children,
    is_winnable,
    recombined,
    revise,
    reviser_for,
    role,
    sift,
    swapped,
    unblamed,
    varied,
)

if TYPE_CHECKING:
    from promptgrad.optim._tgd import TGD

FIRST = 24
"""Training examples of the first step of a search, where the data and the budget have them.

With so many rows in one prompt a strong writer found rules that are right on .97 of the tickets of hidden policies,
with 8 on .75, with 3 failures on .43 (docs/decisions.md).
"""

STEPS = 8
"""Steps of a search without a budget of calls."""

PATIENCE = 4
"""Steps in a row without a gain that end a search without a budget, and steps without a new text that end any."""

SURE = 0.55
"""Probability of being better from which on a text becomes the incumbent: the search may err, the ending not."""

FEW_RUNS = 250
"""Runs of the program below which a budget pays for two proposals in a step, not for all."""


class Descent:
    """One search of `TGD`: its texts, the values that it went through, and how often each was rewritten.

    Args:
        tgd: The optimizer, whose settings and memory count.
        session: The session to search in.
    """

    def __init__(self, tgd: "TGD", session: Session) -> None:
        self.tgd, self.session, self.rewriter = tgd, session, tgd._rewriter
        self.options = dict(tgd.trained())
        given = {session.path_of(parameter): parameter for parameter in self.options}
        self.trained = [(place, given[place.path]) for place in session.places(tgd.kinds) if place.path in given]
        self.places = [place for place, _ in self.trained]
        self.priced = any(group["length_price"] for group in self.options.values())
        self.is_free = tgd.steps is None and not self.priced and session.runs_left() < math.inf
        self.lineage = [session.base]

    async def run(self) -> None:
        """Take steps until their number, the patience or the budget ends, or nothing is left to win."""
        session, schedulers = self.session, self.tgd._schedulers
        if self.tgd.tokens:
            check_swaps(session, self.places)
        for scheduler in schedulers:
            scheduler.reset()
        back, notes, taken, idle = 0, 0, 0, 0
        count, patience = session.most_steps(self.tgd.steps, STEPS), self.tgd.patience
        if patience is None and session.ledger.budget.calls is None:
            patience = PATIENCE
        try:
            for step in session.steps(count, "TGD", batch_size=self.tgd.batch_size, patience=patience):
                if why := self.ended(idle):
                    session.notes.append(f"{why} on {len(session.val)} validation examples")
                    break
                known, base = len(session.standings), self.lineage[max(0, len(self.lineage) - 1 - back)]
                report = await self.step(step, base)
                for scheduler in schedulers:
                    scheduler.step(report)
                if report.accepted:
                    self.lineage.append(session.incumbent)
                idle = 0 if len(session.standings) > known else idle + 1
                stuck = report.notes or (idle and report.proposals)
                back, notes, taken = back + 1 if stuck else 0, notes + bool(report.notes), step.number + 1
        finally:
            if not self.priced:  # who charges for length is offered only what was worth it
                session.offer_likely()
        if notes:
            session.notes.append(f"in {notes} of {taken} steps samples failed and nobody was blamed")

    def ended(self, idle: int) -> str:
        """Why no further step is worth its calls, after so many without a new candidate; empty if one is."""
        if idle == PATIENCE:
            return f"{idle} steps brought nothing new"
        return "" if self.priced or is_winnable(self.session, SURE) else "nothing can be shown to be better"

    async def step(self, step: Step, base: Candidate) -> StepReport:
        """Rewrite the texts of `base` by all that is known of them; the best rewrite must beat the incumbent."""
        session, writer = self.session, self.writer()
        gradients, notes = await self.look(step, base, writer)
        texts = self.evidence(base, gradients, divided=writer is None and session.needs_critic(self.places))
        if not texts:
            failed = any(not row.right for place in self.places for row in session.rows.of(place, base))
            return StepReport((), notes=notes or ("samples failed and nobody was blamed",) * failed)
        edits, candidates = await self.tried(step, base, texts, writer)
        if not candidates:
            kinds = {place.path: parameter.kind for place, parameter in self.trained}
            refused = [Change.of(edit, kinds[edit.path], "") for edit in edits if edit and edit.path in kinds]
            nobody = ("samples failed and nobody was blamed",) if writer is not None and not edits else ()
            return StepReport((), proposals=tuple(refused), notes=nobody)
        while len(candidates) > 1 and not session.affords(len(candidates) * BLOCK + len(session.val)):
            candidates.pop()  # a race of all would end the search before anything is known
        return await raced(step, candidates, self.trained, self.rewriter.memory, gate=SURE, price=self.tgd._price)

    async def look(
        self, step: Step, base: Candidate, writer: Predict | None
    ) -> tuple[dict[str, Gradient], tuple[str, ...]]:
        """Run examples that have no run with the values of `base`; what a critic says of its texts, and remarks."""
        size, least = self.tgd.batch_size, 0
        if not step.number:
            least = int(min(FIRST, self.session.runs_left() - len(self.session.val)))
        batch = step.fresh(base, max(size, least))
        if batch and writer is not None:
            await self.session.forward(base, batch, scope=step.scope("forward"))
        elif batch:
            loss, gradients = await step.gradients(base, batch, self.places)
            return gradients, tuple(unblamed(loss))
        return {}, ()

    def evidence(self, base: Candidate, gradients: dict[str, Gradient], *, divided: bool) -> list[Evidence]:
        """All that is known of each text that may be to blame: where a critic divides the blame, of the blamed ones."""
        texts = []
        for place, parameter in self.trained:
            known, group = self.rewriter.evidence(self.session, base, place), self.options[parameter]
            found = gradients.get(place.path, Gradient()).critiques
            blamed = not divided or parameter.kind.exact or found or any(row.critique for row in known.rows)
            if blamed and not all(row.right for row in known.rows):
                about, rules = parameter.role or role(place), Rules.of(group)
                texts.append(replace(known, parameter=parameter, role=about, rules=rules, lm=group["lm"]))
        return texts

    async def tried(
        self, step: Step, base: Candidate, texts: Sequence[Evidence], writer: Predict | None
    ) -> tuple[list[Edit | None], list[Candidate]]:
        """All proposals of a step, and the candidates that race.

        In the first step of a search for one text they are the best by rows that the base fails, see `sift`.
        """
        session, most, edits, out = self.session, self.tgd.proposals, list[Edit | None](), set[str]()

        async def ask(number: int, count: int) -> list[Candidate]:
            part = step.part(f"again/{number}") if number else step
            written = await self.write(part, base, texts, writer, count)
            edits.extend(written)
            made = [one for one in children(part, base, written) if one.key not in out]
            out.update(one.key for one in made)
            return made

        count = most if session.runs_left() >= FEW_RUNS else min(2, most)
        if step.number or not self.is_free or count == 1 or len(self.places) > 1 or session.runs_left() < FEW_RUNS:
            return edits, await ask(0, count)
        known = session.rows.known(base)
        before = session.rows.measured(base, [example for example in session.train if example.id in known])
        return edits, await sift(session, ask, before, scope=step.scope("sift"), count=count)

    async def write(
        self, step: Step, base: Candidate, texts: Sequence[Evidence], writer: Predict | None, count: int
    ) -> list[Edit | None]:
        """So many proposals, each seen with another tip than those before it."""
        before = self.rewriter.numbered(base, texts, count)
        if writer is None:
            edits = list(await self.rewriter.rewrite(step, varied(texts, count, before)))
        else:
            edits = await revise(self.rewriter, writer, step, base, texts, count, before)
        if self.tgd.tokens:
            edits += await swapped(self.rewriter, step, base, texts, before + count)
        if step.number and self.is_free:
            edits += recombined(self.rewriter, step, base, texts, before + count + SWAPS * len(texts))
        return edits

    def writer(self) -> Predict | None:
        """The program that finds what is to blame and rewrites it; None where a critic does, or nobody has to."""
        tgd, session = self.tgd, self.session
        wanted = tgd.blame == "writer" or (tgd.blame is None and session.critic is None and tgd.edits == "rewrite")
        return reviser_for(session, self.places, tgd.param_groups[0]["lm"]) if wanted else None


def expected_calls(tgd: "TGD", plan: Any) -> list[tuple[str, float, bool]]:
    """The phases of a search, each at most: forward, backward, proposals, races."""
    steps = tgd.steps or STEPS
    runs = (steps * tgd.batch_size + max(0, FIRST - tgd.batch_size)) * plan.calls_per_example
    texts = len(tgd.trained())
    more = (texts if texts > 1 else 0) + (SWAPS * texts if tgd.tokens else 0)
    candidates = steps * (tgd.proposals + more)
    phases = {"forward": runs, "backward": runs, "proposals": steps * tgd.proposals * texts}
    phases["races"] = candidates * plan.val * plan.calls_per_example
    return [(name, calls, False) for name, calls in phases.items()]
