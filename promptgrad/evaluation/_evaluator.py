"""`Evaluator`, which scores candidates for an optimizer and runs nothing twice."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from promptgrad import aio, run
from promptgrad.autograd import Parameter, Read, inference_mode
from promptgrad.data import Example
from promptgrad.evaluation._evaluate import items_of
from promptgrad.evaluation._row import ReportRow
from promptgrad.evaluation._runner import Evaluated, check_items_fit, run_row
from promptgrad.evaluation._sources import lm_digest, source_digest
from promptgrad.lm import Replicated
from promptgrad.metrics import Metric, as_metric
from promptgrad.nn import Module, in_flight
from promptgrad.run import Cell, CellStore, value_digest


class Evaluator:
    """Scores candidates (values by parameter path, laid over a program) on examples.

    A result is a cell: one example, one replicate. Cells are kept with the parameters that the program read on the
    way, and are reused for every candidate in which these have the same values: a change in a module that an example
    never reaches costs nothing. Errors are not kept. Within an active run, each cell is written to the journal.

    A program must not keep state in `forward`, and its result must depend only on its inputs, its parameters and the
    replies of its language models.

    Cost: one run of the program for each cell that is not known.

    Args:
        program: The module.
        metric: The metric.
        cells: Where cells are kept; by default a store of its own. Evaluators may share one.
        concurrency: Rows in flight, over all candidates that are evaluated at the same time; else that of the context
            or of `configure`, else 32.
        seed: Kept for the caller's use; the evaluator itself draws nothing.

    Attributes:
        cells: The store.
    """

    def __init__(
        self,
        program: Module,
        metric: Callable[..., Any],
        *,
        cells: CellStore | None = None,
        concurrency: int | None = None,
        seed: int = 0,
    ) -> None:
        self.program = program
        self.metric: Metric = as_metric(metric)
        self.cells = cells if cells is not None else CellStore()
        self.seed = seed
        self._program = Evaluated(program)
        self._slots = aio.Semaphore(in_flight(concurrency))

    def source(self) -> str:
        """The digest of the code and the settings of program and metric, on which the reuse of cells depends."""
        return source_digest(self.program) + source_digest(getattr(self.metric, "fn", self.metric))

    async def __call__(
        self,
        candidate: Mapping[str, Any] | None,
        examples: Sequence[Any],
        replicate: int = 0,
        *,
        source: str | None = None,
    ) -> list[Cell]:
        """Score one candidate on examples; the cells come in their order.

        Args:
            candidate: Values by parameter path; None or empty for the program as it is.
            examples: The examples.
            replicate: Which of several independent runs; others get other replies to the same prompts.
            source: What `source()` gives now, for a caller that scores many candidates at once; None to ask for it.

        Raises:
            DataError: There is no example.
            InputError: No example fits the arguments of the program.
            StateDictError: A path of the candidate is not a parameter.
            ConstraintError: A value does not fit its parameter.
            BudgetExceeded: The budget of the active run ended.
            LMError: Every row would get this error: no LM, a wrong key, an unknown price.
        """
        values = dict(candidate or {})
        items = items_of(examples)
        check_items_fit(self._program, items)
        with ExitStack() as stack:
            stack.enter_context(inference_mode())
            stack.enter_context(self.program.candidate(values))
            state = _State(self.program)
            lm = lm_digest(self.program)
            source = self.source() if source is None else source
            known = [self._find(item, replicate, state, lm, source) for item in items]  # all before anything runs
            missing = [index for index, cell in enumerate(known) if cell is None]
            fresh = await aio.gather(
                [partial(self._measure, items[index], replicate, state, lm, source) for index in missing]
            )
            for index, cell in zip(missing, fresh, strict=True):
                known[index] = cell
        found = [cell for cell in known if cell is not None]
        self._record(found, value_digest([values, lm, source]))
        return found

    def _find(self, item: Any, replicate: int, state: "_State", lm: str, source: str) -> Cell | None:
        name = _name(item)
        return None if name is None else self.cells.get(name, state, replicate=replicate, lm=lm, source=source)

    async def _measure(self, item: Any, replicate: int, state: "_State", lm: str, source: str) -> Cell:
        reads: list[tuple[Read, ...]] = []
        with Replicated(replicate):
            async with self._slots:
                row = await run_row(self._program, self.metric, item, replicate, on_reads=reads.append)
        return self._keep(item, row, state, reads, lm, source)

    def _keep(
        self,
        item: Any,
        row: ReportRow,
        state: "_State",
        reads: Sequence[tuple[Read, ...]],
        lm: str,
        source: str,
    ) -> Cell:
        name = _name(item)
        seen = state.digests(reads[0]) if reads else None
        cell = Cell(
            name or "",
            row.replicate,
            row.score,
            row.feedback,
            seen or {},
            row.output,
            row.error,
            row.parts or {},
            row.costs,
        )
        if row.error is None and name is not None and seen is not None:
            self.cells.put(cell, lm=lm, source=source)
        return cell

    def _record(self, cells: Sequence[Cell], name: str) -> None:
        active = run.current()
        if active is None:
            return
        for cell in cells:
            if cell.error is None and cell.example:
                key = f"{active.scope}:{name}/{cell.example}/{cell.replicate}"
                usage = {"usage": cell.costs} if cell.costs else {}
                active.record("cell", key, score=cell.score, **usage)

    def __repr__(self) -> str:
        return f"<Evaluator of {self._program.name} by {self.metric.name}: {self.cells!r}>"


class _State:
    """Digests of the values that a program's parameters have in this context, by path."""

    def __init__(self, program: Module) -> None:
        self._parameters = dict(program.named_parameters(remove_duplicate=False))
        self._paths: dict[Parameter, str] = {}
        for path, parameter in self._parameters.items():
            self._paths.setdefault(parameter, path)
        self._values = {path: parameter.read().value for path, parameter in self._parameters.items()}
        self._digests: dict[str, str] = {}

    def __call__(self, path: str) -> str | None:
        if path not in self._values:
            return None
        digest = self._digests.get(path)
        if digest is None:
            digest = self._digests[path] = value_digest(self._values[path])
        return digest

    def digests(self, reads: Sequence[Read]) -> dict[str, str] | None:
        """The read set of a cell; None if it has a parameter that is not one of the program."""
        found: dict[str, str] = {}
        for read in reads:
            path = self._paths.get(read.parameter)
            if path is None:
                return None
            digest = self(path)
            if digest is not None:
                found[path] = digest
        return found


def _name(item: Any) -> str | None:
    return item.id if isinstance(item, Example) else None
