"""`judge_noise`: how far the scores of a judge agree when it judges the same outputs again."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from statistics import fmean, variance
from typing import Any

from promptgrad import aio
from promptgrad.autograd import inference_mode
from promptgrad.errors import DataError, MetricError
from promptgrad.evaluation._report import Report
from promptgrad.lm import Usage, context, track_usage
from promptgrad.metrics import Metric, as_metric, call_metric
from promptgrad.nn import in_flight


@dataclass(frozen=True)
class JudgeNoise:
    """The repeatability of a judge, as `judge_noise` measured it.

    Attributes:
        sd: Standard deviation of the scores of one output: the root of the mean variance within the outputs. The mean
            score of n outputs, judged once each, carries a standard error of `sd / sqrt(n)` from the judge alone.
        flips: Share of the pairs of judgements of one output that lie on two sides of `threshold`.
        reliability: Share of the variance of a single judgement that is between the outputs, and not the judge's own
            (the intraclass correlation): 1 for a judge that always repeats itself, 0 for one whose scores have nothing
            to do with the output; NaN where all scores are alike, or there is one output.
        threshold: Least score that passes.
        scores: The scores of each output, in the order of the data.
        failed: Number of outputs of which a judgement failed; they are left out.
        usage: What it cost.
    """

    sd: float
    flips: float
    reliability: float
    threshold: float
    scores: tuple[tuple[float, ...], ...] = field(repr=False)
    failed: int = 0
    usage: Usage = field(default_factory=Usage)

    def __str__(self) -> str:
        agree = "" if math.isnan(self.reliability) else f", reliability {self.reliability:.2f}"
        failed = f", {self.failed} left out" if self.failed else ""
        calls = self.usage.calls + self.usage.cached
        return (
            f"sd {self.sd:.3f} within an output, {self.flips:.0%} of pairs on two sides of {self.threshold:g}{agree} "
            f"({len(self.scores)} outputs x {len(self.scores[0])} judgements{failed}, {calls} LM calls)"
        )


async def ajudge_noise(
    metric: Callable[..., Any],
    data: "Report | Iterable[tuple[Any, Any]]",
    *,
    replicates: int = 3,
    threshold: float | None = None,
    concurrency: int | None = None,
) -> JudgeNoise:
    """Let a judge score the same outputs several times, and measure how far it agrees with itself.

    A judge is any metric that calls a language model. Its replies are sampled anew: LMs and caches treat replicates as
    different requests. At temperature 0 most models repeat themselves, so their noise is small and their bias stays
    unseen: this measures repeatability, not truth.

    Cost: `replicates` calls of the metric for each output.
    Source: for the reliability, Shrout and Fleiss 1979, "Intraclass correlations", the form ICC(1, 1).

    Args:
        metric: The judge: `nn.Judge`, or any metric.
        data: A `Report` of `evaluate`, whose outputs are judged again, or pairs of example and output.
        replicates: Judgements of each output.
        threshold: Least score that passes; None for half of the best score.
        concurrency: Judgements in flight; else that of the context or of `configure`, else 32.

    Raises:
        DataError: There is no output.
        ValueError: `replicates` is below 2.
        MetricError: The metric failed on every output.
        BudgetExceeded: The budget of the active run ended.
    """
    if isinstance(replicates, bool) or not isinstance(replicates, int) or replicates < 2:
        raise ValueError(f"replicates is a whole number of at least 2, not {replicates!r}: one judgement has no spread")
    known = as_metric(metric)
    pairs = _pairs(data)
    with track_usage() as usage, inference_mode():
        judged = await aio.gather(
            [partial(_judge, known, *pair, number) for pair in pairs for number in range(replicates)],
            limit=in_flight(concurrency),
        )
    groups = [judged[start : start + replicates] for start in range(0, len(judged), replicates)]
    whole = [tuple(score for score in group if not isinstance(score, MetricError)) for group in groups]
    kept = tuple(scores for scores in whole if len(scores) == replicates)
    if not kept:
        raise next(score for score in judged if isinstance(score, MetricError))
    least = known.best / 2 if threshold is None else threshold
    return JudgeNoise(
        math.sqrt(fmean(variance(scores) for scores in kept)),
        fmean((one >= least) != (two >= least) for scores in kept for one, two in combinations(scores, 2)),
        _reliability(kept),
        least,
        kept,
        len(groups) - len(kept),
        usage.total,
    )


judge_noise = aio.blocking(ajudge_noise)


async def _judge(metric: Metric, example: Any, output: Any, replicate: int) -> "float | MetricError":
    try:
        with context(replicate=replicate):
            return (await call_metric(metric, example, output)).value
    except MetricError as error:
        return error


def _pairs(data: "Report | Iterable[tuple[Any, Any]]") -> list[tuple[Any, Any]]:
    if isinstance(data, Report):
        pairs = [(row.example, row.output) for row in data if row.error is None]
    else:
        pairs = [(example, output) for example, output in data]
    if not pairs:
        raise DataError("there is no output to judge")
    return pairs


def _reliability(scores: Sequence[Sequence[float]]) -> float:
    """The intraclass correlation ICC(1, 1), at least 0."""
    count, times = len(scores), len(scores[0])
    if count < 2:
        return math.nan
    between = times * variance(fmean(group) for group in scores)
    within = fmean(variance(group) for group in scores)
    whole = between + (times - 1) * within
    return max(0.0, (between - within) / whole) if whole > 0 else math.nan
