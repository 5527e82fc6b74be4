"""`Trainer`: runs an optimizer within a budget, journalled and resumable, and ships only what is likely better."""

import contextlib
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from promptgrad import aio, lm, run
from promptgrad._habits import refuses
from promptgrad._numbers import check_counts, optional_count
from promptgrad._seed import seed_or_default
from promptgrad.data import Example
from promptgrad.errors import BudgetExceeded, JournalError, ParseError
from promptgrad.metrics import as_metric
from promptgrad.nn import Module, whole_state
from promptgrad.optim import Search, Session
from promptgrad.search import Cost, Objectives, Plan, Stop
from promptgrad.train import _rundir
from promptgrad.train._allowance import kept, share
from promptgrad.train._callback import AnyCallback, Watch, checked_callbacks, name_of
from promptgrad.train._ending import Ending, catch_up
from promptgrad.train._fill import fill
from promptgrad.train._finals import Finals, check_rule
from promptgrad.train._habits import FIT_HABITS, TRAINER_HABITS
from promptgrad.train._identity import Sources, as_arguments, begin, settings_of, sources_of
from promptgrad.train._live_run import LiveRun
from promptgrad.train._noise import checked_rows, judge_noise_of
from promptgrad.train._parts import Parts, divide
from promptgrad.train._planning import planned
from promptgrad.train._price import price_of_program
from promptgrad.train._result import FitResult


class Trainer(LiveRun):
    """Improve a program with an optimizer, and say how sure it is that this helped.

    All candidates are compared with the start on the validation data. At the end the rows that the best ones lack are
    run, and the best ships, that is, its values are installed in the program, if the probability that it is truly
    better is at least `ship`, given all that was measured of all candidates and corrected for the choice among them
    (`Standings`). Otherwise the program stays as it was and the report says "no likely gain". In simulated searches
    of every kind at most 3 % then ship something worse than the start.

    `ship="significant"` is stricter: the validation data is split, by the seed, into a part on which the optimizer
    chooses and one that it never sees, and the best candidate ships only if the lower bound of its paired difference
    from the start on that part lies above zero and a permutation test agrees.

    The result may be another program, such as several that vote: then `result.program`. Test data is for the report.

    With `run_dir` every paid call is journalled before it is used. After a crash, a kill or Ctrl-C,
    `Trainer.resume(run_dir, ...)` goes on where it stopped, and no journalled call is sent again. With the same seed
    and the same replies a run makes the same decisions, at any concurrency, interrupted or not.

    What a search leaves of a limited budget runs the finalists again where scores vary from run to run and the decision
    is not clear. For the test report, and for a confirmation, part of the budget is kept: calls, tokens and money by
    what the start cost; of a budget in seconds what its time suggests, but at most half of what is left after it.

    Args:
        model: The program.
        optimizer: The optimizer, made for parameters of this program.
        metric: `metric(example, output)`, as in `evaluate`.
        budget: The most that the run may spend.
        run_dir: Folder for the journal; None keeps it in memory.
        seed: Seed of all choices; None for that of `promptgrad.manual_seed`.
        critic: LM that divides blame in backward; None for the LM of the module that is blamed.
        engine: How the critic is asked: "joint" about several failed runs side by side, "local" about one call at a
            time; None for what takes fewer calls, see `Loss.backward`.
        group: Most failed runs in one joint call; None for the critic's own bound, 8.
        teacher: LM or program whose successes become demos; None for the program itself. See `synthesize`.
        concurrency: Examples in flight.
        ship: Probability of being better from which on the best ships, in [0.5, 1), or "significant".
        confirm: Only with `ship="significant"`: share (below 1) or number of validation examples that are set aside
            for the confirmation; None for max(50, a quarter), at most half.
        finalists: How many candidates are measured on all validation data at the end; with "significant", how many go
            to the confirmation, whose interval is widened for more than one.
        progress: Show progress bars; None for terminals and notebooks only.
        callbacks: Observers of the run: instances of `promptgrad.Callback`, and functions of one event.
        objectives: What candidates are weighed by beside the score, each with its direction: `{"tokens": "min",
            "usd": "min", "seconds": "min"}`, and parts of the metric's scores. `result.pareto` has the candidates that
            none beats on all of them, if the optimizer compares candidates; what ships is decided by the score alone.
            See `search.Objectives`.
        judge_rows: Number of outputs of the start that a metric that calls language models scores twice more, for
            `result.judge`, its noise; 0 for none; None for 6, if that is at most a twentieth of the budget's calls.
        synthesize: Training examples to have: `nn.Synthesizer` writes what lacks, on the teacher's LM or the program's.

    Attributes:
        result: The result of the last run; after Ctrl-C or an error, the result so far.

    Raises:
        ValueError: The optimizer's parameters are not those of the program, a number is out of range, or `confirm` is
            given without "significant".
        TypeError: The program is not a module, the optimizer is not an optimizer, or a callback is not a callback or is
            a coroutine function.
    """

    @refuses(TRAINER_HABITS)
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
        engine: str | None = None,
        group: int | None = None,
        teacher: Any = None,
        concurrency: int | None = None,
        ship: 'float | Literal["significant"]' = 0.9,
        confirm: "float | int | None" = None,
        finalists: int = 2,
        progress: bool | None = None,
        callbacks: Iterable[AnyCallback] = (),
        objectives: "Mapping[str, str] | Iterable[str]" = (),
        judge_rows: int | None = None,
        synthesize: int = 0,
    ) -> None:
        if not isinstance(model, Module):
            raise TypeError(f"Trainer trains a promptgrad.nn.Module, not {type(model).__name__}")
        if not isinstance(optimizer, Search):
            raise TypeError(
                f"Trainer takes an optimizer, such as optim.MIPRO(model.parameters()), not {type(optimizer).__name__}"
            )
        if engine not in (None, "joint", "local"):
            raise ValueError(f"engine is 'joint', 'local' or None for what is cheaper, not {engine!r}")
        check_counts(finalists=(finalists, 1), synthesize=(synthesize, 0))
        check_rule(ship, confirm)
        own = {id(parameter) for parameter in model.parameters()}
        strange = [parameter for parameter in optimizer.parameters() if id(parameter) not in own]
        if strange:
            raise ValueError(
                f"the optimizer trains {strange[0].name or repr(strange[0])}, which is not a parameter of this "
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
        self.engine, self.group = engine, optional_count("group", group)
        self.teacher = teacher
        self.concurrency = optional_count("concurrency", concurrency)
        self.ship = ship
        self.confirm = confirm
        self.finalists = finalists
        self.progress = progress
        self.callbacks = checked_callbacks(callbacks)
        self.objectives = Objectives(objectives)
        self.judge_rows = checked_rows(judge_rows)
        self.synthesize = synthesize
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
            calls_per_example: LM calls for one run of the program, if modules are called in loops; by default one for
                each `Predict`.

        Raises:
            DataError: There is no data.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parts = self._parts(trainset, valset, testset)
        return planned(self, parts, calls_per_example)

    # -- the run ------------------------------------------------------------------------------------------------

    @refuses(FIT_HABITS)
    def fit(
        self, trainset: Iterable[Any], valset: Iterable[Any] | None = None, testset: Iterable[Any] | None = None
    ) -> FitResult:
        """Run the optimizer, decide on its result, install it if it is likely better, and report.

        Ctrl-C is raised again once everything in flight is cancelled; the journal stays, the program is as it was,
        and `trainer.result` has the best so far.

        Cost: see `plan`.

        Args:
            trainset: Examples to learn from: a list, or a loader, whose batches are opened once.
            valset: Examples to choose and to decide on; None sets half of the training data aside for that.
            testset: Examples for the final report only.

        Raises:
            DataError: There is no data, or too little to split.
            JournalError: `run_dir` holds a run already, or has a writer.
            BudgetExceeded: The budget does not even cover measuring the start; nothing was changed.
            LMError: The language model is down; what was paid is journalled, and the run can be resumed.
            MetricError: The metric raised on every example.
            GraphError: The optimizer has nothing to train: no parameter of its kinds requires a gradient.
            Exception: The program's own error, if it fails on every validation example.
        """
        with aio.pointing_at(aio.Caller()):
            return aio.run(self._start(self._parts(trainset, valset, testset)))

    @refuses(FIT_HABITS)
    async def afit(
        self, trainset: Iterable[Any], valset: Iterable[Any] | None = None, testset: Iterable[Any] | None = None
    ) -> FitResult:
        """As `fit`, from a coroutine."""
        return await self._start(self._parts(trainset, valset, testset))

    async def _start(self, parts: Parts) -> FitResult:
        self.optimizer.check_trained(self.model)
        if self.run_dir is None:
            return await self._run(parts, run.Journal())
        about = settings_of(self), whole_state(self.model.state_dict()), parts.by_name(), sources_of(self)
        return await self._run(parts, _rundir.create(self.run_dir, *about))

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
        """Continue a run that was killed or interrupted, to the result that it would have had.

        The run is executed again from its start with the journalled replies, which are not sent again; calls that
        were in flight at the kill are repeated and counted in `result.lost`. Seed, budget, data and the program's
        first values are read from the folder; program, optimizer and metric must be made as they were.

        Args:
            run_dir: Folder of the run.
            model: The program; its parameters are set to the first values of the run.
            optimizer: The optimizer, with the same settings.
            metric: The metric.
            critic: As in the run.
            teacher: As in the run.
            concurrency: Examples in flight; may differ.
            progress: Show progress bars.
            callbacks: Observers of the run; the events of its first part are delivered again, marked as replayed.
            data: The data that `fit` was given, as "train", "val" and "test", if the examples hold values without a
                JSON form, which the folder could not keep. It is divided as it was; with a part "confirm" it is
                taken as it is.

        Raises:
            JournalError: There is no run in the folder, another process runs it, or program, optimizer, metric or
                data are not those of the run.
            StateDictError: The program has another structure.
            GraphError: As `fit`.
        """
        saved = _rundir.read(Path(run_dir))
        trainer = cls(
            model,
            optimizer,
            metric=metric,
            run_dir=run_dir,
            critic=critic,
            teacher=teacher,
            concurrency=concurrency,
            progress=progress,
            callbacks=callbacks,
            **as_arguments(saved.settings),
        )
        optimizer.check_trained(model)
        examples = saved.data if data is None else {name: list(rows) for name, rows in data.items()}
        if examples is None:
            raise JournalError(
                f"{run_dir} does not hold the run's examples, because they have values without a JSON form: "
                "pass what fit was given, data={'train': [...], 'val': [...], 'test': [...]}"
            )
        model.load_state_dict(saved.start)
        if "confirm" in examples:
            parts = Parts(**{name: examples.get(name, []) for name in ("train", "val", "confirm", "test")})
        else:
            parts = trainer._parts(examples.get("train", []), examples.get("val"), examples.get("test"))
        return await trainer._run(parts, run.Journal(Path(run_dir) / _rundir.JOURNAL), saved.sources)

    resume = aio.blocking_classmethod(aresume)

    async def _run(self, parts: Parts, journal: run.Journal, sources: "Sources | None" = None) -> FitResult:
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
            engine=self.engine,
            group=self.group,
            teacher=self.teacher,
            concurrency=self.concurrency,
            progress=self.progress,
            parameters=self.optimizer.parameters(),
            objectives=self.objectives,
        )
        self._session = session
        ending = Ending(self, session, journal, ledger)
        watch = Watch(self, journal, ledger)
        try:
            watch.start()
            with run.active(journal=journal, ledger=ledger), self._context():
                begin(self, journal, parts, sources or {})
                result = await self._phases(session, parts, ending)
        except Exception as error:
            if not isinstance(error, JournalError):
                journal.withdraw()  # what failed is asked again when the run is resumed
            result = ending.partial(f"{type(error).__name__}: {error}")
            raise
        except BaseException:
            result = ending.partial("stopped by the user; the program is as it was")
            raise
        finally:
            self._session = None
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

    async def _phases(self, session: Session, parts: Parts, ending: Ending) -> FitResult:
        with run.progress(3 + bool(parts.test), "fit", self.progress) as bar:
            session.cost_per_example = Cost(float(price_of_program(self.model, parts.train).modules))
            if parts.val:
                bar.note("baseline")
                await self._baseline(session)
                if session.baseline is not None and all(
                    score == session.best_score for score in session.baseline.scores
                ):
                    count = len(session.baseline.scores)
                    return await ending.final(
                        "nothing to improve", f"0 of {count} validation examples failed, nothing to do", parts
                    )
                ending.judge = await judge_noise_of(session, self.judge_rows)
            await fill(session, self.synthesize, self.teacher, [*parts.val, *parts.confirm, *parts.test])
            bar.advance(note="search")
            await self._search(session, parts)
            bar.advance(note="decide")
            if self.ship == "significant":
                result = await ending.confirm(session.ranked()[: self._finalists()], parts)
            else:
                finals = Finals(
                    session,
                    parts.val or parts.confirm,
                    count=self._finalists(),
                    ship=float(self.ship),
                    varies=None if ending.judge is None or not ending.judge.sd else True,
                )
                result = await ending.decide(finals, parts, self._kept(session, replace(parts, confirm=[])))
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
                f"examples: {error}. Nothing was changed: give a larger budget (Trainer.plan says what a run costs) or "
                "fewer validation examples",
                kind=error.kind,
                limit=error.limit,
                used=error.used,
            ) from error
        session.trial(session.baseline, "baseline")
        self.objectives.check(session.baseline, session.costs)
        failure = session.baseline.failure
        if session.baseline.errors == len(session.val) and failure is not None and not isinstance(failure, ParseError):
            raise failure  # a program that fails on every example has a bug that no optimizer can repair
        session.note_failing(session.baseline)
        after, count = session.ledger.spent, len(session.val)
        if after.calls > before.calls:
            session.cost_per_example = Cost(
                (after.calls - before.calls) / count,
                (after.tokens - before.tokens) / count,
                ((after.usd or 0.0) - (before.usd or 0.0)) / count,
            )

    async def _search(self, session: Session, parts: Parts) -> None:
        keep = self._kept(session, parts)
        try:
            with run.phase("search", keep=keep):
                await self.optimizer.fit(session)
        except BudgetExceeded as error:
            catch_up("search")
            if not session.stop.told:
                session.decide(run.EXHAUSTED, of=error.kind)
                session.notes.append(
                    f"the search ended when its share of the budget did ({share(session, keep, error, parts)})"
                )
        finally:
            if session.stop.told:
                session.notes.append(f"the search was stopped: {session.stop.reason}")
            session.stop = Stop()
            session.note_failing()
            session.note_refusals()
            session.note_remarks()

    # -- data and settings --------------------------------------------------------------------------------------

    def _parts(self, trainset: Iterable[Any], valset: Iterable[Any] | None, testset: Iterable[Any] | None) -> Parts:
        selects = self.optimizer.selects
        strict = self.ship == "significant"
        return divide(trainset, valset, testset, seed=self.seed, selects=selects, confirm=self.confirm, strict=strict)

    def _kept(self, session: Session, parts: Parts) -> "run.Budget | None":
        copies = self.optimizer.copies
        return kept(session, parts, self.budget, finalists=self._finalists(), copies=copies)

    def _finalists(self) -> int:
        return self.finalists if self.optimizer.selects else 1

    def __repr__(self) -> str:
        where = f", run_dir={str(self.run_dir)!r}" if self.run_dir is not None else ""
        watched = f", callbacks: {', '.join(map(name_of, self.callbacks))}" if self.callbacks else ""
        about = f"{type(self.model).__name__}, {type(self.optimizer).__name__}, budget: {self.budget}"
        return f"Trainer({about}{where}{watched})"
