"""The finals: what the search left open about its best candidates is measured, and the posterior decides."""

import math
from collections.abc import Sequence
from statistics import NormalDist, pvariance
from typing import Any

from promptgrad import lm, run
from promptgrad._numbers import is_number
from promptgrad.data import Example
from promptgrad.errors import BudgetExceeded, NoLMError
from promptgrad.evaluation import JUDGING
from promptgrad.nn import Predict, Prediction
from promptgrad.search import Candidate, Measured, Session, Standing, Standings
from promptgrad.train._result import Estimate, Gain

REPLICATES = 4
"""Most runs of one candidate on one row."""

CLEAR = 0.98
"""Chance from which on further runs of the same rows are not worth their calls."""

HOPELESS = 0.05
"""Chance below which a candidate's remaining rows are not run."""

DIM = 0.2
"""Chance below which it is not run again on the rows that it has."""

LEVEL = 0.95
"""Coverage of the interval that a report gives."""


def check_rule(ship: Any, confirm: Any) -> None:
    """Check the rule by which a result ships.

    Raises:
        ValueError: `ship` is neither a probability in [0.5, 1) nor "significant", or `confirm` is given without it.
        TypeError: `confirm` is not a number.
    """
    if confirm is not None and not is_number(confirm):
        raise TypeError(f"confirm is a share or a number of validation examples, not {confirm!r}")
    if ship == "significant":
        return
    if not is_number(ship) or not 0.5 <= ship < 1:
        raise ValueError(f'ship is a probability in [0.5, 1) or "significant", not {ship!r}')
    if confirm is not None:
        raise ValueError(
            f"confirm={confirm!r} sets validation examples aside to confirm on, which only "
            'Trainer(..., ship="significant") does: leave confirm out, or ask for that rule'
        )


class Finals:
    """Measures the finalists of a search on the rows that they lack, and finds the best of them.

    Args:
        session: The session after the search.
        rows: The examples that decide: those that the search chose on, or, for an optimizer that makes no choice, all
            validation data.
        count: How many finalists.
        ship: The chance from which on a candidate ships.
        varies: Whether the metric is known to give one output different scores; None if that is not known.
    """

    def __init__(
        self, session: Session, rows: Sequence[Example], *, count: int, ship: float, varies: bool | None = None
    ) -> None:
        self.session = session
        self.rows = list(rows)
        self.count = count
        self.ship = ship
        self.varies = varies
        ids = [example.id for example in rows]
        self.standings = session.standings if session.val else Standings(session.base, ids)
        self._offered = {entry.candidate.key: entry.candidate for entry in session.finalists}

    async def run(self) -> Standing | None:
        """Measure what can change the decision, within what the budget leaves; return the best, or None.

        Cost: runs of the finalists on rows that they lack. Where the budget is limited, and replies or scores are known
        to vary, further runs of the best candidate and the start on all rows; where that is not known, one run of one
        row tells.
        """
        try:
            await self._complete()
            if self._undecided() and self._limited():
                await self._replicate()
        except BudgetExceeded as error:
            if (here := run.current()) is not None:
                here.catch_up("finals")
            self.session.decide(run.EXHAUSTED, of=error.kind)
        return self.best()

    def best(self) -> Standing | None:
        """The finalist with the highest gain among those that ship, else among all; the shorter of equals."""
        known = self.ranked()
        return next((standing for standing in known if standing.chance >= self.ship), next(iter(known), None))

    def ranked(self) -> list[Standing]:
        """The standings of the offered candidates, best first."""
        known = [one for one in self.standings.posterior() if one.candidate.key in self._offered]
        return sorted(known, key=lambda one: (-round(one.gain, 9), one.candidate.size))

    async def _complete(self) -> None:
        """Run the finalists on the rows that they lack, the most promising first."""
        tried: set[str] = set()
        if self.standings.of(self.session.base) is None:  # an optimizer that makes no choice: all at once
            first = [self.session.base, *list(self._offered.values())[: self.count]]
            await self._measure(first, self.rows, "finals")
            tried |= {candidate.key for candidate in first}
        while True:
            lacking = [
                (standing, missing)
                for standing in self.ranked()[: self.count]
                if standing.chance >= HOPELESS and standing.candidate.key not in tried
                for missing in [self._missing(standing)]
                if missing
            ]
            if not lacking:
                return
            standing, missing = lacking[0]
            tried.add(standing.candidate.key)
            await self._measure([standing.candidate], missing, f"finals/{len(tried)}")

    async def _replicate(self) -> None:
        """Run start and best candidate again, if their scores vary, until the decision is clear."""
        if not await self._may_vary():
            return
        for replicate in range(1, REPLICATES):
            best = self.best()
            if best is None or not self._undecided():
                return
            await self._measure([self.session.base, best.candidate], self.rows, "finals/again", replicate=replicate)
            if not self.standings.varies():
                return
            if replicate == 1:
                self.session.notes.append("scores vary from run to run, so the finalists were run several times")

    async def _may_vary(self) -> bool:
        """Whether running a program again may give another score.

        It does where a row of the search was run twice and scored otherwise, where a judge is known to vary, or where a
        call of the program is sampled at a temperature above 0; it does not where all are at 0 by their settings. Where
        they leave it open, nothing outside of the model tells: one row is run again, that on which candidates differ
        most, and its reply compared.
        """
        for known in (self.standings.varies(), self.varies, is_sampled(self.session)):
            if known is not None:
                return known
        row = max(self.rows, key=self._contest)
        before = self.standings.of(self.session.base)
        again = await self._measure([self.session.base], [row], "finals/probe", replicate=1)
        if before is None or row.id not in before.ids:
            return False
        place = before.ids.index(row.id)
        return again[0].scores[0] != before.scores[place] or _differ(again[0].outputs[0], before.outputs[place])

    def _contest(self, example: Example) -> float:
        """How much the scores of the candidates differ on a row."""
        scores = [score for one in self.standings if (score := one.by_id().get(example.id)) is not None]
        return pvariance(scores) if scores else -1.0

    def _undecided(self) -> bool:
        best = self.best()
        return best is not None and DIM < best.chance < CLEAR

    def _limited(self) -> bool:
        budget = self.session.ledger.budget
        return not (budget.calls is None and budget.tokens is None and budget.usd is None)

    def _missing(self, standing: Standing) -> list[Example]:
        known = standing.measured.by_id()
        return [example for example in self.rows if example.id not in known]

    async def _measure(
        self, candidates: Sequence[Candidate], rows: Sequence[Example], scope: str, *, replicate: int = 0
    ) -> list[Measured]:
        """Run candidates on as many of the rows as the budget leaves room for.

        Raises:
            BudgetExceeded: There is not even room for one.
        """
        found = await self.session.evaluate_within(candidates, rows, scope=scope, phase="finals", replicate=replicate)
        if self.standings is not self.session.standings:
            for measured in found:
                self.standings.add(measured, replicate)
        return found


def is_sampled(session: Session) -> bool | None:
    """Whether the program's calls are sampled: None where a temperature is left to the model, or a metric may call one.

    Cost: none.
    """
    temperatures = {_temperature(module) for module in session.program().modules() if isinstance(module, Predict)}
    if temperatures - {None, 0}:
        return True
    start = session.baseline
    judged = start is not None and any(session.costs.of(JUDGING, start).values())
    return False if temperatures == {0} and not judged else None


def _temperature(module: Predict) -> float | None:
    """The temperature that a module or its language model sets; None where it is left to the model."""
    try:
        transport = lm.resolve_lm(None, module.lm).transport
    except NoLMError:  # the program sets one call by call
        return None
    options = transport.options if isinstance(transport, lm.Transport) else {}
    return {**options, **module.options}.get("temperature")


def _differ(first: object, second: object) -> bool:
    """Whether two replies are known to differ; objects that compare by identity tell nothing."""
    known = (Prediction, str, int, float, bool, list, tuple, dict)
    return isinstance(first, known) and isinstance(second, known) and first != second


def gain_of(best: Standing, *, chosen: bool, most: float = 1.0) -> Gain:
    """The report of a decision by the posterior: the expected gain, shrunken, with its interval."""
    width = NormalDist().inv_cdf((1 + LEVEL) / 2) * best.sd
    rows = len(best.measured.known)
    source = f"on {rows} validation examples that the search also chose on" if chosen else f"on {rows} examples"
    low, high = max(-most, best.gain - width), min(most, best.gain + width)
    return Gain(best.gain, low, high, LEVEL, rows, math.nan, best.chance, source)


def expected(start: Measured, best: Standing, *, most: float) -> Estimate:
    """What is expected of the best candidate where the start has the mean that was measured: that mean and the gain."""
    gain = gain_of(best, chosen=True, most=most)
    mean, low, high = (min(most, start.mean + end) for end in (gain.mean, gain.low, gain.high))
    return Estimate(mean, low, high, len(best.measured.known), best.measured.errors)
