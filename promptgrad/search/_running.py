"""Running candidates: scores, recorded forwards and gradients, under a name, in the journal, within the budget."""

import contextlib
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from promptgrad import aio, lm, run
from promptgrad.autograd import CriticLike, Gradients, Loss, Parameter
from promptgrad.data import Example
from promptgrad.errors import BudgetExceeded, JournalError, LMError, MetricError, is_outage
from promptgrad.evaluation import Evaluator
from promptgrad.lm import current
from promptgrad.nn import MetricLoss, Module, Predict
from promptgrad.run import Cell
from promptgrad.search._candidate import Candidate, Measured
from promptgrad.search._objectives import Costs, Objectives
from promptgrad.search._outage import Unanswered
from promptgrad.search._places import Place, answers
from promptgrad.search._places import places as places_of
from promptgrad.search._rows import Rows
from promptgrad.search._stop import EXHAUSTED, Stop
from promptgrad.search._trial import Cost
from promptgrad.search._watched import Watched

T = TypeVar("T")


class Running:
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
        self.admit(sum(self._runs(candidate) for candidate in candidates) * len(examples))
        for candidate in candidates:
            self._describe(candidate)
        scope = self._prefix + scope
        names = [scope if len(candidates) == 1 else f"{scope}/{index}" for index in range(len(candidates))]
        evaluators = [self._evaluator(candidate) for candidate in candidates]
        sources = {evaluator: evaluator.source() for evaluator in dict.fromkeys(evaluators)}
        found = await aio.gather(
            [
                partial(self._measure, candidate, examples, name, replicate, sources[evaluator])
                for candidate, name, evaluator in zip(candidates, names, evaluators, strict=True)
            ]
        )
        for candidate, name, (_, cells) in zip(candidates, names, found, strict=True):  # in this order in any run
            runs = [f"{candidate.key}/{replicate}/{example.id}" for example, _ in cells]
            self._note_unanswered("run", [f"{name}:{key}" for key in runs], [cell.error for _, cell in cells], runs)
        learnt = {example.id for example in self.train}
        for candidate, (_, cells) in zip(candidates, found, strict=True):
            known = [(example, cell) for example, cell in cells if example.id in learnt]
            self.rows.add_cells(candidate, self.program(candidate), known, self.best_score)
        measured = [result for result, _ in found]
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

    async def _measure(
        self, candidate: Candidate, examples: Sequence[Example], scope: str, replicate: int, source: str
    ) -> tuple[Measured, list[tuple[Example, Cell]]]:
        evaluator = self._evaluator(candidate)
        with run.scope(scope):
            cells = await evaluator(candidate.values, examples, replicate, source=source) if examples else []
            self.costs.add(candidate, cells)
        known = {example.id: cell for example, cell in zip(examples, cells, strict=True)}
        ids = tuple(example.id for example in examples)
        Unanswered().check("run", ids, [cell.error for cell in cells])  # at once, whatever blocks beside it come to
        failures = [cell.error for cell in cells if cell.error is not None]
        if failures and all(isinstance(cell.error, MetricError) for cell in cells):
            raise failures[0]
        found = [known.get(key, Cell(key)) for key in ids]
        measured = Measured(
            candidate,
            ids,
            tuple(_score(known.get(key)) for key in ids),
            len(failures),
            scope,
            failures[0] if failures else None,
            {
                name: tuple(cell.parts.get(name) for cell in found)
                for name in dict.fromkeys(name for cell in found for name in cell.parts)
            },
            tuple(cell.feedback for cell in found),
            tuple(cell.output for cell in found),
        )
        return measured, list(zip(examples, cells, strict=True))

    def _note_unanswered(
        self, what: str, keys: Sequence[str], errors: Sequence[BaseException | None], names: Sequence[str] = ()
    ) -> None:
        """Continue without a few answers; stop, so that the run can be resumed, where the language model is down.

        Arguments and errors are those of `Unanswered.check`.
        """
        for key, error in self.unanswered.check(what, keys, errors, names):
            self._give_up(key, error)

    async def ask_all(self, keys: Sequence[str], thunks: Sequence[Callable[[], Awaitable[T]]]) -> "list[T | None]":
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

        async def one(index: int) -> "T | None":
            try:
                return await thunks[index]()
            except (LMError, BudgetExceeded, JournalError) as error:
                errors[index] = error
                self._give_up(keys[index], error)
                return None

        results = await aio.gather([partial(one, index) for index in range(len(thunks))])
        self._note_unanswered("ask", keys, errors)
        return results

    def _give_up(self, key: str, error: BaseException | None) -> None:
        """Note that the run goes on without an answer, so that a resumed one does, see `Journal.failure`."""
        if isinstance(error, LMError):
            self.journal.record("unanswered", key, error=type(error).__name__, call=error.call)

    def _evaluator(self, candidate: Candidate) -> Evaluator:
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
            batch = await program.amap(examples, n, concurrency=self.concurrency)
            keys = [f"{name}/{row.example.id}" + (f"/{row.replicate}" if n > 1 else "") for row in batch.rows]
            runs = [f"{candidate.key}/{row.replicate}/{row.example.id}" for row in batch.rows]
            self._note_unanswered("run", keys, [row.error for row in batch.rows], runs)
            if teacher is None:
                self.unanswered.leave(candidate.key, (row.example.id for row in batch.rows if is_outage(row.error)))
            loss: Loss = await self._criterion.acall(batch, examples)
        if teacher is None:
            self.rows.add(candidate, loss)
        for tape in loss.tapes:
            for path, times in Counter(node.path for node in tape.nodes).items():
                self._called[path] = max(self._called[path], times)
        kept = [row for row in loss.rows if not is_outage(row.error)]
        return Loss(kept, critic=loss.critic, concurrency=loss.concurrency)

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

    def _runs(self, candidate: Candidate) -> float:
        """The cost of one run of a candidate's program, in runs of the session's: more where it has more calls."""
        if candidate.program is None:
            return 1
        own, other = (
            sum(isinstance(module, Predict) for module in program.modules())
            for program in (self.model, candidate.program)
        )
        return max(1, other) / max(1, own)

    def runs_left(self) -> float:
        """How many runs of the program the budget still pays in this phase, by what one cost at the start.

        It is infinite without a limit on calls, tokens or money. Between blocks it is the same at any concurrency.
        """
        cost = self.cost_per_example
        prices = {"calls": cost.calls, "tokens": cost.tokens, "usd": cost.usd}
        return min(self.ledger.remaining(kind) / price if price else math.inf for kind, price in prices.items())

    def share_of_runs(self, share: float, most: int) -> int:
        """How many runs of the program a share of `runs_left` pays for: at most so many, and one unless that is 0."""
        return min(most, max(1, int(min(most, share * self.runs_left()))))

    def admit(self, examples: float = 0, calls: int = 0) -> None:
        """Check, before a block, that it fits what the budget leaves after the share for the confirmation.

        The decision depends on what is spent and on what an example cost at the start, so it is the same at any
        concurrency. The budget itself is enforced call by call, independently of this.

        Raises:
            BudgetExceeded: It does not fit: the search ends with the best so far.
        """
        recorded = self.journal.upcoming()
        self.stop.check(recorded, self.decide)
        if recorded is not None and recorded["kind"] == EXHAUSTED:
            if (here := run.current()) is not None:
                here.catch_up()
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
        if recorded is None and self.ledger.remaining("seconds") <= 0:  # a replayed block was in time
            limit = self.ledger.budget.seconds or 0
            raise BudgetExceeded(kind="seconds", limit=limit, used=round(self.ledger.seconds, 1))

    def affords(self, examples: float = 0, calls: int = 0) -> bool:
        """Whether a block would fit what the budget leaves for the search; see `admit`."""
        try:
            self.admit(examples, calls)
        except BudgetExceeded:
            return False
        return True

    def _describe(self, candidate: Candidate) -> None:
        key = candidate.key
        if key not in self._described:
            self._described.add(key)
            self.journal.append("candidate", **candidate.to_dict())


def _may_be_blamed(parameter: Parameter) -> bool:
    """Whether a critic may blame a parameter: a text or demos that require a gradient."""
    kind = parameter.kind
    return parameter.requires_grad and (kind.is_text or (kind.is_demos and bool(parameter.data)))


def _score(cell: Cell | None) -> float | None:
    """The score of a run: 0 where the program failed, None where a language model gave no answer."""
    if cell is None or is_outage(cell.error):
        return None
    return float(cell.score) if cell.error is None else 0.0
