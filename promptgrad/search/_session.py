"""A session: everything an optimizer may use while the trainer runs it, and the record of what it found."""

import contextlib
import copy
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from promptgrad import lm, run
from promptgrad.autograd import Parameter
from promptgrad.data import Example
from promptgrad.nn import Module
from promptgrad.search._candidate import Candidate, Measured, pairs
from promptgrad.search._places import Place, places
from promptgrad.search._reasons import refusals
from promptgrad.search._running import Running
from promptgrad.search._steps import Steps
from promptgrad.search._trial import Trial

SHRINK = 8
"""How many examples of no gain a candidate's mean gain is averaged with before candidates are ranked."""


class Session(Running):
    """What an optimizer's `fit` works with.

    A run must be a deterministic program of its seed and of the language model's replies. So an optimizer takes all
    its chance from `rng` and `spawn`, evaluates in blocks (each call of `evaluate` ends before the next decision), and
    gives each block a logical name: the same seed then makes the same decisions at any concurrency, and a run that
    was killed is resumed by executing it again.

    A search starts from `base`: `value` gives the present value of a parameter there, `places` the parameters that it
    may change, and `base.child(values, origin)` makes a candidate that keeps all else. An optimizer that runs others
    gives each a session of its own by `phase`.

    Attributes:
        model: The program.
        train: Examples to learn from: bootstrap, reflect.
        val: Examples to compare candidates on; empty for an optimizer that makes no choice.
        metric: The metric.
        seed: Seed of the run.
        critic: LM of the critic; None for the LM of the module that is blamed.
        teacher: LM (or program) whose successes become demos; None for the program itself.
        concurrency: Examples in flight.
        journal: The run's journal.
        ledger: The run's budget.
        base: Where the search starts: the program as it is, or what an earlier phase of the search found.
        baseline: The base, measured on `val`.
        history: The trials so far.
        notes: What the report should say besides.
        refused: Why proposals came to nothing, and how often each.
        finalists: Candidates worth confirming, each with its measurement on `val`.
        incumbent: The best so far by the optimizer's own account.
        parameters: What the optimizer was given to train.
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
        progress: bool | None = None,
        parameters: Iterable[Parameter] | None = None,
    ) -> None:
        super().__init__(
            model=model,
            metric=metric,
            seed=seed,
            journal=journal,
            ledger=ledger,
            critic=critic,
            concurrency=concurrency,
        )
        self.train = list(train)
        self.val = list(val)
        self.best_score = float(getattr(metric, "best", 1.0))
        self.teacher = teacher
        self.progress = progress
        self.parameters = list(model.parameters() if parameters is None else parameters)
        self.incumbent = self.base
        self._incumbent: Measured | None = None
        self.baseline: Measured | None = None
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

    def path_of(self, parameter: Parameter) -> str | None:
        """The path of a parameter from the root of the program; None if it is not in it."""
        return next((path for path, known in self.model.named_parameters() if known is parameter), None)

    def places(self, kinds: Collection[str] | None = None, *, requires_grad: bool | None = True) -> list[Place]:
        """The parameters that the optimizer was given, as they stand in the program that the search starts from.

        Their order is that in which they were given. Their values are those of the program alone; `value` gives those
        of `base`.

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

        It has the journal, the budget, the cells, the history and the notes of this session, and seeds, names of
        scopes, base, incumbent and finalists of its own. What it found is in its `finalists`; `adopt` offers the best
        of it here.

        Cost: none if the base was measured on `val` before, else one run of the program for each example of it.

        Args:
            name: Name of the part, unique in this session.
            base: Where it starts; that of this session by default.
            parameters: What it may change; by default all that this session may.
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
        part._incumbent = None
        part.finalists = []
        part.baseline = measured
        self.decide("phase", name=part._prefix[:-1], base=part.base.key)
        if measured is None or set(measured.ids) != {example.id for example in part.val}:
            part.baseline = await part.evaluate(part.base, part.val, scope="baseline") if part.val else None
        return part

    # -- recording ----------------------------------------------------------------------------------------------

    def refuse(self, reason: str) -> None:
        """Count a proposal that came to nothing, with the reason; see `note_refusals`."""
        self.refused[reason] += 1

    def note_refusals(self) -> None:
        """Note why proposals were refused, if the search found nothing. The trainer calls it when the search ends."""
        if self.incumbent is self.base and self.refused:
            self.notes.append(refusals(self.refused.elements()))

    def trial(self, measured: Measured, note: str = "", **details: Any) -> Trial:
        """Add a line to the history, and to the journal, where it is no part of what a resumed run is compared with."""
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
        """Offer here the best that a phase found, and return it; None if it found nothing."""
        found = next(iter(part.ranked()), None)
        if found is not None:
            self.offer(found)
        return found

    def offer(self, measured: Measured) -> None:
        """Offer a candidate for confirmation, with its measurement on `val`; a newer one replaces an older.

        The base is no candidate.
        """
        if measured.candidate.key == self.base.key:
            return
        key = measured.candidate.key
        self.finalists = [other for other in self.finalists if other.candidate.key != key]
        self.finalists.append(measured)

    def consider(self, measured: Measured) -> None:
        """Offer a candidate that was scored on all of `val`; it is the incumbent where it is better than all before."""
        self.offer(measured)
        if self.gain(measured) > self.gain_of_incumbent():
            self.promote(measured)

    def gain(self, measured: Measured) -> float:
        """Mean paired gain over the base, shrunk towards zero the fewer examples it was measured on."""
        if self.baseline is None:
            return measured.mean
        before, after = pairs(self.baseline, measured)
        if not after:
            return 0.0
        return (sum(after) - sum(before)) / (len(after) + SHRINK)

    def ranked(self) -> list[Measured]:
        """The finalists, best first: by shrunken gain, then the shorter, then the older."""
        order = sorted(
            range(len(self.finalists)),
            key=lambda index: (-self.gain(self.finalists[index]), self.finalists[index].candidate.size, index),
        )
        return [self.finalists[index] for index in order]

    def promote(self, measured: Measured) -> None:
        """Make a candidate the incumbent."""
        self.incumbent = measured.candidate
        self._incumbent = measured
        self.decide("incumbent", candidate=measured.candidate.key, mean=measured.mean, examples=len(measured.known))

    def gain_of_incumbent(self) -> float:
        """Shrunken gain of the incumbent over the base."""
        return 0.0 if self._incumbent is None else self.gain(self._incumbent)

    def perfect(self) -> bool:
        """Whether the incumbent has the full score on all of `val`, so that no candidate can be better."""
        incumbent = self._incumbent or self.baseline
        if incumbent is None:
            return False
        scores = incumbent.scores
        return len(scores) >= len(self.val) and all(score == self.best_score for score in scores)

    def program_lm(self) -> lm.LM | None:
        """The first language model set in the program; None if it takes that of the context."""
        for module in self.program().modules():
            if module._lm is not None:
                return module._lm
        return None

    def steps(
        self, count: int, name: str, *, batch_size: int = 1, drop_last: bool = False, patience: int | None = None
    ) -> Steps:
        """The rounds of a search, one after the other: `for step in session.steps(8, "TGD", batch_size=8)`.

        Args:
            count: Most steps.
            name: Name of the search, from which the chance of its steps is drawn.
            batch_size: Examples of `step.minibatch()`; all of them, if there are fewer.
            drop_last: Leave out the last minibatch of an epoch if it is smaller than the others.
            patience: Steps that leave the incumbent as it was after which the search ends; None for no such end.
        """
        return Steps(self, count, name, batch_size=batch_size, drop_last=drop_last, patience=patience)

    @contextlib.contextmanager
    def bar(self, total: int, description: str) -> Iterator[run.Progress]:
        """Show progress, if the trainer does."""
        with run.progress(total, description, self.progress) as bar:
            yield bar
