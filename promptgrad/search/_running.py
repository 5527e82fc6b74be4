"""Running candidates: scores, recorded forwards and gradients, under a name, in the journal, within the budget."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from promptgrad import aio, lm, run
from promptgrad.autograd import CriticLike, Gradients, Loss, Parameter
from promptgrad.data import Example
from promptgrad.errors import BudgetExceeded, InputError, JournalError, LMError, is_outage
from promptgrad.lm import current
from promptgrad.nn import Batch, BatchRow, MetricLoss, Module
from promptgrad.run import Cell
from promptgrad.search._candidate import Candidate, Measured
from promptgrad.search._objectives import Costs, Objectives
from promptgrad.search._outage import Failing, Unanswered
from promptgrad.search._places import Place, answers
from promptgrad.search._places import places as places_of
from promptgrad.search._purse import Purse
from promptgrad.search._rows import Rows
from promptgrad.search._scored import measurement
from promptgrad.search._stop import Stop
from promptgrad.search._trial import Cost
from promptgrad.search._watched import Watched

if TYPE_CHECKING:
    from promptgrad.evaluation import Evaluator


T = TypeVar("T")


class Running(Purse):
    """The part of a `Session` that runs candidates on examples.

    Attributes:
        model: The program.
        metric: The metric.
        seed: Seed of the run.
        critic: LM of the critic; None for the LM of the module that is blamed.
        concurrency: Examples in flight.
        engine: How `gradients` asks the critic: "joint", "local", or None for what is cheaper, as in `Loss.backward`.
        group: Most failed forwards in one joint call; None for the critic's own bound.
        remarks: What critics found wrong with something that no parameter holds, such as the program's own code, each
            with the number of runs that showed it.
        journal: The run's journal.
        ledger: The run's budget.
        base: Where the search starts: the program as it is, or what an earlier phase of the search found.
        cost_per_example: What one run of the program costs, as measured at the start.
        objectives: What candidates are weighed by beside the score.
        costs: What the runs of each candidate that was scored have cost.
        train: Examples to learn from.
        rows: The runs on them, as writers see them.
        best_score: The best possible score.
    """

    train: list[Example]
    rows: Rows
    best_score: float

    def __init__(
        self,
        *,
        model: Module,
        metric: Any,
        seed: int,
        journal: run.Journal,
        ledger: run.Ledger,
        critic: Any,
        concurrency: int | None,
        objectives: Objectives | None = None,
        engine: str | None = None,
        group: int | None = None,
    ) -> None:
        self.model = model
        self.metric = metric
        self.seed = seed
        self.journal = journal
        self.ledger = ledger
        self.critic = critic
        self.concurrency = concurrency
        self.engine = engine
        self.group = group
        self.remarks: Counter[tuple[str, str]] = Counter()
        self.base = Candidate()
        self.cost_per_example = Cost()
        self.objectives = Objectives() if objectives is None else objectives
        self.costs = Costs()
        self.stop = Stop()
        self._prefix = ""
        self._criterion = MetricLoss(metric, critic=critic)
        self._evaluators: dict[int, Evaluator] = {}
        self.unanswered = Unanswered()
        self._asked: Mapping[str, float] = {}  # what a single call costs, by kind
        self.failing, self.failing_teacher = Failing("the start"), Failing("the teacher")
        self._called: Counter[str] = Counter()  # most calls of each module in one forward
        self._described: set[str] = set()

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

    def program(self, candidate: Candidate | None = None) -> Module:
        """The program of a candidate, of `base` by default, without the candidate's values."""
        return (candidate or self.base).program or self.model

    def decide(self, kind: str, **fields: Any) -> None:
        """Write a decision to the journal; a resumed run must make the same one."""
        self.journal.append(kind, **fields)

    async def evaluate(
        self, candidate: Candidate, examples: Sequence[Example], *, scope: str, replicate: int = 0
    ) -> Measured:
        """Score one candidate on some examples; cells that are stored already are not run again.

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
        self.admit(sum(self._runs(one) * self._unknown(one, examples, replicate) for one in candidates))
        for candidate in candidates:
            self._describe(candidate)
        scope = self._prefix + scope
        names = [scope if len(candidates) == 1 else f"{scope}/{index}" for index in range(len(candidates))]
        self.leave_what_was_left("evaluation", names[0])
        found = await self._cells(candidates, examples, names, replicate)
        measured = [
            measurement(candidate, examples, cells, name)
            for candidate, cells, name in zip(candidates, found, names, strict=True)
        ]
        for candidate, name, cells in zip(candidates, names, found, strict=True):  # in this order in any run
            ids = [example.id for example in examples]
            keys = [f"{name}:{candidate.key}/{replicate}/{key}" for key in ids]
            self._note_unanswered("run", keys, [cell.error for cell in cells], ids)
        learnt = {example.id for example in self.train}
        for candidate, cells in zip(candidates, found, strict=True):
            known = [pair for pair in zip(examples, cells, strict=True) if pair[0].id in learnt]
            self.rows.add_cells(candidate, self.program(candidate), known, self.best_score)
            self._note_failing(candidate, ((example.id, cell.error) for example, cell in known))
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

    def _unknown(self, candidate: Candidate, examples: Sequence[Example], replicate: int) -> int:
        """On how many of the examples a candidate has to be run, since no score is known there."""
        return len(examples)

    async def _cells(
        self, candidates: Sequence[Candidate], examples: Sequence[Example], names: Sequence[str], replicate: int
    ) -> list[list[Cell]]:
        """Run candidates on examples, each in its scope; portion by portion where the budget is short."""
        evaluators = [self._evaluator(candidate) for candidate in candidates]
        sources = {evaluator: evaluator.source() for evaluator in dict.fromkeys(evaluators)}
        ids = [example.id for example in examples]
        found: list[list[Cell]] = [[] for _ in candidates]

        async def one(place: int, part: Sequence[Example]) -> None:
            candidate, evaluator = candidates[place], evaluators[place]
            with run.scope(names[place]):
                try:
                    cells = await evaluator(candidate.values, part, replicate, source=sources[evaluator])
                except InputError as error:  # none of these fits the program; if it is all of them, nothing can be run
                    if len(part) == len(ids):
                        raise
                    cells = [Cell(example.id, replicate, error=error) for example in part]
                self.costs.add(candidate, cells)
            found[place] += cells
            self.unanswered.look("run", [cell.error for cell in found[place]], ids)

        async def block(pieces: Sequence[tuple[Example, int]]) -> None:
            parts = [[example for example, of in pieces if of == place] for place in range(len(candidates))]
            await aio.gather([partial(one, place, part) for place, part in enumerate(parts) if part])

        pieces = [(example, place) for example in examples for place in range(len(candidates))]
        await self._portions(candidates).run(pieces, block)
        return found

    def _note_unanswered(
        self, what: str, keys: Sequence[str], errors: Sequence[BaseException | None], names: Sequence[str] = ()
    ) -> None:
        """Continue without a few answers; stop, so that the run can be resumed, where the language model is down.

        Arguments and errors are those of `Unanswered.check`.
        """
        for key, error in self.unanswered.check(what, keys, errors, names):
            self._give_up(key, error)

    async def ask_all(self, keys: Sequence[str], thunks: Sequence[Callable[[], Awaitable[T]]]) -> list[T | None]:
        """Run single calls (proposals) side by side; None where the language model gave no answer.

        Args:
            keys: A name for each, unique in the run.
            thunks: The calls.

        Raises:
            LMError: More than half got no answer, and at least `DOWN` with the calls before; or asking again would
                bring the same error.
            BudgetExceeded: The budget refused one.
        """
        errors: list[BaseException | None] = [None] * len(thunks)

        keys = [self._prefix + key for key in keys]

        async def one(index: int) -> T | None:
            try:
                return await thunks[index]()
            except (LMError, BudgetExceeded, JournalError) as error:
                errors[index] = error
                self._give_up(keys[index], error)
                return None

        results: list[T | None] = []

        async def block(indexes: Sequence[int]) -> None:
            if not any(isinstance(error, BudgetExceeded) for error in errors):
                results.extend(await aio.each(one, indexes))

        self._asked = await self._asking().run(range(len(thunks)), block)
        self._note_unanswered("ask", keys, errors)
        return results

    def _note_failing(self, candidate: Candidate, runs: Iterable[tuple[str, BaseException | None]]) -> None:
        if candidate.key == self.base.key:
            for example, error in runs:
                self.failing.add(example, error)

    def _give_up(self, key: str, error: BaseException | None) -> None:
        """Note that the run goes on without an answer, so that a resumed one does, see `Journal.failure`."""
        if isinstance(error, LMError):
            self.journal.record("unanswered", key, error=type(error).__name__, call=error.call)

    def _evaluator(self, candidate: Candidate) -> Evaluator:
        from promptgrad.evaluation import Evaluator

        program = self.program(candidate)
        evaluator = self._evaluators.get(id(program))
        if evaluator is None:
            evaluator = Evaluator(program, self.metric, concurrency=self.concurrency, seed=self.seed)
            self._evaluators[id(program)] = evaluator
        return evaluator

    async def forward(
        self,
        candidate: Candidate,
        examples: Sequence[Example],
        *,
        scope: str,
        replicate: int = 0,
        n: int = 1,
        teacher: Any = None,
    ) -> Loss:
        """Run a candidate on examples, record its graph and return the loss, for traces and `backward`.

        Args:
            candidate: The candidate to run.
            examples: The examples to run it on.
            scope: Name of the block.
            replicate: Number of the sample, for LMs that sample.
            n: Rollouts of each example, numbered from 0, in a row.
            teacher: A program of the same structure, or an LM, to run instead.

        Raises:
            BudgetExceeded: The examples do not fit what the budget leaves for the search.
        """
        self.admit(n * len(examples))
        self._describe(candidate)
        program = teacher if isinstance(teacher, Module) else self.program(candidate)
        name = f"forward/{self._prefix}{scope}"
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.scope(scope))
            if teacher is not None and not isinstance(teacher, Module):
                stack.enter_context(lm.context(lm=lm.resolve(teacher), override=True))
            if replicate:
                stack.enter_context(lm.context(replicate=replicate))
            stack.enter_context(program.candidate(dict(candidate.values)))
            batch = await self._mapped(program, candidate, examples, n)
            keys = [f"{name}/{row.example.id}" + (f"/{row.replicate}" if n > 1 else "") for row in batch.rows]
            ids = [row.example.id for row in batch.rows]
            self._note_unanswered("run", keys, [row.error for row in batch.rows], ids)
            if teacher is None:
                self.unanswered.leave(candidate.key, (row.example.id for row in batch.rows if is_outage(row.error)))
            if self._portions([candidate]).size(len(batch)) < len(batch):
                stack.enter_context(lm.context(concurrency=1))  # a metric may ask a language model
            loss: Loss = await self._criterion.acall(batch, examples)
        if teacher is None:
            self.rows.add(candidate, loss)
            self._note_failing(candidate, ((row.example.id, row.error) for row in loss.rows))
        else:
            for row in loss.rows:
                self.failing_teacher.add(row.example.id, row.error)
        for tape in loss.tapes:
            for path, times in Counter(node.path for node in tape.nodes).items():
                self._called[path] = max(self._called[path], times)
        kept = [row for row in loss.rows if not is_outage(row.error)]
        return Loss(kept, critic=loss.critic, concurrency=loss.concurrency)

    async def _mapped(self, program: Module, candidate: Candidate, examples: Sequence[Example], n: int) -> Batch:
        """Run a program on examples; portion by portion where the budget is short."""
        rows: list[BatchRow] = []

        async def block(part: Sequence[Example]) -> None:
            try:
                rows.extend((await program.amap(part, n, concurrency=self.concurrency)).rows)
            except InputError as error:  # none of these fits the program; if it is all of them, nothing can be run
                if len(part) == len(examples):
                    raise
                rows.extend(BatchRow(each, error=error, replicate=number) for each in part for number in range(n))
            ended = next((row.error for row in rows if isinstance(row.error, BudgetExceeded)), None)
            if ended is not None:
                raise ended

        await self._portions([candidate], n).run(examples, block)
        return Batch(rows)

    async def gradients(
        self, loss: Loss, parameters: Sequence[Parameter], *, critic: CriticLike | None = None
    ) -> Gradients:
        """Find what is wrong with some parameters, as values: nothing is left in their `grad`.

        The loss keeps the report, for `loss.explain()`.

        Args:
            loss: The loss.
            parameters: Whose gradients are wanted.
            critic: The critic that divides the blame; that of the session by default.

        Raises:
            BudgetExceeded: The critic's calls do not fit the budget.
            LMError: The critic's language model is down: most of its calls got no answer, and at least `DOWN`.
        """
        here = run.current()
        scope = "" if here is None else here.scope
        own = critic or self._criterion.critic
        watched = Watched(own, f"{scope}/critic/", self._give_up, labelled=self._is_labelled())
        if self._asking().size(len(loss.rows)) < len(loss.rows):
            loss.concurrency = 1
        found = await loss.agradients(parameters, watched, engine=self.engine, group=self.group)
        keys = sorted(watched.asked)
        self._note_unanswered("critic", keys, [watched.asked[key] for key in keys])
        for remark in found.report.remarks:
            self.remarks[remark.about, remark.text] += max(1, len(remark.examples))
        loss.report = found.report
        return found

    def needs_critic(self, places: Sequence[Place]) -> bool:
        """Whether a language model has to divide blame among these places, as far as is known.

        It has not where the program has only one module with texts or demos that require a gradient, no forward of this
        session called it twice, and no critic was named: the rows with their feedback are then the gradient, and
        `gradients` asks nobody. A model that knows only its own tasks (`Adapter.narrow`) then finds a text from labels;
        where examples have none that are the module's, it needs critiques.

        Cost: none.
        """
        blamed = self._blamed()
        if len(blamed) > 1 or any(self._called[path] > 1 for path in blamed):
            return True
        critic = Watched(self._criterion.critic, "", self._give_up, labelled=self._is_labelled())
        return any(not critic.is_spared(place.parameter.critic or place.module.lm or current().lm) for place in places)

    def _blamed(self) -> dict[str, Place]:
        """The modules that a critic may blame, each with the place of a text or of demos of it."""
        known = places_of(self.program()).values()
        return {place.module_path: place for place in known if _may_be_blamed(place.parameter)}

    def _is_labelled(self) -> bool:
        """Whether examples say what the module should answer that alone may be blamed."""
        blamed = list(self._blamed().values())
        if len(blamed) != 1 or blamed[0].signature is None:
            return False
        often = answers(self.program())
        own = [name for name in blamed[0].signature.outputs if often[name] == 1]
        return any(name in example for example in self.train for name in own)

    def _describe(self, candidate: Candidate) -> None:
        key = candidate.key
        if key not in self._described:
            self._described.add(key)
            self.journal.append("candidate", **candidate.to_dict())


def _may_be_blamed(parameter: Parameter) -> bool:
    """Whether a critic may blame a parameter: a text or demos that require a gradient."""
    kind = parameter.kind
    return parameter.requires_grad and (kind.is_text or (kind.is_demos and bool(parameter.data)))
