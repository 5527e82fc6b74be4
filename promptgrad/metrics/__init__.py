"""Ready-made metrics, and `as_metric`, which makes a metric of any function."""

from typing import TYPE_CHECKING

__all__ = [
    "CallTrace",
    "FieldMetric",
    "FunctionMetric",
    "Metric",
    "RankingMetric",
    "as_metric",
    "call_metric",
    "contains",
    "exact_match",
    "f1",
    "feedback_for",
    "is_right",
    "mrr",
    "ndcg_at",
    "numeric_match",
    "recall",
    "recall_at",
]

if TYPE_CHECKING:
    from promptgrad.metrics._contains import contains
    from promptgrad.metrics._exact_match import exact_match
    from promptgrad.metrics._f1 import f1
    from promptgrad.metrics._metric import FieldMetric, FunctionMetric, Metric, as_metric, call_metric
    from promptgrad.metrics._numeric_match import numeric_match
    from promptgrad.metrics._ranking import RankingMetric, mrr, ndcg_at, recall_at
    from promptgrad.metrics._recall import recall
    from promptgrad.metrics._traced import CallTrace, feedback_for, is_right
else:
    from promptgrad._late import late

    _LATE = {
        "CallTrace": "_traced",
        "FieldMetric": "_metric",
        "FunctionMetric": "_metric",
        "Metric": "_metric",
        "RankingMetric": "_ranking",
        "as_metric": "_metric",
        "call_metric": "_metric",
        "contains": "_contains",
        "exact_match": "_exact_match",
        "f1": "_f1",
        "feedback_for": "_traced",
        "is_right": "_traced",
        "mrr": "_ranking",
        "ndcg_at": "_ranking",
        "numeric_match": "_numeric_match",
        "recall": "_recall",
        "recall_at": "_ranking",
    }

    # What a user of DSPy or scikit-learn may type out of habit, and what to write here.
    _ELSEWHERE = {
        **dict.fromkeys(
            ("SemanticF1", "CompleteAndGrounded"),
            "nn.Judge(rubric), such as nn.Judge('It says what the expected answer says, and no more.')",
        ),
        **dict.fromkeys(("answer_exact_match", "EM", "accuracy", "accuracy_score"), "metrics.exact_match"),
        **dict.fromkeys(("answer_passage_match", "HotPotF1"), "metrics.contains, metrics.f1 or metrics.recall_at(k)"),
        **dict.fromkeys(("F1", "f1_score"), "metrics.f1"),
    }

    __getattr__, __dir__ = late(__name__, _LATE, _ELSEWHERE)
