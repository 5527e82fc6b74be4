"""Modules: what programs of language-model calls are made of, and what judges them."""

from promptgrad.nn._batch import Batch, ErrorRow, Row
from promptgrad.nn._chain_of_thought import ChainOfThought
from promptgrad.nn._containers import ModuleDict, ModuleList, ParameterList, Sequential
from promptgrad.nn._critic import Critic
from promptgrad.nn._history import History, inspect_history
from promptgrad.nn._hooks import RemovableHandle
from promptgrad.nn._judge import Judge
from promptgrad.nn._judge_loss import JudgeLoss
from promptgrad.nn._metric_loss import MetricLoss
from promptgrad.nn._module import Module
from promptgrad.nn._predict import Predict
from promptgrad.nn._prediction import Prediction

__all__ = [
    "Batch",
    "ChainOfThought",
    "Critic",
    "ErrorRow",
    "History",
    "Judge",
    "JudgeLoss",
    "MetricLoss",
    "Module",
    "ModuleDict",
    "ModuleList",
    "ParameterList",
    "Predict",
    "Prediction",
    "RemovableHandle",
    "Row",
    "Sequential",
    "inspect_history",
]
