"""Running a program on one example and scoring its output."""

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from time import perf_counter
from typing import Any

from promptgrad import aio
from promptgrad.autograd import Read, record_reads
from promptgrad.data import Example, Score
from promptgrad.errors import FATAL, InputError
from promptgrad.evaluation._costs import costs_of
from promptgrad.evaluation._row import ReportRow
from promptgrad.lm import Replicated, Usage, UsageTracker
from promptgrad.metrics import FunctionMetric, Metric, call_metric
from promptgrad.nn import Arguments, Module, bind, count_checks

OnReads = Callable[[tuple[Read, ...]], None]
"""A function that gets the parameters that a program read."""


class Evaluated:
    """A module, or any function of the inputs, plain or async, as something to evaluate.

    Attributes:
        target: The module or function.
        name: Its name in reports.
        waits: Whether calling it gives an awaitable.
        acall: The function that gives the awaitable.
    """

    def __init__(self, target: Any) -> None:
        if isinstance(target, type) or not callable(target):
            what = f"the class {target.__name__}" if isinstance(target, type) else f"a {type(target).__name__}"
            raise InputError(f"what is evaluated is a module or a function, not {what}")
        self.target = target
        self.name = type(target).__name__ if isinstance(target, Module) else getattr(target, "__name__", "program")
        self.acall: Callable[..., Any] = target.acall if isinstance(target, Module) else target
        self.waits = (
            target._coroutine
            if isinstance(target, Module)
            else inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(getattr(target, "__call__", None))  # noqa: B004
        )

    def input_names(self) -> tuple[str, ...] | None:
        """Names of the inputs, None where any name is accepted."""
        if isinstance(self.target, Module):
            return self.target.input_names()
        names = []
        for parameter in inspect.signature(self.target).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                return None
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                names.append(parameter.name)
        return tuple(names)

    def bind(self, item: Any) -> Arguments:
        """The arguments for one item; raises `InputError` where it is unclear what they are."""
        if isinstance(self.target, Module):
            return bind(self.target, item)
        named: Any = type(self.name, (_Names,), {})  # messages show a program by the name of its type
        return bind(named(self.input_names()), item)


class _Names:
    """Stands in for a plain function where inputs are bound."""

    def __init__(self, names: tuple[str, ...] | None) -> None:
        self._names = names

    def input_names(self) -> tuple[str, ...] | None:
        return self._names


def check_items_fit(program: Evaluated, items: Iterable[Any]) -> None:
    """Refuse data of which no item fits the arguments of the program.

    Raises:
        InputError: What keeps the first item from being one.
    """
    first: InputError | None = None
    for item in items:
        try:
            program.bind(item)
        except InputError as error:
            first = first or error
        else:
            return
    if first is not None:
        raise first


def run_row(
    program: Evaluated, metric: Metric, item: Any, replicate: int = 0, *, on_reads: OnReads | None = None
) -> Coroutine[Any, Any, ReportRow]:
    """Compute one row. Errors of program and metric are kept in it, and that the item does not fit the program.

    Args:
        program: The program.
        metric: The metric.
        item: The example as it was given.
        replicate: Which of several runs.
        on_reads: Called with the parameters that the program read.

    Raises:
        BudgetExceeded: The budget ended.
        JournalError: A paid reply could not be written.
        LMError: The error would be the same for every row: no LM, a wrong key, an unknown price.
    """
    row = ReportRow(item, replicate=replicate)
    running = _run(program, metric, row, on_reads)
    return _as_replicate(replicate, running) if replicate else running


async def _as_replicate(replicate: int, row: Awaitable[ReportRow]) -> ReportRow:
    with Replicated(replicate):
        return await row


async def _run(program: Evaluated, metric: Metric, row: ReportRow, on_reads: OnReads | None) -> ReportRow:
    began = perf_counter()
    with UsageTracker() as usage, count_checks() as checks:
        try:
            args, kwargs = program.bind(row.example)
            if isinstance(row.example, Example) and row.example.input_keys is None:
                row.example = row.example.with_inputs(*kwargs)  # the others are labels, among which metrics find theirs
            if program.waits:
                if on_reads is None:
                    row.output = await program.acall(*args, **kwargs)
                else:
                    with record_reads() as log:
                        row.output = await program.acall(*args, **kwargs)
                    on_reads(log.reads)
                own = usage.uncached
                score = await call_metric(metric, row.example, row.output)
            else:
                run = partial(_run_plain, program, metric, row, args, kwargs, on_reads, usage)
                own, done = await aio.in_thread(run)
                score = await call_metric(metric, row.example, row.output) if done is None else done
            row.costs = costs_of(own, usage)
            row.score, row.feedback, row.parts = score.value, score.feedback, score.parts
        except (*FATAL, ImportError):  # a program that lacks a module lacks it in every row
            raise
        except Exception as error:  # noqa: BLE001 - it is the row's result
            row.error = error
    row.usage = usage.total
    row.checks = checks.found
    row.seconds = perf_counter() - began
    return row


def _run_plain(
    program: Evaluated,
    metric: Metric,
    row: ReportRow,
    args: Any,
    kwargs: Any,
    on_reads: OnReads | None,
    usage: UsageTracker,
) -> tuple[Usage, Score | None]:
    """Run a plain program in this thread, and the metric as well if it is a plain function.

    Returns:
        What the program's own calls cost, and the score; None for a metric that waits.
    """
    if on_reads is None:
        row.output = program.target(*args, **kwargs)
    else:
        with record_reads() as log:
            row.output = program.target(*args, **kwargs)
        on_reads(log.reads)
    own = usage.uncached
    if isinstance(metric, FunctionMetric) and metric.waits:
        return own, None
    return own, aio.drive(call_metric(metric, row.example, row.output))
