"""The end of a run: the best candidate ships if it is likely, or confirmed, to be better, and the result is made."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from promptgrad import run
from promptgrad.errors import BudgetExceeded
from promptgrad.evaluation import JudgeNoise
from promptgrad.search import Candidate, Measured, Session
from promptgrad.train import _confirm, _finals
from promptgrad.train._finals import Finals
from promptgrad.train._install import install
from promptgrad.train._pareto_front import front_of
from promptgrad.train._parts import Parts
from promptgrad.train._result import FitResult, Outcome

if TYPE_CHECKING:
    from promptgrad.train._trainer import Trainer


class Ending:
    """Ends a run: confirms the best of the search, installs it if it is better, and makes the result."""

    def __init__(self, trainer: "Trainer", session: Session, journal: run.Journal, ledger: run.Ledger) -> None:
        self.trainer = trainer
        self.session = session
        self.journal = journal
        self.ledger = ledger
        self.before: Any = None
        self.after: Any = None
        self.measured: Any = None
        self.gain: Any = None
        self.best: Candidate | None = None
        self.program = trainer.model
        self.judge: JudgeNoise | None = None
        self._start = {path: parameter.data for path, parameter in trainer.model.named_parameters()}

    async def confirm(self, finalists: Sequence[Measured], parts: Parts) -> FitResult:
        """Compare the finalists with the start on data that no choice was based on; ship the best if it is better."""
        session = self.session
        if not finalists:
            return await self.final("no candidate", "the search found nothing that could be confirmed", parts)
        names = [entry.candidate for entry in finalists]
        try:
            with run.phase("confirm"):
                measured = await session.evaluate_all([session.base, *names], parts.confirm, scope="confirm")
        except BudgetExceeded as error:
            catch_up("confirm")
            self.best = names[0]
            return await self.final("not confirmed", f"the budget ended before the confirmation ({error.kind})", parts)
        seed, best = session.spawn("confirm"), session.best_score
        gains = [_confirm.compare(measured[0], one, finalists=len(names), seed=seed, best=best) for one in measured[1:]]
        chosen = _confirm.best_of(gains)
        gain = gains[chosen]
        self.before = _confirm.estimate(measured[0], seed=seed, best=best)
        self.after = self.measured = _confirm.estimate(measured[1 + chosen], seed=seed, best=best)
        self.gain = gain
        self.best = names[chosen]
        shipped = _confirm.ships(gain, len(names))
        session.decide(
            "confirm",
            candidates=[name.key for name in names],
            gains=[[one.mean, one.low, one.high, one.p] for one in gains],
            shipped=names[chosen].key if shipped else None,
        )
        if gain.pairs < _confirm.LEAST:
            session.notes.append(
                f"{gain.pairs} examples confirm gains of about {_confirm.detectable(gain.pairs):.0%} and more; "
                "smaller ones need more validation data"
            )
        if shipped:
            return await self.final("shipped", f"{names[chosen].origin}, confirmed", parts, names[chosen])
        reason = f"the start stays, as no gain was confirmed{_confirm.objection(gain, len(names))}"
        return await self.final("no significant gain", reason, parts)

    async def decide(self, finals: Finals, parts: Parts, keep: run.Budget | None) -> FitResult:
        """Measure what the search left open of its best candidates; ship the best if it is likely better."""
        session = self.session
        if not session.finalists:
            return await self.final("no candidate", self._why_none(), parts)
        with run.phase("finals", keep=keep):
            best = await finals.run()
        if best is None:
            self.best = session.ranked()[0].candidate
            return await self.final("not confirmed", "the budget ended before anything could be compared", parts)
        start = finals.standings.of(session.base)
        seed, most = session.spawn("confirm"), session.best_score
        if start is not None:
            self.before = _confirm.estimate(start, seed=seed, best=most)
            self.after = _finals.expected(start, best, most=most)
            self.measured = _confirm.estimate(best.measured, seed=seed, best=most)
        self.gain = gain = _finals.gain_of(best, chosen=bool(parts.val), most=most)
        self.best = best.candidate
        shipped = best.chance >= finals.ship
        session.decide(
            "ship",
            candidates=[[one.candidate.key, round(one.gain, 9), round(one.chance, 9)] for one in finals.ranked()],
            shipped=best.candidate.key if shipped else None,
        )
        if gain.pairs < _confirm.LEAST:
            session.notes.append(_confirm.shows(gain.pairs))
        if shipped:
            reason = f"{best.candidate.origin}, better than the start with P = {best.chance:.3f}"
            return await self.final("shipped", reason, parts, best.candidate)
        reason = f"the start stays: the best candidate is better with P = {best.chance:.3f}, less than {finals.ship:g}"
        return await self.final("no likely gain", reason, parts)

    def _why_none(self) -> str:
        tried = sum(one.candidate.key != self.session.base.key for one in self.session.standings)
        if tried:
            return f"the search found nothing to decide on: candidates on validation examples: {tried}, all fell behind"
        return "the search found nothing to decide on: no candidate came so far as to be run on validation examples"

    async def final(self, outcome: Outcome, reason: str, parts: Parts, shipped: Candidate | None = None) -> FitResult:
        """Measure start and result on the test set, install what ships, and sum up."""
        session = self.session
        seed, best = session.spawn("confirm"), session.best_score
        if self.before is None and session.baseline is not None:
            self.before = _confirm.estimate(session.baseline, seed=seed, best=best)
        test_before = test_after = None
        if parts.test:
            wanted = [session.base] if shipped is None else [session.base, shipped]
            try:
                with run.phase("test"):
                    measured = await session.evaluate_within(wanted, parts.test, scope="test", phase="test")
                both = set.intersection(*[set(one.ids) for one in measured])
                if len(both) < len(parts.test):
                    session.notes.append(f"the budget ended after {len(both)} of {len(parts.test)} test examples")
                before, *_, after = [one.without({*one.ids} - both) for one in (*measured, measured[-1])]
                if both:
                    test_before = _confirm.estimate(before, seed=seed, best=best)
                    test_after = _confirm.estimate(after, seed=seed, best=best)
            except BudgetExceeded as error:
                catch_up("test")
                session.notes.append(f"the budget ended before the test report ({error.kind})")
        session.decide("result", outcome=outcome, candidate=shipped.key if shipped is not None else None)
        if shipped is not None:
            self.program = install(self.trainer.model, shipped)
        return self._result(outcome, reason, test_before, test_after, shipped)

    def partial(self, reason: str) -> FitResult:
        """The result at the point where the run stopped."""
        return self._result("interrupted", reason, None, None, None)

    def _result(
        self, outcome: Outcome, reason: str, test_before: Any, test_after: Any, shipped: Candidate | None
    ) -> FitResult:
        session = self.session
        best = self.best or next((entry.candidate for entry in session.ranked()), session.incumbent)
        return FitResult(
            outcome=outcome,
            reason=reason,
            before=self.before,
            after=self.after,
            gain=self.gain,
            measured=self.measured,
            test_before=test_before,
            test_after=test_after,
            values=dict(shipped.values) if shipped is not None else {},
            best=dict(best.values),
            program=self.program,
            candidate=best,
            history=tuple(session.history),
            spent=self.ledger.spent,
            phases=self.ledger.phases,
            seconds=self.journal.elapsed,
            lost=self.journal.lost,
            notes=tuple(session.notes),
            pareto=front_of(session, self.trainer.model, self._start),
            judge=self.judge,
            run_dir="" if self.trainer.run_dir is None else str(self.trainer.run_dir),
        )


def catch_up(phase: str) -> None:
    """Book what earlier processes paid in a block of a phase that the budget cut off here."""
    if (here := run.current()) is not None:
        here.catch_up(phase)
