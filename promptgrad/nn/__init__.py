"""Modules: what programs of language-model calls are made of, and what judges them."""

from typing import TYPE_CHECKING

from promptgrad.autograd import Parameter
from promptgrad.nn._hooks import RemovableHandle
from promptgrad.nn._module import Module
from promptgrad.nn._neighbours import Neighbours, Vectorizer, ngrams, register_vectorizer
from promptgrad.nn._parameter_iterator import ParameterIterator
from promptgrad.nn._predict import Predict
from promptgrad.nn._prediction import Prediction, fields_of
from promptgrad.nn._recent import remember_output
from promptgrad.nn._state import flaw_of, trained_names
from promptgrad.nn._state_dict import StateDict, metadata_of, state_of_whole, whole_state

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
    from promptgrad.nn._batch import Batch, BatchRow, ErrorRow
    from promptgrad.nn._best_of_n import BestOfN
    from promptgrad.nn._chain_of_thought import ChainOfThought
    from promptgrad.nn._check import Assert, Check, Checks, Suggest, count_checks
    from promptgrad.nn._check_loss import CheckLoss
    from promptgrad.nn._code_act import CodeAct
    from promptgrad.nn._confidence import confidence
    from promptgrad.nn._containers import ModuleDict, ModuleList, ParameterDict, ParameterList, Sequential
    from promptgrad.nn._critic import Critic
    from promptgrad.nn._ensemble import Ensemble, majority
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
    from promptgrad.nn._export import export
    from promptgrad.nn._fits_signature import FitsSignature
    from promptgrad.nn._grouper import Grouper
    from promptgrad.nn._history import CallHistory, inspect_history, keep_history
    from promptgrad.nn._identity import Identity
    from promptgrad.nn._joint_critic import Finding, JointCritic
    from promptgrad.nn._judge import Judge
    from promptgrad.nn._judge_loss import JudgeLoss
    from promptgrad.nn._map import Arguments, bind, in_flight
    from promptgrad.nn._metric_loss import MetricLoss, as_critic
    from promptgrad.nn._multi_chain_comparison import MultiChainComparison
    from promptgrad.nn._nll_loss import NLLLoss
    from promptgrad.nn._op import Op, op
    from promptgrad.nn._parallel import Parallel
    from promptgrad.nn._program_of_thought import ProgramOfThought
    from promptgrad.nn._react import ReAct
    from promptgrad.nn._refine import Refine
    from promptgrad.nn._retrieve import Retrieve
    from promptgrad.nn._rlm import RLM
    from promptgrad.nn._route import Route
    from promptgrad.nn._self_consistency import SelfConsistency
    from promptgrad.nn._soft_prompt import SoftPrompt
    from promptgrad.nn._stream import EventIterator, EventStream
    from promptgrad.nn._summary import ModuleSummary, ProgramSummary, summary
    from promptgrad.nn._synthesizer import Synthesizer, SyntheticExamples, is_synthetic
    from promptgrad.nn._trace_of import trace_of
    from promptgrad.nn._turns import Turns
else:
    from promptgrad._late import late

    _LATE = {
        "Arguments": "_map",
        "Assert": "_check",
        "AuxLoss": "_aux_loss",
        "Batch": "_batch",
        "BatchRow": "_batch",
        "BestOfN": "_best_of_n",
        "CallBegun": "_events",
        "CallEnded": "_events",
        "CallHistory": "_history",
        "ChainOfThought": "_chain_of_thought",
        "Check": "_check",
        "CheckLoss": "_check_loss",
        "Checks": "_check",
        "CodeAct": "_code_act",
        "Critic": "_critic",
        "Ensemble": "_ensemble",
        "ErrorRow": "_batch",
        "EventIterator": "_stream",
        "EventStream": "_stream",
        "FieldDelta": "_events",
        "FieldFinished": "_events",
        "Finding": "_joint_critic",
        "FitsSignature": "_fits_signature",
        "Grouper": "_grouper",
        "Identity": "_identity",
        "JointCritic": "_joint_critic",
        "Judge": "_judge",
        "JudgeLoss": "_judge_loss",
        "MetricLoss": "_metric_loss",
        "ModuleDict": "_containers",
        "ModuleList": "_containers",
        "ModuleSummary": "_summary",
        "MultiChainComparison": "_multi_chain_comparison",
        "NLLLoss": "_nll_loss",
        "Op": "_op",
        "Parallel": "_parallel",
        "ParameterDict": "_containers",
        "ParameterList": "_containers",
        "PartialValue": "_events",
        "ProgramOfThought": "_program_of_thought",
        "ProgramSummary": "_summary",
        "RLM": "_rlm",
        "ReAct": "_react",
        "Refine": "_refine",
        "Retrieve": "_retrieve",
        "Route": "_route",
        "SelfConsistency": "_self_consistency",
        "Sequential": "_containers",
        "SoftPrompt": "_soft_prompt",
        "StreamEvent": "_events",
        "Suggest": "_check",
        "Synthesizer": "_synthesizer",
        "SyntheticExamples": "_synthesizer",
        "ThoughtDelta": "_events",
        "ToolBegun": "_events",
        "ToolEnded": "_events",
        "ToolPiece": "_events",
        "Turns": "_turns",
        "Voided": "_events",
        "as_critic": "_metric_loss",
        "bind": "_map",
        "confidence": "_confidence",
        "count_checks": "_check",
        "export": "_export",
        "in_flight": "_map",
        "inspect_history": "_history",
        "is_synthetic": "_synthesizer",
        "keep_history": "_history",
        "majority": "_ensemble",
        "op": "_op",
        "summary": "_summary",
        "trace_of": "_trace_of",
    }

    # What a user of PyTorch or DSPy may type out of habit, and what to write here.
    _ELSEWHERE = {
        "Agent": "nn.ReAct(signature, tools=[...])",
        "BCELoss": "nn.MetricLoss(metric)",
        "BlackboxLLM": "nn.Predict('question -> answer', instruction=...)",
        "ChainOfThoughtWithHint": "nn.ChainOfThought('question, hint -> answer')",
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
        "ReActV2": "nn.ReAct(signature, tools, native=True)",
        "Row": "nn.BatchRow",
        "Signature": "promptgrad.Signature",
        "TextLoss": "nn.JudgeLoss(rubric)",
        "TypedChainOfThought": "nn.ChainOfThought('question -> answer: float'): every signature has types",
        "TypedPredictor": "nn.Predict('question -> answer: float'): every signature has types",
        "clip_grad_norm_": "promptgrad.clip_grad_tokens_(model.parameters(), max_tokens)",
        "clip_grad_value_": "promptgrad.clip_grad_tokens_(model.parameters(), max_tokens)",
        "functional": "promptgrad.metrics",
        "loss": "nn.MetricLoss(metric) or nn.JudgeLoss(rubric)",
        "utils": "promptgrad.clip_grad_tokens_(model.parameters(), max_tokens) for torch.nn.utils.clip_grad_norm_",
    }

    __getattr__, __dir__ = late(__name__, _LATE, _ELSEWHERE)
