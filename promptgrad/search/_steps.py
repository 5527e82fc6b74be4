"""Steps: the loop that optimizers share, with a name, a random generator and a minibatch for each round."""

import copy
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from promptgrad.autograd import CriticLike, Gradient, Loss
from promptgrad.data import DataLoader, Example
from promptgrad.search._candidate import Candidate, Measured
from promptgrad.search._places import Place

if TYPE_CHECKING:
    from promptgrad.search._session import Session


class Step:
    """One round of a search. Its paid calls are journalled under its name, "step/3/...".

    Attributes:
        session: The session.
        number: Counts the steps of the loop, from 0.
        rng: Random generator of this step alone, seeded by the seed, the loop's name and the number.
    """

    def __init__(self, loop: "Steps", number: int) -> None:
        self.session = loop.session
        self.number = number
        self.rng: random.Random = loop.session.rng(loop.key, number)
        self._loop = loop
        self._within = ""
        self._evaluations = 0

    @property
    def name(self) -> str:
        """The origin of candidates that are made in this step."""
        return f"step {self.number}"

    def scope(self, what: str) -> str:
        """The name of a part of this step, such as "step/3/forward"."""
        return f"step/{self.number}/{self._within}{what}"

    def part(self, name: str) -> "Step":
        """This step under scope names of its own, "step/3/name/...", for one of several parts that are alike."""
        part = copy.copy(self)
        part._within = f"{self._within}{name}/"
        part._evaluations = 0
        return part

    def minibatch(self) -> list[Example]:
        """The next training examples: each epoch has its own order, which depends only on the seed."""
        return self._loop.minibatch()

    def fresh(self, candidate: Candidate, least: int) -> list[Example]:
        """The next minibatches without the examples that have a run with a candidate's values: at least so many.

        Fewer are left where the session has rows of all others: a run that is known need not be paid for again, and one
        that got no answer very likely gets none again.

        Args:
            candidate: The candidate.
            least: Fewest examples.
        """
        known = self.session.rows.known(candidate) | self.session.unanswered.rows(candidate.key)
        left = sum(example.id not in known for example in self.session.train)
        found: dict[str, Example] = {}
        while len(found) < min(least, left):
            found.update({example.id: example for example in self.minibatch() if example.id not in known})
        return list(found.values())

    def turn(self, places: Sequence[Place], candidate: Candidate | None = None) -> Place:
        """The place whose turn it is, round robin.

        Args:
            places: The places, the same at each step.
            candidate: The candidate whose turns count. Each has its own turns and continues those of its parents; by
                default all share one order.
        """
        return places[self._loop.turn(candidate) % len(places)]

    async def gradients(
        self,
        candidate: Candidate,
        batch: Sequence[Example],
        places: Sequence[Place],
        *,
        critic: CriticLike | None = None,
        replicate: int = 0,
    ) -> tuple[Loss, dict[str, Gradient]]:
        """Run a candidate on a batch, and find what is wrong with its texts.

        Gradients are values: nothing is left in any parameter's `grad`.

        Cost: one run of the program for each example, and the critic's calls.

        Args:
            candidate: The candidate to run.
            batch: The examples to run it on.
            places: The places whose gradients are wanted.
            critic: The critic that divides the blame; the session's by default.
            replicate: Number of the sample, for LMs that sample.

        Returns:
            The loss, and the gradient at each place by path; an empty one where the critic does not blame it.

        Raises:
            BudgetExceeded: The examples do not fit what the budget leaves for the search.
            LMError: A language model is down.
        """
        session, program = self.session, self.session.program(candidate)
        parameters = {place.path: program.get_parameter(place.path) for place in places}
        loss = await session.forward(candidate, batch, scope=self.scope("forward"), replicate=replicate)
        with session.scope(self.scope("backward")):
            found = await session.gradients(loss, list(parameters.values()), critic=critic)
        gradients = {path: found.get(parameter, Gradient()) for path, parameter in parameters.items()}
        session.rows.add(candidate, loss, gradients)
        session.decide(
            "gradient",
            step=self.number,
            loss=loss.item(),
            parameters=sum(1 for gradient in gradients.values() if gradient.critiques),
            skipped=len(found.report.skipped),
        )
        return loss, gradients

    def measured(self, candidate: Candidate, loss: Loss) -> Measured:
        """The measurement that a loss holds of its candidate, which need not be run again on the same examples."""
        rows = loss.rows
        return Measured(
            candidate,
            tuple(row.example.id for row in rows),
            tuple(row.score if row.error is None else 0.0 for row in rows),
            sum(row.error is not None for row in rows),
            self.scope("forward"),
            next((row.error for row in rows if row.error is not None), None),
            feedback=tuple(row.feedback for row in rows),
            outputs=tuple(row.output for row in rows),
        )

    async def evaluate(self, candidate: Candidate, examples: Sequence[Example]) -> Measured:
        """Score a candidate on some examples; cells that are stored already are not run again.

        Raises:
            BudgetExceeded: The examples do not fit what the budget leaves for the search.
            LMError: The language model is down.
        """
        return (await self.evaluate_all([candidate], examples))[0]

    async def evaluate_all(self, candidates: Sequence[Candidate], examples: Sequence[Example]) -> list[Measured]:
        """Score several candidates on the same examples, all at once.

        Raises:
            BudgetExceeded: They do not fit what the budget leaves for the search.
            LMError: The language model is down.
        """
        name = self.scope(f"evaluate/{self._evaluations}")
        self._evaluations += 1
        return await self.session.evaluate_all(candidates, examples, scope=name)

    async def validate(self, candidate: Candidate, note: str = "", **details: Any) -> Measured:
        """Score a candidate on all validation examples and offer it for confirmation; the best becomes the incumbent.

        Cost: one run of the program for each validation example that is not known already.

        Args:
            candidate: The candidate.
            note: Remark in its line of the history.
            details: Further fields of the line.

        Raises:
            BudgetExceeded: The examples do not fit what the budget leaves for the search.
            LMError: The language model is down.
        """
        session, measured = self.session, await self.evaluate(candidate, self.session.val)
        session.trial(measured, note, **details)
        session.offer(measured)
        if session.gain(measured) > session.gain_of_incumbent():
            session.promote(measured)
        return measured


class Steps:
    """The rounds of a search: `for step in session.steps(8, "TGD", batch_size=8)`.

    They show a bar, and end after `count` steps, when the session's incumbent is right on every validation example, or
    after `patience` steps in a row without a new incumbent.

    Args:
        session: The session.
        count: Most steps.
        name: Name of the search, which seeds its random numbers; the bar shows it.
        batch_size: Examples of a minibatch; all of them, if there are fewer.
        drop_last: Leave out the last minibatch of an epoch if it is smaller than the others.
        patience: Steps in a row without a new incumbent after which the search ends; None for no such limit.
    """

    def __init__(
        self,
        session: "Session",
        count: int,
        name: str,
        *,
        batch_size: int = 1,
        drop_last: bool = False,
        patience: int | None = None,
    ) -> None:
        self.session = session
        self.count = count
        self.name = name
        self.key = name.lower()
        self.patience = patience
        self._loader = DataLoader(
            session.train,
            batch_size=min(batch_size, len(session.train)),
            shuffle=True,
            seed=session.spawn(self.key),
            drop_last=drop_last,
        )
        self._batches: Iterator[list[Example]] = iter(())
        self._turns: dict[str, int] = {}

    def __iter__(self) -> Iterator[Step]:
        idle = 0
        with self.session.bar(self.count, self.name) as bar:
            for number in range(self.count):
                before = self.session.incumbent
                yield Step(self, number)
                gained = self.session.incumbent is not before
                idle = 0 if gained else idle + 1
                bar.advance(note="kept" if gained else "no gain")
                if self.session.perfect() or (self.patience is not None and idle >= self.patience):
                    why = f"{idle} steps without a gain" if idle else "every validation example is right"
                    self.session.decide("stop", reason=why)
                    break

    def minibatch(self) -> list[Example]:
        """The next training examples; a new epoch begins where this one is over."""
        batch = next(self._batches, None)
        if batch is None:
            self._batches = iter(self._loader)
            batch = next(self._batches)
        return batch

    def turn(self, candidate: Candidate | None) -> int:
        """Number of turns that a candidate and its ancestors had before this one."""
        key = "" if candidate is None else candidate.key
        if key not in self._turns:
            parents = () if candidate is None else candidate.parents
            self._turns[key] = max((self._turns.get(parent.key, 0) for parent in parents), default=0)
        self._turns[key] += 1
        return self._turns[key] - 1
