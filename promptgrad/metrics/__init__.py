"""Ready-made metrics, and `as_metric`, which makes a metric of any function."""

from promptgrad.metrics._contains import contains
from promptgrad.metrics._exact_match import exact_match
from promptgrad.metrics._f1 import f1
from promptgrad.metrics._metric import FieldMetric, FunctionMetric, Metric, as_metric, call_metric
from promptgrad.metrics._numeric_match import numeric_match
from promptgrad.metrics._ranking import RankingMetric, mrr, ndcg_at, recall_at
from promptgrad.metrics._recall import recall
from promptgrad.metrics._traced import CallTrace, feedback_for, is_right

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
