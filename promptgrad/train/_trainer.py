"""`Trainer`: runs an optimizer within a budget, journalled and resumable, and ships only what is confirmed."""

import contextlib
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from promptgrad import aio, lm, run
from promptgrad._seed import seed_or_default
from promptgrad.data import Example
from promptgrad.errors import BudgetExceeded, DataError, JournalError, ParseError
from promptgrad.evaluation import source_digest
from promptgrad.metrics import as_metric
from promptgrad.nn import Module
from promptgrad.optim import Candidate, Measured, Search, Session
from promptgrad.search import EXHAUSTED, Cost, Phase, Plan
from promptgrad.train import _confirm, _rundir
from promptgrad.train._callback import AnyCallback, Watch, checked_callbacks, name_of
from promptgrad.train._install import install
from promptgrad.train._price import price_of_program
from promptgrad.train._result import FitResult, Outcome

FRAME = ("baseline", "confirm", "test")
"""Phases of a plan that stand around the search."""


@dataclass(frozen=True)
class Parts:
    """The data of a run: to learn from, to choose on, to confirm on, to report on."""

    train: list[Example]
    val: list[Example]
    confirm: list[Example]
    test: list[Example]


class Trainer:
    """Improve a program with an optimizer, and prove that it helped.

    The validation data is split, by the seed, into a part on which the optimizer chooses and a part that it never
    sees. At the end the best candidates meet the start on the second part, and the result ships, that is, its values
    are installed in the program, only if the lower bound of their paired difference lies above zero and a permutation
    test agrees. Otherwise the program stays as it was and the report says "no significant gain". What ships may be
    another program, such as several that vote: it is `result.program`, and the one given stays as it was. Test data is
    used once, for the report.

    With `run_dir` every paid call is journalled before it is used. After a crash, a kill or Ctrl-C,
    `Trainer.resume(run_dir, ...)` goes on where it stopped, and no journalled call is sent again. With the same seed
    and the same replies a run makes the same decisions, at any concurrency, interrupted or not.

    When the budget ends, the best so far goes to the confirmation, for which part of the budget is kept: calls, tokens
    and money as measuring the start took them; of a budget in seconds what the start's time suggests, but at most half
    of what is left after it.

    Args:
        model: The program.
        optimizer: The optimizer, made for parameters of this program.
        metric: `metric(example, output)`, as everywhere.
        budget: The most that the run may spend.
        run_dir: Folder for the journal; None keeps it in memory.
        seed: Seed of all choices; None for that of `promptgrad.manual_seed`.
        critic: LM that assigns blame in backward; None for the LM of the module that is blamed.
        teacher: LM or program whose successes become demos; None for the program itself.
        concurrency: Examples in flight.
        confirm: Share (below 1) or number of validation examples that are set aside for the confirmation; None for
            max(50, a quarter), at most half.
        finalists: How many candidates go to the confirmation; the interval is widened for more than one.
        progress: Show progress bars; None for terminals and notebooks only.
        callbacks: What watches the run: instances of `promptgrad.Callback`, and functions of one event.

    Attributes:
        result: The result of the last run; after Ctrl-C or an error, what there was by then.

    Raises:
        ValueError: The optimizer's parameters are not those of the program, or a number is out of range.
        TypeError: The program is no module, the optimizer no optimizer, or a callback none or a coroutine function.
    """

    def __init__(
        self,
        model: Module,
        optimizer: Search,
        *,
        metric: Any,
        budget: run.Budget | None = None,
        run_dir: "str | os.PathLike[str] | None" = None,
        seed: int | None = None,
        critic: Any = None,
        teacher: Any = None,
        concurrency: int | None = None,
        confirm: "float | int | None" = None,
        finalists: int = 2,
        progress: bool | None = None,
        callbacks: Iterable[AnyCallback] = (),
    ) -> None:
        if not isinstance(model, Module):
            raise TypeError(f"Trainer trains a promptgrad.nn.Module, not {type(model).__name__}")
        if not isinstance(optimizer, Search):
            raise TypeError(
                f"Trainer takes an optimizer, such as optim.MIPRO(model.parameters()), not {type(optimizer).__name__}"
            )
        if finalists < 1:
            raise ValueError(f"finalists is at least 1, not {finalists}")
        if concurrency is not None and concurrency < 1:
            raise ValueError(f"concurrency is at least 1, not {concurrency}")
        own = {id(parameter) for parameter in model.parameters()}
        strange = [parameter for parameter in optimizer.parameters() if id(parameter) not in own]
        if strange:
            raise ValueError(
                f"the optimizer trains {strange[0].name or repr(strange[0])}, which is no parameter of this "
                f"{type(model).__name__}: make it with {type(optimizer).__name__}(model.parameters())"
            )
        if budget is not None and not isinstance(budget, run.Budget):
            raise TypeError(f"budget is a promptgrad.Budget, such as Budget(calls=2000, usd=5), not {budget!r}")
        self.model = model
        self.optimizer = optimizer
        self.metric = as_metric(metric)
        self.budget = budget or run.Budget()
        self.run_dir = None if run_dir is None else Path(run_dir)
        self.seed = seed_or_default(seed)
        self.critic = critic
        self.teacher = teacher
        self.concurrency = concurrency
        self.confirm = confirm
        self.finalists = finalists
        self.progress = progress
        self.callbacks = checked_callbacks(callbacks)
        self.result: FitResult | None = None

    # -- before -------------------------------------------------------------------------------------------------

    def plan(
        self,
        trainset: Iterable[Any],
        valset: Iterable[Any] | None = None,
        testset: Iterable[Any] | None = None,
        *,
        calls_per_example: float | None = None,
    ) -> Plan:
        """Estimate what `fit` will cost. Nothing is run and no LM is called.

        Args:
            trainset: As for `fit`.
            valset: As for `fit`.
            testset: As for `fit`.
            calls_per_example: LM calls for one run of the program, where modules are called in loops; by default one
                for each `Predict`.

        Raises:
            DataError: There is no data.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parts = self._parts(trainset, valset, testset)
        price = price_of_program(self.model, parts.train)
        per = calls_per_example if calls_per_example is not None else float(price.modules)
        draft = Plan(
            (),
            per,
            price.tokens,
            price.usd,
            len(parts.train),
            len(parts.val),
            len(parts.confirm),
            len(parts.test),
        )
        exact = price.modules <= 1 or calls_per_example is not None
        finalists = self.finalists if self.optimizer.selects else 1
        phases = []
        if parts.val:
            phases.append(Phase("baseline", round(len(parts.val) * per), exact))
        for name, calls, certain in self.optimizer.expected_calls(draft):
            phases.append(Phase(name, round(calls), certain and exact))
        copies = self.optimizer.copies
        phases.append(Phase("confirm", round((1 + finalists * copies) * len(parts.confirm) * per), exact=False))
        if parts.test:
            phases.append(Phase("test", round((1 + copies) * len(parts.test) * per), exact=False))
        return _with_notes(replace(draft, phases=tuple(phases)), self.budget)

    # -- the run ------------------------------------------------------------------------------------------------

    def fit(
        self, trainset: Iterable[Any], valset: Iterable[Any] | None = None, testset: Iterable[Any] | None = None
    ) -> FitResult:
        """Run the optimizer, confirm what it found, install it if it is better, and report.

        Ctrl-C is raised again once everything in flight is cancelled; the journal stays, the program is as it was,
        and `trainer.result` has the best so far.

        Cost: see `plan`.

        Args:
            trainset: Examples to learn from: a list, or a loader, whose batches are opened once.
            valset: Examples to choose and to confirm on; None takes half of the training data away for that.
            testset: Examples for the final report only.

        Raises:
            DataError: There is no data, or too little to split.
            JournalError: `run_dir` holds a run already, or has a writer.
            BudgetExceeded: The budget does not even cover measuring the start; nothing was changed.
            LMError: The language model is down; what was paid is journalled, and the run can be resumed.
            MetricError: The metric raised on every example.
            GraphError: The optimizer has nothing to train: no parameter of its kinds requires a gradient.
            Exception: What the program raised, if it fails on every validation example.
        """
        return aio.run(self._start(self._parts(trainset, valset, testset)))

    async def afit(
        self, trainset: Iterable[Any], valset: Iterable[Any] | None = None, testset: Iterable[Any] | None = None
    ) -> FitResult:
        """Do as `fit` does, in a coroutine."""
        return await self._start(self._parts(trainset, valset, testset))

    async def _start(self, parts: Parts) -> FitResult:
        self.optimizer.check_trained(self.model)
        if self.run_dir is not None:
            _rundir.create(self.run_dir, self._settings(), self.model.state_dict(), _by_name(parts))
        return await self._run(parts)

    @classmethod
    async def aresume(
        cls,
        run_dir: "str | os.PathLike[str]",
        model: Module,
        optimizer: Search,
        metric: Any,
        *,
        critic: Any = None,
        teacher: Any = None,
        concurrency: int | None = None,
        progress: bool | None = None,
        callbacks: Iterable[AnyCallback] = (),
        data: "Mapping[str, Sequence[Example]] | None" = None,
    ) -> FitResult:
        """Go on with a run that was killed or interrupted, to the result it would have had.

        The run is executed again from its start with the journalled replies, which are not sent again; calls that
        were in flight at the kill are repeated and counted in `result.lost`. Seed, budget, data and the program's
        first values are read from the folder; program, optimizer and metric must be made as they were.

        Args:
            run_dir: Folder of the run.
            model: The program; its parameters are set to the first values of the run.
            optimizer: The optimizer, with the same settings.
            metric: The metric.
            critic: As it was.
            teacher: As it was.
            concurrency: Examples in flight; may differ.
            progress: Show progress bars.
            callbacks: What watches the run; the events of its first part are handed over again, marked as replayed.
            data: The four parts "train", "val", "confirm" and "test", where the examples hold values that JSON has no
                form for and the folder could not keep them.

        Raises:
            JournalError: There is no run in the folder, another process runs it, or program, optimizer, metric or
                data are not those of the run.
            StateDictError: The program has another structure.
            GraphError: As `fit`.
        """
        saved = _rundir.read(Path(run_dir))
        settings = saved.settings
        trainer = cls(
            model,
            optimizer,
            metric=metric,
            budget=run.Budget(**settings["budget"]) if settings["budget"] else None,
            run_dir=run_dir,
            seed=settings["seed"],
            critic=critic,
            teacher=teacher,
            concurrency=concurrency,
            confirm=settings["confirm"],
            finalists=settings["finalists"],
            progress=progress,
            callbacks=callbacks,
        )
        optimizer.check_trained(model)
        examples = saved.data if data is None else {name: list(rows) for name, rows in data.items()}
        if examples is None:
            raise JournalError(
                f"{run_dir} does not hold the run's examples, because they have values that JSON has no form for: "
                "pass data={'train': [...], 'val': [...], 'confirm': [...], 'test': [...]}"
            )
        model.load_state_dict(saved.start)
        return await trainer._run(
            Parts(**{name: examples.get(name, []) for name in ("train", "val", "confirm", "test")})
        )

    resume = aio.blocking_classmethod(aresume)

    async def _run(self, parts: Parts) -> FitResult:
        path = None if self.run_dir is None else self.run_dir / _rundir.JOURNAL
        journal = run.Journal(path)
        ledger = run.Ledger(self.budget, journal)
        session = Session(
            model=self.model,
            train=parts.train,
            val=parts.val,
            metric=self.metric,
            seed=self.seed,
            journal=journal,
            ledger=ledger,
            critic=self.critic,
            teacher=self.teacher,
            concurrency=self.concurrency,
            progress=self.progress,
            parameters=self.optimizer.parameters(),
        )
        report = _Report(self, session, journal, ledger)
        watch = Watch(self, journal, ledger)
        try:
            watch.start()
            with run.active(journal=journal, ledger=ledger), self._context():
                journal.append("run", **self._identity(parts))
                result = await self._phases(session, parts, report)
        except Exception as error:
            result = report.partial(f"{type(error).__name__}: {error}")
            raise
        except BaseException:
            result = report.partial("stopped by the user; the program is as it was")
            raise
        finally:
            journal.close()
            self.result = watch.end(result)
        return self.result

    @contextlib.contextmanager
    def _context(self) -> Iterator[None]:
        if self.concurrency is None:
            yield
        else:
            with lm.context(concurrency=self.concurrency):
                yield

    async def _phases(self, session: Session, parts: Parts, report: "_Report") -> FitResult:
        with run.progress(3 + bool(parts.test), "fit", self.progress) as bar:
            session.cost_per_example = Cost(float(price_of_program(self.model, parts.train).modules))
            if parts.val:
                bar.note("baseline")
                await self._baseline(session)
                if session.baseline is not None and all(
                    score == session.best_score for score in session.baseline.scores
                ):
                    count = len(session.baseline.scores)
                    return await report.final(
                        "nothing to improve", f"0 of {count} validation examples failed, nothing to do", parts
                    )
            bar.advance(note="search")
            await self._search(session, parts, report)
            bar.advance(note="confirm")
            finalists = session.ranked()[: self.finalists if self.optimizer.selects else 1]
            result = await self._ship(session, parts, report, finalists)
            bar.advance(1 + bool(parts.test))
            return result

    async def _baseline(self, session: Session) -> None:
        before = session.ledger.spent
        try:
            with run.phase("baseline"):
                session.baseline = await session.evaluate(session.base, session.val, scope="baseline")
        except BudgetExceeded as error:
            raise BudgetExceeded(
                f"the budget ({self.budget}) does not cover measuring the start on {len(session.val)} validation "
                f"examples: {error}. Nothing was changed",
                kind=error.kind,
                limit=error.limit,
                used=error.used,
            ) from error
        session.trial(session.baseline, "baseline")
        failure = session.baseline.failure
        if session.baseline.errors == len(session.val) and failure is not None and not isinstance(failure, ParseError):
            raise failure  # a program that fails on every example has a bug that no optimizer mends
        after, count = session.ledger.spent, len(session.val)
        if after.calls > before.calls:
            session.cost_per_example = Cost(
                (after.calls - before.calls) / count,
                (after.tokens - before.tokens) / count,
                ((after.usd or 0.0) - (before.usd or 0.0)) / count,
            )

    async def _search(self, session: Session, parts: Parts, report: "_Report") -> None:
        keep = self._kept(session, parts)
        try:
            with run.phase("search", keep=keep):
                await self.optimizer.fit(session)
        except BudgetExceeded as error:
            session.decide(EXHAUSTED, of=error.kind)
            session.notes.append(
                f"the search ended when its share of the budget did ({_share(self.budget, keep, error)})"
            )
        finally:
            session.note_refusals()

    def _kept(self, session: Session, parts: Parts) -> "run.Budget | None":
        """What the search must leave: the confirmation and the test report."""
        import math

        finalists = self.finalists if self.optimizer.selects else 1
        copies = self.optimizer.copies
        runs = (1 + finalists * copies) * len(parts.confirm) + (1 + copies) * len(parts.test)
        cost = session.cost_per_example
        keep = {
            "calls": math.ceil(runs * cost.calls) or None if self.budget.calls is not None else None,
            "tokens": math.ceil(runs * cost.tokens) or None if self.budget.tokens is not None else None,
            "usd": runs * cost.usd or None if self.budget.usd is not None else None,
            "seconds": _time_kept(session, runs, self.budget.seconds) if self.budget.seconds is not None else None,
        }
        return run.Budget(**keep) if any(keep.values()) else None  # type: ignore[arg-type]

    async def _ship(
        self, session: Session, parts: Parts, report: "_Report", finalists: Sequence[Measured]
    ) -> FitResult:
        if not finalists:
            return await report.final("no candidate", "the search found nothing that could be confirmed", parts)
        names = [entry.candidate for entry in finalists]
        try:
            with run.phase("confirm"):
                measured = await session.evaluate_all([session.base, *names], parts.confirm, scope="confirm")
        except BudgetExceeded as error:
            report.best = names[0]
            return await report.final(
                "not confirmed", f"the budget ended before the confirmation ({error.kind})", parts
            )
        seed, best = session.spawn("confirm"), session.best_score
        gains = [_confirm.compare(measured[0], one, finalists=len(names), seed=seed, best=best) for one in measured[1:]]
        chosen = _confirm.best_of(gains)
        gain = gains[chosen]
        report.before = _confirm.estimate(measured[0], seed=seed, best=best)
        report.after = _confirm.estimate(measured[1 + chosen], seed=seed, best=best)
        report.gain = gain
        report.best = names[chosen]
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
            return await report.final("shipped", f"{names[chosen].origin}: {gain}", parts, names[chosen])
        reason = f"the start stays; the best candidate's gain is {gain}{_confirm.objection(gain, len(names))}"
        return await report.final("no significant gain", reason, parts)

    # -- data and settings --------------------------------------------------------------------------------------

    def _parts(self, trainset: Iterable[Any], valset: Iterable[Any] | None, testset: Iterable[Any] | None) -> Parts:
        train = _examples(trainset, "trainset")
        test = _examples(testset, "testset") if testset is not None else []
        if valset is None:
            if len(train) < 4:
                raise DataError(
                    f"{len(train)} training examples cannot be split into training and validation data: "
                    "give more of them, or a valset"
                )
            run.rng(self.seed, "split", "train").shuffle(train)
            half = len(train) // 2
            train, val = train[half:], train[:half]
        else:
            val = _examples(valset, "valset")
        _warn_of_overlap(train, val, test)
        if not self.optimizer.selects:
            return Parts(train, [], val, test)
        if len(val) < 2:
            raise DataError(f"{len(val)} validation example cannot serve both to choose and to confirm: give more")
        order = list(val)
        run.rng(self.seed, "split", "confirm").shuffle(order)
        size = _confirm.confirm_size(len(order), self.confirm)
        return Parts(train, order[size:], order[:size], test)

    def _settings(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "budget": {name: value for name, value in vars(self.budget).items() if value is not None},
            "confirm": self.confirm,
            "finalists": self.finalists,
        }

    def _identity(self, parts: Parts) -> dict[str, Any]:
        """What a resumed run must have in common with the run it goes on with."""
        return {
            **self._settings(),
            "program": type(self.model).__name__,
            "start": run.value_digest(self.model.state_dict()),
            "optimizer": self.optimizer.config(),
            "source": source_digest(self.model),
            "metric": source_digest(getattr(self.metric, "fn", self.metric)),
            "data": {
                name: run.value_digest([example.id for example in getattr(parts, name)])
                for name in ("train", "val", "confirm", "test")
            },
        }

    def __repr__(self) -> str:
        where = f", run_dir={str(self.run_dir)!r}" if self.run_dir is not None else ""
        watched = f", callbacks: {', '.join(map(name_of, self.callbacks))}" if self.callbacks else ""
        about = f"{type(self.model).__name__}, {type(self.optimizer).__name__}, budget: {self.budget}"
        return f"Trainer({about}{where}{watched})"


class _Report:
    """Gathers what the result will say."""

    def __init__(self, trainer: Trainer, session: Session, journal: run.Journal, ledger: run.Ledger) -> None:
        self.trainer = trainer
        self.session = session
        self.journal = journal
        self.ledger = ledger
        self.before: Any = None
        self.after: Any = None
        self.gain: Any = None
        self.best: Candidate | None = None
        self.program = trainer.model

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
                    measured = await session.evaluate_all(wanted, parts.test, scope="test")
                test_before = _confirm.estimate(measured[0], seed=seed, best=best)
                test_after = _confirm.estimate(measured[-1], seed=seed, best=best)
            except BudgetExceeded as error:
                session.notes.append(f"the budget ended before the test report ({error.kind})")
        session.decide("result", outcome=outcome, candidate=shipped.key if shipped is not None else None)
        if shipped is not None:
            self.program = install(self.trainer.model, shipped)
        return self._result(outcome, reason, test_before, test_after, shipped)

    def partial(self, reason: str) -> FitResult:
        """What there was when the run stopped."""
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
            run_dir="" if self.trainer.run_dir is None else str(self.trainer.run_dir),
        )


def _by_name(parts: Parts) -> dict[str, list[Example]]:
    """The parts by name."""
    return {"train": parts.train, "val": parts.val, "confirm": parts.confirm, "test": parts.test}


def _examples(data: Iterable[Any], name: str) -> list[Example]:
    if isinstance(data, (str, Mapping, Example)):
        raise DataError(f"{name} is a list of examples, not one {type(data).__name__}")
    rows = [row for item in data for row in (item if isinstance(item, list) else [item])]  # a loader gives batches
    examples = [row if isinstance(row, Example) else Example(row) for row in rows]
    if not examples:
        raise DataError(f"{name} is empty")
    return examples


def _warn_of_overlap(train: Sequence[Example], val: Sequence[Example], test: Sequence[Example]) -> None:
    known = {example.id for example in train}
    chosen = {example.id for example in val}
    for one, other, what in (
        (known, chosen, "training and validation data"),
        (known, {example.id for example in test}, "training and test data"),
        (chosen, {example.id for example in test}, "validation and test data"),
    ):
        shared = len(one & other)
        if shared:
            warnings.warn(
                f"{shared} example{'s are' if shared > 1 else ' is'} in both {what}: scores will look too good",
                stacklevel=4,
            )


def _time_kept(session: Session, runs: int, limit: float) -> float | None:
    """Seconds to keep for so many runs of the program; from the journal, so that a resumed run reckons as the first."""
    began = 0.0
    if session.baseline is None:
        return None
    for event in session.journal.events():
        if event["kind"] == "run":
            began = event["t"]
        elif event["kind"] == "evaluation":  # the first one measured the start
            ended = event["t"]
            took = (ended - began) * runs / max(1, event["examples"])
            return min(took, (limit - ended) / 2) if took > 0 and ended < limit else None
    return None


def _share(budget: run.Budget, keep: "run.Budget | None", error: BudgetExceeded) -> str:
    """What the search could spend, such as "calls: 300 of 500, 200 kept for confirmation and test"."""
    limit = getattr(budget, error.kind, None)
    kept = getattr(keep, error.kind, None) or 0
    if limit is None:
        return error.kind
    text = f"{error.kind}: {max(0, limit - kept):.10g} of {limit:.10g}"
    return f"{text}, {kept:.10g} kept for confirmation and test" if kept else text


def _with_notes(plan: Plan, budget: run.Budget) -> Plan:
    notes = []
    frame = replace(plan, phases=tuple(phase for phase in plan.phases if phase.name in FRAME))
    around = " and ".join(", ".join(phase.name for phase in frame.phases).rsplit(", ", 1))
    if budget.calls is not None and frame.calls > budget.calls:
        notes.append(
            f"the budget of {budget.calls} calls is too small for {around}: it needs at least {frame.calls} calls"
        )
    elif budget.calls is not None and plan.calls > budget.calls:
        notes.append(f"the budget of {budget.calls} calls may end the search early")
    if budget.tokens is not None and frame.tokens > budget.tokens:
        notes.append(
            f"the budget of {budget.tokens} tokens is too small for {around}: it needs at least about {frame.tokens}"
        )
    elif budget.tokens is not None and plan.tokens > budget.tokens:
        notes.append(f"the budget of {budget.tokens} tokens may end the search early")
    if budget.usd is not None:
        if plan.usd is None:
            notes.append("the price of a language model is unknown, so a budget in money will be refused")
        elif frame.usd is not None and frame.usd > budget.usd:
            notes.append(
                f"the budget of ${budget.usd:g} is too small for {around}: it needs at least about ${frame.usd:.4g}"
            )
        elif plan.usd > budget.usd:
            notes.append(f"the budget of ${budget.usd:g} may end the search early")
    if plan.confirm < _confirm.LEAST:
        least = _confirm.detectable(plan.confirm)
        notes.append(f"{plan.confirm} examples to confirm on show gains of about {least:.0%} and more")
    return replace(plan, notes=tuple(notes))
