"""Text that remembers, parameters, the tape, and the backward pass."""

from typing import TYPE_CHECKING

__all__ = [
    "PROGRAM",
    "AccumulateGrad",
    "AgreeingCritic",
    "AnomalyWarning",
    "BackwardReport",
    "Choice",
    "Cluster",
    "Context",
    "CriticLike",
    "Critique",
    "Edge",
    "Explanation",
    "ForwardOutput",
    "Function",
    "GradFn",
    "Gradient",
    "Gradients",
    "Graph",
    "Join",
    "JointCriticLike",
    "Kind",
    "Loss",
    "LossRow",
    "Node",
    "NodeFailure",
    "Parameter",
    "Passing",
    "Pick",
    "Program",
    "Read",
    "ReadLog",
    "Record",
    "Remark",
    "RemovableHandle",
    "Saliency",
    "SalientTrace",
    "Sample",
    "Selector",
    "Skipped",
    "SparingCritic",
    "Swap",
    "Tape",
    "Target",
    "Text",
    "TokenSaliency",
    "Trace",
    "TraceFailure",
    "TraceSuccess",
    "Walk",
    "WeightTrace",
    "WordSaliency",
    "ademos_for",
    "as_kind",
    "asaliency",
    "atoken_swaps",
    "attach",
    "blame_query",
    "call_name",
    "candidate",
    "clip_grad_tokens_",
    "critic_of",
    "current_detector",
    "current_tape",
    "demos_for",
    "demos_in",
    "detect_anomaly",
    "edges",
    "enable_grad",
    "explain_error",
    "feedback_of",
    "graph",
    "inference_mode",
    "is_grad_enabled",
    "joined_sources",
    "kinds_of",
    "no_grad",
    "objection",
    "open_tape",
    "pass_through",
    "record_reads",
    "register_kind",
    "register_rule",
    "register_selector",
    "saliency",
    "same_group",
    "short",
    "snapshot",
    "split",
    "to_json",
    "token_swaps",
    "tokens",
]

if TYPE_CHECKING:
    from promptgrad.autograd._anomaly import AnomalyWarning, current_detector, detect_anomaly
    from promptgrad.autograd._choice import Choice
    from promptgrad.autograd._clip import clip_grad_tokens_
    from promptgrad.autograd._cluster import Cluster, same_group
    from promptgrad.autograd._critic import (
        PROGRAM,
        AgreeingCritic,
        CriticLike,
        JointCriticLike,
        NodeFailure,
        SparingCritic,
        Target,
        TraceFailure,
        TraceSuccess,
        WeightTrace,
    )
    from promptgrad.autograd._critique import Critique
    from promptgrad.autograd._edges import Edge, ForwardOutput, edges, joined_sources
    from promptgrad.autograd._explain import Explanation, call_name, short
    from promptgrad.autograd._failed_forward import critic_of
    from promptgrad.autograd._function import Context, Function
    from promptgrad.autograd._gradient import Gradient, Trace
    from promptgrad.autograd._gradients import Gradients
    from promptgrad.autograd._graph import Graph, graph
    from promptgrad.autograd._handle import RemovableHandle
    from promptgrad.autograd._kind import (
        Kind,
        Selector,
        ademos_for,
        as_kind,
        demos_for,
        demos_in,
        kinds_of,
        register_kind,
        register_selector,
    )
    from promptgrad.autograd._loss import Loss
    from promptgrad.autograd._loss_row import LossRow
    from promptgrad.autograd._mode import enable_grad, inference_mode, is_grad_enabled, no_grad
    from promptgrad.autograd._node import AccumulateGrad, GradFn, Join, Node, Pick, Read
    from promptgrad.autograd._parameter import Parameter, candidate, objection
    from promptgrad.autograd._program import Program
    from promptgrad.autograd._record import Record
    from promptgrad.autograd._report import BackwardReport, Remark, Skipped
    from promptgrad.autograd._rules import Passing, blame_query, explain_error, pass_through, register_rule, split
    from promptgrad.autograd._saliency import Saliency, WordSaliency, asaliency, atoken_swaps, saliency, token_swaps
    from promptgrad.autograd._salient import SalientTrace, Swap, TokenSaliency
    from promptgrad.autograd._sample import Sample
    from promptgrad.autograd._seed import feedback_of
    from promptgrad.autograd._tape import ReadLog, Tape, current_tape, open_tape, record_reads
    from promptgrad.autograd._text import Text, attach
    from promptgrad.autograd._tokens import tokens
    from promptgrad.autograd._values import snapshot, to_json
    from promptgrad.autograd._walk import Walk
else:
    from promptgrad._late import late

    _LATE = {
        "AccumulateGrad": "_node",
        "AgreeingCritic": "_critic",
        "AnomalyWarning": "_anomaly",
        "BackwardReport": "_report",
        "Choice": "_choice",
        "Cluster": "_cluster",
        "Context": "_function",
        "CriticLike": "_critic",
        "Critique": "_critique",
        "Edge": "_edges",
        "Explanation": "_explain",
        "ForwardOutput": "_edges",
        "Function": "_function",
        "GradFn": "_node",
        "Gradient": "_gradient",
        "Gradients": "_gradients",
        "Graph": "_graph",
        "Join": "_node",
        "JointCriticLike": "_critic",
        "Kind": "_kind",
        "Loss": "_loss",
        "LossRow": "_loss_row",
        "Node": "_node",
        "NodeFailure": "_critic",
        "PROGRAM": "_critic",
        "Parameter": "_parameter",
        "Passing": "_rules",
        "Pick": "_node",
        "Program": "_program",
        "Read": "_node",
        "ReadLog": "_tape",
        "Record": "_record",
        "Remark": "_report",
        "RemovableHandle": "_handle",
        "Saliency": "_saliency",
        "SalientTrace": "_salient",
        "Sample": "_sample",
        "Selector": "_kind",
        "Skipped": "_report",
        "SparingCritic": "_critic",
        "Swap": "_salient",
        "Tape": "_tape",
        "Target": "_critic",
        "Text": "_text",
        "TokenSaliency": "_salient",
        "Trace": "_gradient",
        "TraceFailure": "_critic",
        "TraceSuccess": "_critic",
        "Walk": "_walk",
        "WeightTrace": "_critic",
        "WordSaliency": "_saliency",
        "ademos_for": "_kind",
        "as_kind": "_kind",
        "asaliency": "_saliency",
        "atoken_swaps": "_saliency",
        "attach": "_text",
        "blame_query": "_rules",
        "call_name": "_explain",
        "candidate": "_parameter",
        "clip_grad_tokens_": "_clip",
        "critic_of": "_failed_forward",
        "current_detector": "_anomaly",
        "current_tape": "_tape",
        "demos_for": "_kind",
        "demos_in": "_kind",
        "detect_anomaly": "_anomaly",
        "edges": "_edges",
        "enable_grad": "_mode",
        "explain_error": "_rules",
        "feedback_of": "_seed",
        "graph": "_graph",
        "inference_mode": "_mode",
        "is_grad_enabled": "_mode",
        "joined_sources": "_edges",
        "kinds_of": "_kind",
        "no_grad": "_mode",
        "objection": "_parameter",
        "open_tape": "_tape",
        "pass_through": "_rules",
        "record_reads": "_tape",
        "register_kind": "_kind",
        "register_rule": "_rules",
        "register_selector": "_kind",
        "saliency": "_saliency",
        "same_group": "_cluster",
        "short": "_explain",
        "snapshot": "_values",
        "split": "_rules",
        "to_json": "_values",
        "token_swaps": "_saliency",
        "tokens": "_tokens",
    }

    __getattr__, __dir__ = late(__name__, _LATE)
