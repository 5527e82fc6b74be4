"""A session: everything an optimizer may use while the trainer runs it, and the record of its findings."""

import contextlib
import copy
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from promptgrad import lm, run
from promptgrad.autograd import PROGRAM, Parameter
from promptgrad.data import Example
from promptgrad.nn import Module
from promptgrad.search._candidate import Candidate, Measured
from promptgrad.search._objectives import Objectives
from promptgrad.search._outage import note_of
from promptgrad.search._places import Place, places
from promptgrad.search._reasons import refusals
from promptgrad.search._rows import Rows
from promptgrad.search._running import Running
from promptgrad.search._standings import Standings
from promptgrad.search._steps import Steps
from promptgrad.search._trial import Trial
from promptgrad.search._within import measure_within

_REMARKS = 5  # most remarks of critics in the notes

MOST_STEPS = 1000
"""Most steps of a search on a budget: those in which nothing is left to call cost nothing, and would never end."""


class Session(Running):
    """The environment of an optimizer's `fit`.

    A run must be a deterministic program of its seed and of the language model's replies. So an optimizer draws all
    random numbers from `rng` and `spawn`, evaluates in blocks (each call of `evaluate` ends before the next decision),
    and gives each block a logical name: the same seed then makes the same decisions at any concurrency, and a killed
    run resumes by being executed again.

    A search starts from `base`: `value` gives the present value of a parameter there, `places` the parameters that it
    may change, and `base.child(values, origin)` makes a candidate that keeps everything else. An optimizer that runs
    others gives each its own session by `phase`.

    Attributes:
        model: The program.
        train: Examples to learn from: bootstrap, reflect.
        val: Examples to compare candidates on; empty for an optimizer that makes no choice.
        metric: The metric.
        seed: Seed of the run.
        critic: LM of the critic; None for the LM of the module that is blamed.
        teacher: LM (or program) whose successes become demos; None for the program itself.
        concurrency: Examples in flight.
        engine: How the critic is asked: "joint", "local", or None for what is cheaper.
        group: Most failed forwards in one joint call; None for the critic's own bound.
        journal: The run's journal.
        ledger: The run's budget.
        base: Where the search starts: the program as it is, or what an earlier phase of the search found.
        baseline: The base, measured on `val`.
        standings: Everything that was measured on `val`, of all candidates of the run: phases share it.
        history: The trials so far.
        notes: Further remarks for the report.
        refused: Reasons why proposals were refused, each with its count.
        finalists: Candidates worth confirming, each with its measurement on `val`.
        incumbent: The best candidate so far in the optimizer's judgement.
        parameters: The parameters that the optimizer trains.
        rows: The runs on training data that were paid for, as writers see them; shared by all phases.
    """

    def __init__(
        self,
        *,
        model: Module,
        train: Sequence[Example],
        val: Sequence[Example],
        metric: Any,
        seed: int,
        journal: run.Journal,
        ledger: run.Ledger,
        critic: Any = None,
        teacher: Any = None,
        concurrency: int | None = None,
        engine: str | None = None,
        group: int | None = None,
        progress: bool | None = None,
        parameters: Iterable[Parameter] | None = None,
        objectives: Objectives | None = None,
    ) -> None:
        super().__init__(
            model=model,
            metric=metric,
            seed=seed,
            journal=journal,
            ledger=ledger,
            critic=critic,
            concurrency=concurrency,
            objectives=objectives,
            engine=engine,
            group=group,
        )
        self.train = list(train)
        self.val = list(val)
        self.best_score = float(getattr(metric, "best", 1.0))
        self.teacher = teacher
        self.progress = progress
        self.parameters = list(model.parameters() if parameters is None else parameters)
        self.rows = Rows(self.value)
        self.incumbent = self.base
        self.baseline: Measured | None = None
        self.standings = Standings(self.base, [example.id for example in self.val])
        self.history: list[Trial] = []
        self.finalists: list[Measured] = []
        self.notes: list[str] = []
        self.refused: Counter[str] = Counter()

    # -- where it starts ----------------------------------------------------------------------------------------

    def value(self, path: str, candidate: Candidate | None = None) -> Any:
        """The value of a parameter in a candidate, in `base` by default.

        Raises:
            AttributeError: The candidate's program has no parameter of this path.
        """
        candidate = candidate or self.base
        if path in candidate.values:
            return candidate.values[path]
        return self.program(candidate).get_parameter(path).data

    def folder(self, name: str) -> Path | None:
        """A folder of the run for files of this part of the search; None if the run is kept in memory.

        A resumed run finds in it what was left there. It is not made here.

        Args:
            name: Name of the folder, unique in this session.
        """
        if self.journal.path is None:
            return None
        return self.journal.path.parent / re.sub(r"[^\w.-]+", "-", f"{self._prefix}{name}")

    def path_of(self, parameter: Parameter) -> str | None:
        """The path of a parameter from the root of the program; None if it is not in it."""
        return next((path for path, known in self.model.named_parameters() if known is parameter), None)

    def places(self, kinds: Collection[str] | None = None, *, requires_grad: bool | None = True) -> list[Place]:
        """The parameters that the optimizer was given, as they stand in the program that the search starts from.

        They are in the order of the optimizer's parameters. Their values are those of the program alone; `value` gives
        those of `base`.

        Args:
            kinds: Kinds wanted; None for all.
            requires_grad: Whether they require a gradient; None for all.
        """
        given = {parameter: path for path, parameter in self.model.named_parameters()}
        known = places(self.program())
        paths = [given[parameter] for parameter in self.parameters if parameter in given]
        found = [known[path] for path in paths if path in known]
        return [
            place
            for place in found
            if (kinds is None or place.parameter.kind.answers_to(kinds))
            and (requires_grad is None or place.parameter.requires_grad == requires_grad)
        ]

    async def phase(
        self,
        name: str,
        base: Candidate | Measured | None = None,
        *,
        parameters: Iterable[Parameter] | None = None,
        train: Sequence[Example] | None = None,
        val: Sequence[Example] | None = None,
    ) -> "Session":
        """Make a session for a part of the search, which another optimizer runs: `await other.fit(part)`.

        It shares the journal, the budget, the cells, the history and the notes of this session, and the standings too,
        unless `val` has examples that are not this session's. It has its own seeds, scope names, base, incumbent and
        finalists. Its `finalists` hold what it found; `adopt` offers the best of them
        here.

        Cost: nothing if the base was measured on `val` before, else one run of the program for each example in `val`.

        Args:
            name: Name of the part, unique in this session.
            base: The candidate it starts from; that of this session by default.
            parameters: The parameters it may change; those of this session by default.
            train: Examples to learn from; those of this session by default.
            val: Examples to compare candidates on; those of this session by default.

        Raises:
            BudgetExceeded: Measuring the base does not fit what the budget leaves for the search.
        """
        part = copy.copy(self)
        part._prefix = f"{self._prefix}{name}/"
        part.seed = self.spawn("phase", name)
        part.train = list(self.train if train is None else train)
        part.val = list(self.val if val is None else val)
        part.parameters = list(self.parameters if parameters is None else parameters)
        measured = self.baseline if base is None else base if isinstance(base, Measured) else None
        part.base = base if isinstance(base, Candidate) else self.base if measured is None else measured.candidate
        part.incumbent = part.base
        part.finalists = []
        part.baseline = measured
        rows = [example.id for example in part.val]
        if not self.standings.covers(rows):
            part.standings = Standings(part.base, rows)
            if measured is not None:
                part.standings.add(measured)
        self.decide("phase", name=part._prefix[:-1], base=part.base.key)
        if measured is None or set(measured.ids) != {example.id for example in part.val}:
            part.baseline = await part.evaluate(part.base, part.val, scope="baseline") if part.val else None
        return part

    async def evaluate_all(
        self, candidates: Sequence[Candidate], examples: Sequence[Example], *, scope: str, replicate: int = 0
    ) -> list[Measured]:
        """Score several candidates on the same examples, all at once; `standings` keeps the rows of `val`.

        Raises:
            BudgetExceeded: They do not fit what the budget leaves for the search.
        """
        found = await super().evaluate_all(candidates, examples, scope=scope, replicate=replicate)
        for measured in found:
            self.standings.add(measured, replicate)
        return found

    def _unknown(self, candidate: Candidate, examples: Sequence[Example], replicate: int) -> int:
        measured = None if replicate else self.standings.of(candidate)
        known = () if measured is None else measured.ids
        return len({example.id for example in examples}.difference(known))

    async def evaluate_within(
        self,
        candidates: Sequence[Candidate],
        examples: Sequence[Example],
        *,
        scope: str,
        phase: str,
        replicate: int = 0,
    ) -> list[Measured]:
        """Score candidates on as many of the examples, in their order, as the budget leaves room for.

        These are the same at any concurrency: what surely fits runs at once, the last rows one by one.

        Args:
            candidates: The candidates.
            examples: The examples.
            scope: Name of the block.
            phase: The phase of the run in which it is, to which a resumed run books what is not run again.
            replicate: Which of several runs of the same examples.

        Raises:
            BudgetExceeded: There is not even room for one.
        """
        return await measure_within(self, candidates, examples, scope=scope, phase=phase, replicate=replicate)

    # -- recording ----------------------------------------------------------------------------------------------

    def refuse(self, reason: str) -> None:
        """Count a refused proposal, with the reason; see `note_refusals`."""
        self.refused[reason] += 1

    def note_remarks(self) -> None:
        """Note what critics found wrong with the program's own code, the most frequent first. The trainer calls it."""
        for (about, text), runs in self.remarks.most_common(_REMARKS):
            what = "the program's code" if about == PROGRAM else about
            self.notes.append(f"the critic says of {what} (in {runs} run{'' if runs == 1 else 's'}): {text}")

    def note_failing(self, baseline: Measured | None = None) -> None:
        """Note on how many examples the start failed, and how: those of the baseline, else those it was trained on."""
        if baseline is None:
            told = self.failing.told("training"), self.failing_teacher.told("training")
            self.notes += [note for note in told if note is not None]
        elif (error := baseline.failure) is not None:
            self.notes.append(note_of("the start", baseline.errors, len(baseline.ids), "validation", error))

    def note_refusals(self) -> None:
        """Note why proposals were refused, if the search found nothing. The trainer calls it when the search ends."""
        if self.incumbent is self.base and self.refused:
            self.notes.append(refusals(self.refused.elements()))

    def trial(self, measured: Measured, note: str = "", **details: Any) -> Trial:
        """Add a line to the history, and to the journal, outside the events that a resumed run is compared with."""
        trial = Trial(len(self.history), measured.candidate, measured.mean, len(measured.known), note, dict(details))
        self.history.append(trial)
        tried = measured.candidate.to_dict()
        self.journal.note(
            "trial",
            key=str(trial.number),
            number=trial.number,
            candidate=tried["id"],
            origin=tried["origin"],
            values=tried["values"],
            score=trial.score,
            examples=trial.examples,
            note=note,
            details=details,
        )
        return trial

    def adopt(self, part: "Session") -> Measured | None:
        """Offer the best finalist of a phase in this session, and return it; None if the phase found nothing."""
        found = next(iter(part.ranked()), None)
        if found is not None:
            self.offer(found)
        return found

    def offer(self, measured: Measured) -> None:
        """Offer a candidate for confirmation, with its measurement on `val`; a newer one replaces an older.

        The base is ignored.
        """
        if measured.candidate.key == self.base.key:
            return
        key = measured.candidate.key
        self.finalists = [other for other in self.finalists if other.candidate.key != key]
        self.finalists.append(measured)

    def offer_likely(self) -> None:
        """Offer all that is believed to gain no less than the incumbent, also what was not measured on all of `val`.

        A search calls it at its end: what the budget cut off is then completed and decided on with the rest.
        """
        known = self.standings.posterior()
        own = next((one.gain for one in known if one.candidate.key == self.incumbent.key), 0.0)
        for one in known:
            if one.gain > own or one.candidate.key == self.incumbent.key:
                self.offer(one.measured)

    def consider(self, measured: Measured) -> None:
        """Offer a candidate that was scored on all of `val`; it becomes the incumbent if it is the best so far."""
        self.offer(measured)
        if self.gain(measured) > self.gain_of_incumbent():
            self.promote(measured)

    def gain(self, measured: Measured) -> float:
        """Expected true gain over the base of a candidate that was measured, given everything in `standings`.

        It is comparable between candidates that were measured on different rows of `val`, as rows are compared with the
        start's own and candidates with few rows are shrunken towards what the others achieved; see `Standings.gain`.
        """
        return self._gain(measured.candidate)

    def ranked(self) -> list[Measured]:
        """The finalists, best first: by expected gain, then by length, then by age."""
        order = sorted(
            range(len(self.finalists)),
            key=lambda index: (-self.gain(self.finalists[index]), self.finalists[index].candidate.size, index),
        )
        return [self.finalists[index] for index in order]

    def promote(self, measured: Measured) -> None:
        """Make a candidate the incumbent."""
        self.incumbent = measured.candidate
        self.decide("incumbent", candidate=measured.candidate.key, mean=measured.mean, examples=len(measured.known))

    def gain_of_incumbent(self) -> float:
        """Expected true gain of the incumbent over the base."""
        return self._gain(self.incumbent)

    def _gain(self, candidate: Candidate) -> float:
        return self.standings.gain(candidate) - self.standings.gain(self.base)

    def goals(self, measured: Measured) -> dict[str, float]:
        """What a candidate achieves on each objective beside the score, where it is known: higher is better."""
        found = {name: self.objectives.rows(name, measured, self.costs) for name in self.objectives.beside}
        return {
            name: (1 if self.objectives[name] == "max" else -1) * fmean(rows.values())
            for name, rows in found.items()
            if rows
        }

    def perfect(self) -> bool:
        """True if the incumbent has the full score on all of `val`, so that no candidate can be better."""
        incumbent = self.standings.of(self.incumbent)
        known = {} if incumbent is None else incumbent.by_id()
        return bool(self.val) and all(known.get(example.id) == self.best_score for example in self.val)

    def program_lm(self) -> lm.LM | None:
        """The first language model set in the program; None if the program uses that of the context."""
        for module in self.program().modules():
            if module._lm is not None:
                return module._lm
        return None

    def most_steps(self, steps: int | None, default: int) -> int:
        """Most steps of a search: as many as were asked for, else `default`, or hardly a limit on a budget of calls.

        Args:
            steps: The setting; None where it is left open.
            default: Steps of a search without a budget of calls.
        """
        if steps is not None:
            return steps
        return default if self.ledger.budget.calls is None else MOST_STEPS

    def steps(
        self, count: int, name: str, *, batch_size: int = 1, drop_last: bool = False, patience: int | None = None
    ) -> Steps:
        """The rounds of a search, in order: `for step in session.steps(8, "TGD", batch_size=8)`.

        Args:
            count: Most steps.
            name: Name of the search, which seeds the random numbers of its steps.
            batch_size: Examples of `step.minibatch()`; all of them, if there are fewer.
            drop_last: Leave out the last minibatch of an epoch if it is smaller than the others.
            patience: Steps in a row without a new incumbent after which the search ends; None for no such limit.
        """
        return Steps(self, count, name, batch_size=batch_size, drop_last=drop_last, patience=patience)

    @contextlib.contextmanager
    def bar(self, total: int, description: str) -> Iterator[run.Progress]:
        """Show progress, if the trainer shows it."""
        with run.progress(total, description, self.progress) as bar:
            yield bar
