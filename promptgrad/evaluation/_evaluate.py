"""`evaluate`, which makes a report of a program, examples and a metric."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import ExitStack, nullcontext
from time import perf_counter
from typing import Any

from promptgrad import aio
from promptgrad._habits import refuses
from promptgrad._numbers import optional_count
from promptgrad._seed import seed_or_default
from promptgrad.autograd import inference_mode
from promptgrad.data import Example, not_a_list
from promptgrad.errors import DataError, InputError, LMError, MetricError, is_outage
from promptgrad.evaluation._report import Report
from promptgrad.evaluation._row import ReportRow
from promptgrad.evaluation._runner import Evaluated, check_items_fit, run_row
from promptgrad.lm import LM, context, current
from promptgrad.metrics import Metric, as_metric
from promptgrad.nn import in_flight
from promptgrad.run import progress as progress_bar

EVALUATE_HABITS = {
    **dict.fromkeys(("devset", "dataset", "testset", "valset", "examples"), "evaluate(program, data, metric)"),
    **dict.fromkeys(("model", "module"), "evaluate(program, data, metric)"),
    **dict.fromkeys(("num_threads", "max_workers", "max_concurrency", "batch_size", "num_workers"), "concurrency=..."),
    **dict.fromkeys(("display_progress", "show_progress", "disable_progress_bar"), "progress=..."),
    **dict.fromkeys(("display_table", "save_as_csv", "save_as_json"), "report.rows, of the report that it returns"),
    **dict.fromkeys(
        ("return_outputs", "return_all_scores"), "nothing: the report that it returns has every row with its score"
    ),
    **dict.fromkeys(
        ("max_errors", "failure_score", "provide_traceback"),
        "nothing: a row that fails is an error, and is counted apart",
    ),
    "metrics": "metric=...: a metric of several parts returns a Score",
    **dict.fromkeys(("criterion", "scorer", "compute_metrics"), "metric=..."),
    "n": "replicates=...",
}

OUTAGE = 8
"""The rest of the rows is not run once this many, and as many as run at once, got no answer and no row got one."""


@refuses(EVALUATE_HABITS, "evaluate")
async def aevaluate(
    program: Any,
    data: Iterable[Any],
    metric: Callable[..., Any],
    *,
    concurrency: int | None = None,
    lm: LM | str | None = None,
    progress: bool | None = None,
    replicates: int = 1,
    seed: int | None = None,
) -> Report:
    """Run a program on every example, score what it returns, and report.

    Nothing is recorded for `backward()`. Examples run concurrently. Where the program or the metric fails, the row
    is an error and has no score; a wrong answer is not an error. The inputs of an example are those of `with_inputs`,
    else the fields named like the program's arguments.

    Cost: what the program and the metric spend, `len(data) * replicates` times.

    Args:
        program: A module, or any function of the inputs, plain or async.
        data: Examples, or dicts, which become examples; or a `DataLoader`.
        metric: `metric(example, output)` gives a bool, a number or a `Score`, and may be async; DSPy's
            `(gold, pred, trace)` is accepted.
        concurrency: Rows in flight; else that of the context or of `configure`, else 32.
        lm: A language model for the whole program, in place of those of its modules.
        progress: Show a progress bar; by default in a terminal or notebook.
        replicates: Independent runs of each example; LMs and caches treat them as different requests.
        seed: Seed of the bootstrap intervals; by default that of `promptgrad.manual_seed`.

    Raises:
        DataError: There is no example; or the rows are tuples, and fail for it.
        InputError: No example fits the arguments of the program.
        MetricError: `metric` is not a metric, or it failed on every row on which the program did not fail.
        LMError: No language model is configured, its key is wrong, or its price is unknown while money is limited; or
            no row got an answer: the rest is not run once 8 rows, and as many as run at the same time, have failed.
        BudgetExceeded: The budget of the active run ended.
        KeyboardInterrupt: Ctrl-C. Each of these three, and a cancellation, carries the finished rows as a `Report` in
            `.report`; a cancellation under Python 3.10 only where it is caught inside the cancelled task, since
            `await task` raises another exception there.
        AsyncUsageError: `evaluate` was called inside a coroutine that promptgrad runs: use `await aevaluate(...)`.
    """
    if isinstance(replicates, bool) or not isinstance(replicates, int) or replicates < 1:
        raise ValueError(f"replicates is a whole number of at least 1, not {replicates!r}")
    optional_count("concurrency", concurrency)
    runner, first = Evaluated(program), current().replicate or 0
    judge = as_metric(metric)
    items = items_of(data)
    check_items_fit(runner, items)
    work = _Evaluation(
        runner, judge, items, range(first, first + replicates), in_flight(concurrency), seed_or_default(seed)
    )
    try:
        with nullcontext() if lm is None else context(lm=lm, override=True):
            return await work.run(progress=progress)
    except BaseException as stop:
        work.attach(stop)
        raise


evaluate = aio.blocking(aevaluate)


class _Evaluation:
    """One evaluation under way, whose finished rows outlive an interruption."""

    def __init__(
        self,
        program: Evaluated,
        metric: Metric,
        items: list[Any],
        replicates: range,
        limit: int,
        seed: int,
    ) -> None:
        self.program = program
        self.metric = metric
        self.items = items
        self.replicates = replicates
        self.limit = limit
        self.seed = seed
        self.rows: dict[int, ReportRow] = {}
        self.down = True  # no row so far got an answer of its language model
        self.began = perf_counter()

    async def run(self, *, progress: bool | None) -> Report:
        """Compute all rows."""
        with ExitStack() as stack:
            stack.enter_context(inference_mode())
            count = len(self.items) * len(self.replicates)
            bar = stack.enter_context(progress_bar(count, f"evaluate {self.program.name}", progress))
            total, scored = 0.0, 0

            def done(index: int, row: ReportRow) -> None:
                nonlocal total, scored
                self.add(index, row)
                if bar.visible:
                    if row.error is None:
                        total, scored = total + row.score, scored + 1
                    bar.advance(note=f"{total / scored:.3f}" if scored else "")

            await aio.each(self.start, range(count), limit=self.limit, on_done=done)
        report = self.report()
        failed = [row.error for row in report.rows if row.error is not None]
        if len(failed) == len(report) and all(isinstance(error, LMError) for error in failed):
            raise failed[0]
        if len(failed) == len(report) and all(isinstance(error, (MetricError, InputError)) for error in failed):
            fault = next((error for error in failed if isinstance(error, MetricError)), failed[0])
            if isinstance(item := report[0].example, tuple):
                raise DataError(_no_rows(item, self.program)) from fault
            raise fault
        return report

    def start(self, index: int) -> Awaitable[ReportRow]:
        """Compute a row."""
        place, number = divmod(index, len(self.replicates))
        return run_row(self.program, self.metric, self.items[place], self.replicates[number])

    def add(self, index: int, row: ReportRow) -> None:
        """Add a row that is done.

        Raises:
            LMError: It and all before got no answer, and they are enough to tell that none will.
        """
        self.rows[index] = row
        # a request that is too long is a fault of its example alone
        self.down = self.down and isinstance(row.error, LMError) and is_outage(row.error)
        if self.down and len(self.rows) >= max(OUTAGE, self.limit):
            raise self.rows[min(self.rows)].error or row.error  # type: ignore[misc]  # each of them has one

    def report(self, *, complete: bool = True) -> Report:
        """The report of the rows so far."""
        return Report(
            (self.rows[index] for index in sorted(self.rows)),
            metric=self.metric.name,
            program=self.program.name,
            best=self.metric.best,
            seconds=perf_counter() - self.began,
            seed=self.seed,
            complete=complete,
        )

    def attach(self, stop: BaseException) -> None:
        """Attach the finished rows to the exception that stopped the evaluation."""
        stop.report = self.report(complete=False)  # type: ignore[attr-defined]


def _no_rows(item: tuple[Any, ...], program: Evaluated) -> str:
    """The message about rows that are tuples, whose fields have no names."""
    names = [*(program.input_names() or ("question",)), "answer"]
    fields = ", ".join(f"{name}={name}" for name in dict.fromkeys(names))
    shown = repr(item)
    return (
        f"a row is an Example or a dict, whose fields have names, not a tuple such as {shown[:80]}: write "
        f"[pg.Example({fields}) for {', '.join(dict.fromkeys(names))} in data]"
    )


def items_of(data: Iterable[Any]) -> list[Any]:
    """The examples in some data; dicts become examples, and batches of a loader are flattened.

    Raises:
        DataError: The data is empty, or it is one example instead of a list of them.
    """
    if fault := not_a_list("the data is", data, rows=False):
        raise DataError(fault)
    items: list[Any] = []
    for item in data:
        items += item if isinstance(item, list) else [item]
    if not items:
        raise DataError("there is nothing to evaluate: the data is empty")
    return [item if type(item) is Example or not isinstance(item, Mapping) else Example(item) for item in items]
