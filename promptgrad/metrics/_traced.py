"""The conventions of DSPy's metrics: `trace` where demos are collected, `pred_name` for feedback on one module."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from promptgrad.metrics._metric import FunctionMetric, as_metric, result_of, score_of

CallTrace = Sequence[tuple[Any, Mapping[str, Any], Any]]
"""The calls of a forward in their order, as DSPy shows them: module, inputs, prediction. `nn.trace_of` makes it."""


async def is_right(
    metric: Callable[..., Any],
    example: Any,
    output: Any,
    score: float,
    *,
    trace: CallTrace,
    threshold: float | None = None,
) -> bool:
    """Whether a run is right enough for its calls to become demos.

    A metric with a third argument `trace` is asked again, with the trace: many of DSPy's metrics are stricter then, as
    in `return score >= 1 if trace is not None else score`. A bool is its decision; any other result is compared with
    the threshold, as the score of a metric without `trace` is.

    Cost: one more call of a metric that takes the trace; none for others.

    Args:
        metric: The metric.
        example: The example.
        output: What the program returned.
        score: The score of the output, without the trace.
        trace: The calls of the run.
        threshold: Least score that is right; None for the best score.

    Raises:
        MetricError: The metric raised, or gave no score in its range.
    """
    known = as_metric(metric)
    least = known.best if threshold is None else threshold
    if not (isinstance(known, FunctionMetric) and known.takes_trace):
        return score >= least
    result = await result_of(known, example, output, trace)
    if type(result).__name__ in ("bool", "bool_"):  # numpy's, too
        return bool(result)
    return score_of(known, result).value >= least


async def feedback_for(
    metric: FunctionMetric, example: Any, output: Any, *, trace: CallTrace, name: str, call: tuple[Any, Any, Any]
) -> str:
    """The feedback of a metric with `pred_name` and `pred_trace` on one call of one module; its score is not used.

    Args:
        metric: The metric.
        example: The example.
        output: What the program returned.
        trace: The calls of the run.
        name: Path of the module.
        call: Its call: module, inputs, prediction.

    Raises:
        MetricError: The metric raised, or gave no score in its range.
    """
    return score_of(metric, await result_of(metric, example, output, trace, name, [call])).feedback
