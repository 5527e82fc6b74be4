"""A session: everything an optimizer may use while the trainer runs it, and the record of what it found."""

import contextlib
import copy
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

from promptgrad import aio, lm, run
from promptgrad.autograd import Critic, Gradients, JointCritic, Loss, NodeFailure, Parameter, TraceFailure
from promptgrad.data import Example
from promptgrad.errors import BudgetExceeded, JournalError, LMError, MetricError, is_outage
from promptgrad.evaluation import Evaluator
from promptgrad.nn import MetricLoss, Module, Predict
from promptgrad.run import Cell
from promptgrad.search._candidate import Candidate, Measured, pairs
from promptgrad.search._outage import is_final
from promptgrad.search._places import Place, places
from promptgrad.search._reasons import refusals
from promptgrad.search._steps import Steps

T = TypeVar("T")

EXHAUSTED = "exhausted"
"""Kind of the event that the search ended with its share of the budget."""

DOWN = 3
"""How many failures in a row say that a language model is down, where each block lost more than half of its calls."""

SHRINK = 8
"""How many examples of no gain a candidate's mean gain is averaged with before candidates are ranked."""


@dataclass(frozen=True)
class Cost:
    """What running the program on one example costs, on average."""

    calls: float = 1.0
    tokens: float = 0.0
    usd: float = 0.0


@dataclass(frozen=True)
class Trial:
    """One line of a run's history.

    Attributes:
        number: Counts the trials of the run.
        candidate: What was tried.
        score: Its mean score.
        examples: On how many examples.
        note: What the optimizer made of it.
        details: What the optimizer adds: indices of a search point, a gate's interval.
    """

    number: int
    candidate: Candidate
    score: float
    examples: int
    note: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        note = f"  {self.note}" if self.note else ""
        score = f"{self.score:.3f} on {self.examples}" if self.examples else "not scored"
        return f"Trial {self.number}: {score}  {self.candidate.origin}{note}"


class _Watched:
    """A critic that remembers why the run must stop: backward itself keeps a critic's errors in its report."""

    def __init__(self, critic: Critic) -> None:
        self._critic = critic
        self.stopped: BaseException | None = None

    async def critique(self, failure: NodeFailure) -> Mapping[str, str]:
        """Ask the critic."""
        return await self._watch(self._critic.critique(failure))

    def groups(self, failures: Sequence[TraceFailure]) -> Sequence[Sequence[TraceFailure]]:
        """As the critic puts them together, if it can judge whole forwards."""
        return self._critic.groups(failures) if isinstance(self._critic, JointCritic) else ()

    async def critique_traces(self, group: Sequence[TraceFailure]) -> Sequence[Mapping[str, str]]:
        """Ask the critic about whole forwards."""
        return await self._watch(cast(JointCritic, self._critic).critique_traces(group))

    async def _watch(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except (BudgetExceeded, JournalError, LMError) as error:
            if self.stopped is None and is_outage(error):
                self.stopped = error
            raise


class Session:
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
        self.model = model
        self.train = list(train)
        self.val = list(val)
        self.metric = metric
        self.best_score = float(getattr(metric, "best", 1.0))
        self.seed = seed
        self.journal = journal
        self.ledger = ledger
        self.critic = critic
        self.teacher = teacher
        self.concurrency = concurrency
        self.progress = progress
        self.parameters = list(model.parameters() if parameters is None else parameters)
        self.base = Candidate()
        self.incumbent = self.base
        self._incumbent: Measured | None = None
        self.baseline: Measured | None = None
        self.history: list[Trial] = []
        self.finalists: list[Measured] = []
        self.notes: list[str] = []
        self.refused: Counter[str] = Counter()
        self.cost_per_example = Cost()
        self._prefix = ""
        self._criterion = MetricLoss(metric, critic=critic)
        self._evaluators: dict[int, Evaluator] = {}
        self._silent: Counter[str] = Counter()
        self._described: set[str] = set()
        # Where an earlier process of this run went on without an answer. A call that failed is not journalled and
        # might succeed now, so asking again would make the resumed run take another way.
        self._unanswered = {event["key"] for event in journal.events() if event["kind"] == "unanswered"}

    # -- chance and names ---------------------------------------------------------------------------------------

    def rng(self, *path: str | int) -> random.Random:
        """A random generator for one purpose, named by its path."""
        return run.rng(self.seed, *path)

    def spawn(self, *path: str | int) -> int:
        """A seed for one purpose, named by its path."""
        return run.spawn(self.seed, *path)

    @contextlib.contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Name the paid calls made inside, such as "trial/3/minibatch"."""
        with run.scope(self._prefix + name):
            yield

    # -- where it starts ----------------------------------------------------------------------------------------

    def program(self, candidate: Candidate | None = None) -> Module:
        """The program of a candidate, of `base` by default; a candidate's values are to be laid over it."""
        return (candidate or self.base).program or self.model

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

    # -- trying -------------------------------------------------------------------------------------------------

    async def evaluate(
        self, candidate: Candidate, examples: Sequence[Example], *, scope: str, replicate: int = 0
    ) -> Measured:
        """Score one candidate on some examples; what the cell store knows already is not run again.

        Raises:
            BudgetExceeded: The examples do not fit what the budget leaves for the search.
            LMError: The language model is down: more than half of the examples got no answer, and at least `DOWN`.
            MetricError: The metric raised on every example.
        """
        return (await self.evaluate_all([candidate], examples, scope=scope, replicate=replicate))[0]

    async def evaluate_all(
        self, candidates: Sequence[Candidate], examples: Sequence[Example], *, scope: str, replicate: int = 0
    ) -> list[Measured]:
        """Score several candidates on the same examples, all at once.

        Raises:
            BudgetExceeded: They do not fit what the budget leaves for the search.
        """
        self.admit(sum(self._runs(candidate) for candidate in candidates) * len(examples))
        for candidate in candidates:
            self._describe(candidate)
        scope = self._prefix + scope
        names = [scope if len(candidates) == 1 else f"{scope}/{index}" for index in range(len(candidates))]
        measured = await aio.gather(
            [
                partial(self._measure, candidate, examples, name, replicate)
                for candidate, name in zip(candidates, names, strict=True)
            ]
        )
        for result in measured:
            self.journal.append(
                "evaluation",
                candidate=result.candidate.key,
                at=result.scope,
                examples=len(result.ids),
                mean=result.mean,
                errors=result.errors,
            )
        return measured

    async def _measure(self, candidate: Candidate, examples: Sequence[Example], scope: str, replicate: int) -> Measured:
        evaluator = self._evaluator(candidate)
        name = f"{candidate.key}/{replicate}"
        asked = [example for example in examples if f"{name}/{example.id}" not in self._unanswered]
        with run.scope(scope):
            cells = await evaluator(candidate.values, asked, replicate) if asked else []
            self._note_unanswered("run", [f"{name}/{example.id}" for example in asked], [cell.error for cell in cells])
        failures = [cell.error for cell in cells if cell.error is not None]
        if failures and all(isinstance(cell.error, MetricError) for cell in cells):
            raise failures[0]
        known = {example.id: cell for example, cell in zip(asked, cells, strict=True)}
        ids = tuple(example.id for example in examples)
        found = [known.get(key, Cell(key)) for key in ids]
        return Measured(
            candidate,
            ids,
            tuple(_score(known.get(key)) for key in ids),
            len(examples) - len(asked) + len(failures),
            scope,
            failures[0] if failures else None,
            {
                name: tuple(cell.parts.get(name) for cell in found)
                for name in dict.fromkeys(name for cell in found for name in cell.parts)
            },
            tuple(cell.feedback for cell in found),
            tuple(cell.output for cell in found),
        )

    def _note_unanswered(self, what: str, keys: Sequence[str], errors: Sequence[BaseException | None]) -> None:
        """Go on without a few answers; stop, to be resumed, where the language model is down.

        Of one or two calls any may fail by accident. So it counts as down after `DOWN` failures, in one block or in
        several of one kind (`what`: runs of the program, or single calls) without a better one between.

        Raises:
            LMError: More than half got no answer, or asking again would not help either.
            BudgetExceeded: The budget refused one.
        """
        failed = [(key, error) for key, error in zip(keys, errors, strict=True) if is_outage(error)]
        most = 2 * len(failed) > len(keys)
        self._silent[what] = self._silent[what] + len(failed) if most else 0
        for _, error in failed:
            if error is not None and (is_final(error) or (most and self._silent[what] >= DOWN)):
                raise error
        for key, error in failed:
            self.journal.record("unanswered", key, error=type(error).__name__)

    async def ask_all(self, keys: Sequence[str], thunks: Sequence[Callable[[], Awaitable[T]]]) -> "list[T | None]":
        """Run single calls (proposals) side by side; None where the language model gave no answer.

        Args:
            keys: A name for each, unique in the run.
            thunks: The calls.

        Raises:
            LMError: More than half got no answer, and at least `DOWN`, here and in the calls before; or asking again
                would not help either.
            BudgetExceeded: The budget refused one.
        """
        errors: list[BaseException | None] = [None] * len(thunks)

        keys = [self._prefix + key for key in keys]

        async def one(index: int) -> "T | None":
            if keys[index] in self._unanswered:
                return None
            try:
                return await thunks[index]()
            except (LMError, BudgetExceeded, JournalError) as error:
                errors[index] = error
                return None

        results = await aio.gather([partial(one, index) for index in range(len(thunks))])
        self._note_unanswered("ask", keys, errors)
        return results

    def _evaluator(self, candidate: Candidate) -> Evaluator:
        program = self.program(candidate)
        evaluator = self._evaluators.get(id(program))
        if evaluator is None:
            evaluator = Evaluator(program, self.metric, concurrency=self.concurrency, seed=self.seed)
            self._evaluators[id(program)] = evaluator
        return evaluator

    async def forward(
        self, candidate: Candidate, examples: Sequence[Example], *, scope: str, replicate: int = 0, teacher: Any = None
    ) -> Loss:
        """Run a candidate on examples with its graph recorded, and return the loss: for traces and `backward`.

        Args:
            candidate: What to run.
            examples: On what.
            scope: Name of the block.
            replicate: Number of the sample, for LMs that sample.
            teacher: A program of the same structure, or an LM, to run instead.

        Raises:
            BudgetExceeded: The examples do not fit what the budget leaves for the search.
        """
        self.admit(len(examples))
        self._describe(candidate)
        program = teacher if isinstance(teacher, Module) else self.program(candidate)
        name = f"forward/{self._prefix}{scope}"
        asked = [example for example in examples if f"{name}/{example.id}" not in self._unanswered]
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.scope(scope))
            if teacher is not None and not isinstance(teacher, Module):
                stack.enter_context(lm.context(lm=lm.resolve(teacher), override=True))
            if replicate:
                stack.enter_context(lm.context(replicate=replicate))
            stack.enter_context(program.candidate(dict(candidate.values)))
            batch = await program.amap(asked, concurrency=self.concurrency)
            self._note_unanswered(
                "run", [f"{name}/{example.id}" for example in asked], [row.error for row in batch.rows]
            )
            loss: Loss = await self._criterion.acall(batch, asked)
        kept = [row for row in loss.rows if not is_outage(row.error)]
        return Loss(kept, critic=loss.critic, concurrency=loss.concurrency)

    async def gradients(
        self, loss: Loss, parameters: Sequence[Parameter], *, critic: Critic | None = None
    ) -> Gradients:
        """Find what is wrong with some parameters, as values: nothing is left in their `grad`.

        The loss keeps the report, for `loss.explain()`.

        Args:
            loss: The loss.
            parameters: Whose gradients are wanted.
            critic: Who divides the blame; that of the session by default.

        Raises:
            BudgetExceeded: The critic's calls do not fit the budget.
            LMError: The critic's language model is down.
        """
        watched = _Watched(critic or self._criterion.critic)
        found = await loss.agradients(parameters, watched)
        if watched.stopped is not None:
            raise watched.stopped
        loss.report = found.report
        return found

    def _runs(self, candidate: Candidate) -> float:
        """How many runs of the program one of a candidate's program costs: more where it has more calls in it."""
        if candidate.program is None:
            return 1
        own, other = (
            sum(isinstance(module, Predict) for module in program.modules())
            for program in (self.model, candidate.program)
        )
        return max(1, other) / max(1, own)

    def admit(self, examples: float = 0, calls: int = 0) -> None:
        """Check, before a block, that it fits what the budget leaves once the confirmation is set aside.

        This is decided from what is spent and from what an example cost at the start, so it is the same at any
        concurrency; the budget itself is kept call by call, whatever is decided here.

        Raises:
            BudgetExceeded: It does not fit: the search ends with the best so far.
        """
        recorded = self.journal.upcoming()
        if recorded is not None and recorded["kind"] == EXHAUSTED:
            raise BudgetExceeded("an earlier process of this run ended the search here", kind=recorded["of"])
        cost = self.cost_per_example
        needed = {
            "calls": calls + math.ceil(examples * cost.calls),
            "tokens": math.ceil(examples * cost.tokens),
            "usd": examples * cost.usd,
        }
        for kind, amount in needed.items():
            left = self.ledger.remaining(kind)
            if left < amount:
                raise BudgetExceeded(
                    f"the next block needs about {amount:g} {kind}, and {left:g} are left for this phase",
                    kind=kind,
                    limit=getattr(self.ledger.budget, kind) or 0,
                    used=getattr(self.ledger.spent, kind) or 0,
                )
        if recorded is None and self.ledger.remaining("seconds") <= 0:  # what is replayed was in time
            limit = self.ledger.budget.seconds or 0
            raise BudgetExceeded(kind="seconds", limit=limit, used=round(self.ledger.seconds, 1))

    # -- recording ----------------------------------------------------------------------------------------------

    def decide(self, kind: str, **fields: Any) -> None:
        """Write a decision into the journal; a resumed run must come to the same one."""
        self.journal.append(kind, **fields)

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

    def _describe(self, candidate: Candidate) -> None:
        key = candidate.key
        if key not in self._described:
            self._described.add(key)
            self.journal.append("candidate", **candidate.to_dict())


def _score(cell: Cell | None) -> float | None:
    """The score of a run: 0 where the program failed, None where a language model gave no answer."""
    if cell is None or is_outage(cell.error):
        return None
    return float(cell.score) if cell.error is None else 0.0
