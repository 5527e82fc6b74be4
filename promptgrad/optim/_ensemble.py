"""Ensemble: the results of several runs of an optimizer, called side by side."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

from promptgrad import nn
from promptgrad._habits import refuses
from promptgrad.nn import Module, majority
from promptgrad.optim._habits import ENSEMBLE_HABITS
from promptgrad.optim._search import Search
from promptgrad.run import value_digest
from promptgrad.search import Candidate, Session, check_counts


class Ensemble(Search):
    """Run an optimizer several times, each with its own seed, and let the programs that they found vote.

    The result is another program, an `nn.Ensemble` of copies of the program, each with what the best of a run changed;
    the program itself is not changed, see `FitResult.program`. A run that found nothing better than the start, or what
    another run found, adds no member. A member that is right on every validation example ends the search. The best
    member alone goes to the confirmation as well, and wins a tie, as it costs less to call.

    Cost: `size` times that of the optimizer, less the calls that the runs share; the ensemble is scored without new
    calls where those of its members are known, and costs the sum of its members for each input.
    Source: Dietterich 2000, "Ensemble Methods in Machine Learning"; DSPy's of this name is given the programs that it
    combines. Differs: the runs differ in their seed, and an ensemble ships only if it is confirmed to be better.

    Args:
        optimizer: The optimizer.
        size: Number of runs, and so the most members; at least 2.
        reduce: Function that combines the members' outputs into one, see `nn.Ensemble`.

    Raises:
        ValueError: `size` is below 2.
        TypeError: `optimizer` is not an optimizer, `size` not a whole number, or `reduce` not a function.
    """

    @refuses(ENSEMBLE_HABITS)
    def __init__(self, optimizer: Search, size: int = 3, reduce: Callable[[Sequence[Any]], Any] = majority) -> None:
        check_counts(size=(size, 2))
        if not isinstance(optimizer, Search):
            raise TypeError(f"Ensemble takes an optimizer, such as optim.MIPRO(...), not {optimizer!r}")
        if not callable(reduce):
            raise TypeError(f"reduce is a function of the members' outputs, not {reduce!r}")
        super().__init__([(name, parameter) for parameter, name in optimizer.names().items()])
        self.inner = optimizer
        self.size = self.copies = size
        self.reduce = reduce
        self.kinds = optimizer.kinds

    async def fit(self, session: Session) -> None:
        """Run the optimizer, and offer the ensemble and its best member."""
        members: dict[str, Candidate] = {}
        for number in range(self.size):
            part = await session.phase(f"member/{number}", parameters=self.inner.parameters())
            try:
                await self.inner.fit(part)
            finally:
                found = session.adopt(part)
            if found is not None and part.gain(found) > 0:
                members.setdefault(found.candidate.key, found.candidate)
                session.consider(found)
            if session.perfect():
                session.decide("stop", reason="every validation example is right")
                return
        session.decide("ensemble", members=list(members))
        if len(members) < 2:
            session.notes.append(f"{len(members)} of {self.size} runs found a member of its own: there is no ensemble")
            return
        measured = await session.evaluate(self._joined(session, list(members.values())), session.val, scope="ensemble")
        session.trial(measured, "ensemble")
        session.consider(measured)

    def _joined(self, session: Session, members: Sequence[Candidate]) -> Candidate:
        """The members as one candidate: copies of the program, each with its member's values laid over it."""
        program = nn.Ensemble([copy.deepcopy(session.program(member)) for member in members], self.reduce)
        laid = [(f"members.{number}", member.values) for number, member in enumerate(members)]
        values = {f"{prefix}.{path}": value for prefix, own in laid for path, value in own.items()}
        how = getattr(self.reduce, "__qualname__", None) or type(self.reduce).__name__
        label = value_digest([how, *(member.label for member in members)])
        return Candidate(values, f"{how} of {len(members)} members", program, label, tuple(members))

    def check_trained(self, model: Module) -> None:
        """Check that the optimizer has something to train."""
        self.inner.check_trained(model)

    def expected_demos(self) -> tuple[int, int]:
        """Return the most traces, and the most demos."""
        return self.inner.expected_demos()

    def expected_calls(self, plan: Any) -> list[tuple[str, float, bool]]:
        """Return the phases of the optimizer, `size` times, and the ensemble's score (at most)."""
        once = self.inner.expected_calls(plan)
        phases = [(f"{self.size}x {what}", self.size * calls, exact) for what, calls, exact in once]
        return [*phases, (f"ensemble on {plan.val}", self.size * plan.val * plan.calls_per_example, False)]

    def _shown(self) -> str:
        return f"size={self.size}, of {type(self.inner).__name__}"
