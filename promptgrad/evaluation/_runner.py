"""Running a program on one example and scoring its output."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from promptgrad import aio
from promptgrad.autograd import Read, record_reads
from promptgrad.data import Example, Score
from promptgrad.errors import FATAL, InputError
from promptgrad.evaluation._costs import costs_of
from promptgrad.evaluation._row import ReportRow
from promptgrad.lm import Replicated, Usage, UsageTracker, track_usage
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


@dataclass
class EvaluationJob:
    """One row to compute.

    Attributes:
        item: The example as it was given.
        example: The example as the metric gets it, inputs marked.
        arguments: The program's arguments, or the error because of which it cannot be called.
        replicate: Which of several runs.
    """

    item: Any
    example: Any
    arguments: Arguments | InputError
    replicate: int = 0


def prepare(program: Evaluated, item: Any, replicate: int) -> EvaluationJob:
    """Bind one item."""
    try:
        arguments: Arguments | InputError = program.bind(item)
    except InputError as error:
        return EvaluationJob(item, item, error, replicate)
    example = item
    if isinstance(item, Example) and item.input_keys is None and not isinstance(arguments, InputError):
        example = item.with_inputs(*arguments[1])  # the other fields are labels, among which metrics find theirs
    return EvaluationJob(item, example, arguments, replicate)


def run_job(
    program: Evaluated, metric: Metric, job: EvaluationJob, *, on_reads: OnReads | None = None
) -> Awaitable[ReportRow]:
    """Compute one row. Errors of program and metric are kept in it.

    Args:
        program: The program.
        metric: The metric.
        job: What to run.
        on_reads: Called with the parameters that the program read.

    Raises:
        BudgetExceeded: The budget ended.
        JournalError: A paid reply could not be written.
        LMError: The error would be the same for every row: no LM, a wrong key, an unknown price.
    """
    row = _row(program, metric, job, on_reads)
    return _as_replicate(job.replicate, row) if job.replicate else row


async def _as_replicate(replicate: int, row: Awaitable[ReportRow]) -> ReportRow:
    with Replicated(replicate):
        return await row


async def _row(program: Evaluated, metric: Metric, job: EvaluationJob, on_reads: OnReads | None) -> ReportRow:
    row = ReportRow(job.example, replicate=job.replicate)
    if isinstance(job.arguments, InputError):
        row.error = job.arguments
        return row
    args, kwargs = job.arguments
    began = perf_counter()
    with track_usage() as usage, count_checks() as checks:
        try:
            if program.waits:
                if on_reads is None:
                    row.output = await program.acall(*args, **kwargs)
                else:
                    with record_reads() as log:
                        row.output = await program.acall(*args, **kwargs)
                    on_reads(log.reads)
                own = usage.uncached
                score = await call_metric(metric, job.example, row.output)
            else:
                own, done = await aio.in_thread(_run_plain, program, metric, row, args, kwargs, on_reads, usage)
                score = await call_metric(metric, job.example, row.output) if done is None else done
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
