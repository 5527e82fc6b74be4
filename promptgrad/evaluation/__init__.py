"""Measuring programs: concurrent evaluation, reports, paired statistics, and the evaluator that optimizers use."""

from typing import TYPE_CHECKING

__all__ = [
    "COSTS",
    "JUDGING",
    "Comparison",
    "Evaluator",
    "JudgeNoise",
    "Report",
    "ReportRow",
    "aevaluate",
    "ajudge_noise",
    "evaluate",
    "grouped_interval",
    "judge_noise",
    "mean_interval",
    "paired_interval",
    "paired_test",
    "source_digest",
    "source_parts",
]

if TYPE_CHECKING:
    from promptgrad.evaluation._comparison import Comparison
    from promptgrad.evaluation._costs import COSTS, JUDGING
    from promptgrad.evaluation._evaluate import aevaluate, evaluate
    from promptgrad.evaluation._evaluator import Evaluator
    from promptgrad.evaluation._judge_noise import JudgeNoise, ajudge_noise, judge_noise
    from promptgrad.evaluation._report import Report
    from promptgrad.evaluation._row import ReportRow
    from promptgrad.evaluation._sources import source_digest, source_parts
    from promptgrad.evaluation._statistics import grouped_interval, mean_interval, paired_interval, paired_test
else:
    from promptgrad._late import late

    _LATE = {
        "COSTS": "_costs",
        "Comparison": "_comparison",
        "Evaluator": "_evaluator",
        "JUDGING": "_costs",
        "JudgeNoise": "_judge_noise",
        "Report": "_report",
        "ReportRow": "_row",
        "aevaluate": "_evaluate",
        "ajudge_noise": "_judge_noise",
        "evaluate": "_evaluate",
        "grouped_interval": "_statistics",
        "judge_noise": "_judge_noise",
        "mean_interval": "_statistics",
        "paired_interval": "_statistics",
        "paired_test": "_statistics",
        "source_digest": "_sources",
        "source_parts": "_sources",
    }

    __getattr__, __dir__ = late(__name__, _LATE)
