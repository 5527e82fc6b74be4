"""Modules: what programs of language-model calls are made of, and what judges them."""

from importlib import import_module
from typing import TYPE_CHECKING

from promptgrad.autograd import Parameter
from promptgrad.nn._batch import Batch, BatchRow, ErrorRow
from promptgrad.nn._chain_of_thought import ChainOfThought
from promptgrad.nn._check import Assert, Check, Checks, Suggest, count_checks
from promptgrad.nn._confidence import confidence
from promptgrad.nn._containers import ModuleDict, ModuleList, ParameterDict, ParameterList, Sequential
from promptgrad.nn._critic import Critic
from promptgrad.nn._events import (
    CallBegun,
    CallEnded,
    FieldDelta,
    FieldFinished,
    PartialValue,
    StreamEvent,
    ThoughtDelta,
    ToolBegun,
    ToolEnded,
    ToolPiece,
    Voided,
)
from promptgrad.nn._fits_signature import FitsSignature
from promptgrad.nn._grouper import Grouper
from promptgrad.nn._history import CallHistory, inspect_history, keep_history
from promptgrad.nn._hooks import RemovableHandle
from promptgrad.nn._identity import Identity
from promptgrad.nn._joint_critic import Finding, JointCritic
from promptgrad.nn._map import Arguments, bind, in_flight
from promptgrad.nn._metric_loss import MetricLoss, as_critic
from promptgrad.nn._module import Module
from promptgrad.nn._neighbours import Neighbours, Vectorizer, ngrams, register_vectorizer
from promptgrad.nn._op import Op, op
from promptgrad.nn._parameter_iterator import ParameterIterator
from promptgrad.nn._predict import Predict
from promptgrad.nn._prediction import Prediction, fields_of
from promptgrad.nn._recent import remember_output
from promptgrad.nn._state import flaw_of, trained_names
from promptgrad.nn._state_dict import StateDict, metadata_of, state_of_whole, whole_state
from promptgrad.nn._stream import EventIterator, EventStream
from promptgrad.nn._trace_of import trace_of
from promptgrad.nn._turns import Turns

__all__ = [
    "RLM",
    "Arguments",
    "Assert",
    "AuxLoss",
    "Batch",
    "BatchRow",
    "BestOfN",
    "CallBegun",
    "CallEnded",
    "CallHistory",
    "ChainOfThought",
    "Check",
    "CheckLoss",
    "Checks",
    "CodeAct",
    "Critic",
    "Ensemble",
    "ErrorRow",
    "EventIterator",
    "EventStream",
    "FieldDelta",
    "FieldFinished",
    "Finding",
    "FitsSignature",
    "Grouper",
    "Identity",
    "JointCritic",
    "Judge",
    "JudgeLoss",
    "MetricLoss",
    "Module",
    "ModuleDict",
    "ModuleList",
    "ModuleSummary",
    "MultiChainComparison",
    "NLLLoss",
    "Neighbours",
    "Op",
    "Parallel",
    "Parameter",
    "ParameterDict",
    "ParameterIterator",
    "ParameterList",
    "PartialValue",
    "Predict",
    "Prediction",
    "ProgramOfThought",
    "ProgramSummary",
    "ReAct",
    "Refine",
    "RemovableHandle",
    "Retrieve",
    "Route",
    "SelfConsistency",
    "Sequential",
    "SoftPrompt",
    "StateDict",
    "StreamEvent",
    "Suggest",
    "Synthesizer",
    "SyntheticExamples",
    "ThoughtDelta",
    "ToolBegun",
    "ToolEnded",
    "ToolPiece",
    "Turns",
    "Vectorizer",
    "Voided",
    "as_critic",
    "bind",
    "confidence",
    "count_checks",
    "export",
    "fields_of",
    "flaw_of",
    "in_flight",
    "inspect_history",
    "is_synthetic",
    "keep_history",
    "majority",
    "metadata_of",
    "ngrams",
    "op",
    "register_vectorizer",
    "remember_output",
    "state_of_whole",
    "summary",
    "trace_of",
    "trained_names",
    "whole_state",
]

if TYPE_CHECKING:
    from promptgrad.nn._aux_loss import AuxLoss
    from promptgrad.nn._best_of_n import BestOfN
    from promptgrad.nn._check_loss import CheckLoss
    from promptgrad.nn._code_act import CodeAct
    from promptgrad.nn._ensemble import Ensemble, majority
    from promptgrad.nn._export import export
    from promptgrad.nn._judge import Judge
    from promptgrad.nn._judge_loss import JudgeLoss
    from promptgrad.nn._multi_chain_comparison import MultiChainComparison
    from promptgrad.nn._nll_loss import NLLLoss
    from promptgrad.nn._parallel import Parallel
    from promptgrad.nn._program_of_thought import ProgramOfThought
    from promptgrad.nn._react import ReAct
    from promptgrad.nn._refine import Refine
    from promptgrad.nn._retrieve import Retrieve
    from promptgrad.nn._rlm import RLM
    from promptgrad.nn._route import Route
    from promptgrad.nn._self_consistency import SelfConsistency
    from promptgrad.nn._soft_prompt import SoftPrompt
    from promptgrad.nn._summary import ModuleSummary, ProgramSummary, summary
    from promptgrad.nn._synthesizer import Synthesizer, SyntheticExamples, is_synthetic
else:
    _LATE = {  # what most programs do not need
        "AuxLoss": "promptgrad.nn._aux_loss",
        "BestOfN": "promptgrad.nn._best_of_n",
        "CheckLoss": "promptgrad.nn._check_loss",
        "CodeAct": "promptgrad.nn._code_act",
        "Ensemble": "promptgrad.nn._ensemble",
        "Judge": "promptgrad.nn._judge",
        "JudgeLoss": "promptgrad.nn._judge_loss",
        "ModuleSummary": "promptgrad.nn._summary",
        "MultiChainComparison": "promptgrad.nn._multi_chain_comparison",
        "NLLLoss": "promptgrad.nn._nll_loss",
        "Parallel": "promptgrad.nn._parallel",
        "ProgramOfThought": "promptgrad.nn._program_of_thought",
        "ProgramSummary": "promptgrad.nn._summary",
        "RLM": "promptgrad.nn._rlm",
        "ReAct": "promptgrad.nn._react",
        "Refine": "promptgrad.nn._refine",
        "Retrieve": "promptgrad.nn._retrieve",
        "Route": "promptgrad.nn._route",
        "SelfConsistency": "promptgrad.nn._self_consistency",
        "SoftPrompt": "promptgrad.nn._soft_prompt",
        "Synthesizer": "promptgrad.nn._synthesizer",
        "SyntheticExamples": "promptgrad.nn._synthesizer",
        "export": "promptgrad.nn._export",
        "is_synthetic": "promptgrad.nn._synthesizer",
        "majority": "promptgrad.nn._ensemble",
        "summary": "promptgrad.nn._summary",
    }

    # What a user of PyTorch or DSPy may type out of habit, and what to write here.
    _ELSEWHERE = {
        "Agent": "nn.ReAct(signature, tools=[...])",
        "BCELoss": "nn.MetricLoss(metric)",
        "BlackboxLLM": "nn.Predict('question -> answer', instruction=...)",
        "CrossEntropyLoss": "nn.MetricLoss(metric) for texts, nn.NLLLoss() for the weights of a local model",
        "DataParallel": "model.map(batch), which runs a batch concurrently",
        **dict.fromkeys(
            ("Conv1d", "Conv2d", "Dropout", "Embedding", "Flatten", "GRU", "LSTM", "LayerNorm", "ReLU", "Softmax"),
            "torch.nn in a module of promptgrad: its layers compute numbers, and those here call language models",
        ),
        "InputField": "promptgrad.Input",
        "Dataset": "a list of promptgrad.Example",
        "MultiFieldEvaluation": "nn.JudgeLoss({name: rubric, ...})",
        "FormattedLLMCall": "nn.Predict with several fields",
        "KNN": "nn.Neighbours(examples, k=3), as demos= of a Predict",
        "LLM": "promptgrad.LM(name), which model.to(lm) takes",
        "Linear": "nn.Predict('question -> answer')",
        "MSELoss": "nn.MetricLoss(metric)",
        "OutputField": "promptgrad.Output",
        "Prompt": "nn.Predict('question -> answer', instruction=...)",
        "BatchRow": "nn.BatchRow",
        "Row": "nn.BatchRow",
        "Signature": "promptgrad.Signature",
        "TextLoss": "nn.JudgeLoss(rubric)",
        "TypedChainOfThought": "nn.ChainOfThought('question -> answer: float'): every signature has types",
        "TypedPredictor": "nn.Predict('question -> answer: float'): every signature has types",
        "clip_grad_norm_": "promptgrad.clip_grad_tokens_(model.parameters(), max_tokens)",
        "clip_grad_value_": "promptgrad.clip_grad_tokens_(model.parameters(), max_tokens)",
        "functional": "promptgrad.metrics",
        "loss": "nn.MetricLoss(metric) or nn.JudgeLoss(rubric)",
        "utils": "promptgrad.clip_grad_tokens_(model.parameters(), max_tokens) for nn.utils.clip_grad_norm_",
    }

    def __getattr__(name):
        if name in _LATE:
            value = getattr(import_module(_LATE[name]), name)
            globals()[name] = value
            return value
        from difflib import get_close_matches

        message = f"module 'promptgrad.nn' has no attribute {name!r}"
        if name in _ELSEWHERE:
            message += f": write {_ELSEWHERE[name]}"
        elif not name.startswith("_") and (near := get_close_matches(name, __all__, 1, 0.7)):
            message += f": did you mean nn.{near[0]}?"
        raise AttributeError(message)

    def __dir__():
        return sorted({*globals(), *__all__})
