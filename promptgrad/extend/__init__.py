"""The one door for whoever writes a part of their own: a kind, an operation, an adapter, an LM, an optimizer ....

Everything here lives in the room that it belongs to; this is the list of what may be subclassed, registered or
implemented, and of the records that such a part is given. It changes as public names do: with a line in the changelog.
The page docs/extending.md has examples. The contract suites are `promptgrad.testing.lms`, `modules`, `optimizers`,
`adapters` and `interpreters`.
"""

from typing import TYPE_CHECKING

__all__ = [
    "LM",
    "Adapter",
    "AgreeingCritic",
    "Callback",
    "Candidate",
    "Change",
    "CodeSession",
    "Completion",
    "Context",
    "CriticLike",
    "Critique",
    "Evidence",
    "Execution",
    "FieldPiece",
    "Format",
    "Function",
    "Gradient",
    "Interpreter",
    "JointCriticLike",
    "Kind",
    "Layer",
    "Measured",
    "Message",
    "Metric",
    "Module",
    "NodeFailure",
    "Optimizer",
    "Passing",
    "Place",
    "Program",
    "Record",
    "ReplyFeed",
    "Request",
    "Rewriter",
    "Sample",
    "Search",
    "Selector",
    "Session",
    "Step",
    "StepReport",
    "Target",
    "TextDelta",
    "TraceFailure",
    "Transport",
    "Usage",
    "WeightTrace",
    "register_kind",
    "register_rule",
    "register_selector",
    "unreadable",
]

if TYPE_CHECKING:
    from promptgrad.adapters import Adapter, FieldPiece, Format, ReplyFeed, unreadable
    from promptgrad.autograd import (
        AgreeingCritic,
        Context,
        CriticLike,
        Critique,
        Function,
        Gradient,
        JointCriticLike,
        Kind,
        NodeFailure,
        Passing,
        Program,
        Record,
        Sample,
        Selector,
        Target,
        TraceFailure,
        WeightTrace,
        register_kind,
        register_rule,
        register_selector,
    )
    from promptgrad.lm import LM, Completion, Layer, Message, Request, TextDelta, Transport, Usage
    from promptgrad.metrics import Metric
    from promptgrad.nn import Module
    from promptgrad.optim import Change, Optimizer, Search, StepReport
    from promptgrad.sandbox import CodeSession, Execution, Interpreter
    from promptgrad.search import Candidate, Evidence, Measured, Place, Rewriter, Session, Step
    from promptgrad.train import Callback
else:
    from promptgrad._late import late

    _LATE = {
        "LM": "promptgrad.lm",
        "Adapter": "promptgrad.adapters",
        "AgreeingCritic": "promptgrad.autograd",
        "Callback": "promptgrad.train",
        "Candidate": "promptgrad.search",
        "Change": "promptgrad.optim",
        "CodeSession": "promptgrad.sandbox",
        "Completion": "promptgrad.lm",
        "Context": "promptgrad.autograd",
        "CriticLike": "promptgrad.autograd",
        "Critique": "promptgrad.autograd",
        "Evidence": "promptgrad.search",
        "Execution": "promptgrad.sandbox",
        "FieldPiece": "promptgrad.adapters",
        "Format": "promptgrad.adapters",
        "Function": "promptgrad.autograd",
        "Gradient": "promptgrad.autograd",
        "Interpreter": "promptgrad.sandbox",
        "JointCriticLike": "promptgrad.autograd",
        "Kind": "promptgrad.autograd",
        "Layer": "promptgrad.lm",
        "Measured": "promptgrad.search",
        "Message": "promptgrad.lm",
        "Metric": "promptgrad.metrics",
        "Module": "promptgrad.nn",
        "NodeFailure": "promptgrad.autograd",
        "Optimizer": "promptgrad.optim",
        "Passing": "promptgrad.autograd",
        "Place": "promptgrad.search",
        "Program": "promptgrad.autograd",
        "Record": "promptgrad.autograd",
        "ReplyFeed": "promptgrad.adapters",
        "Request": "promptgrad.lm",
        "Rewriter": "promptgrad.search",
        "Sample": "promptgrad.autograd",
        "Search": "promptgrad.optim",
        "Selector": "promptgrad.autograd",
        "Session": "promptgrad.search",
        "Step": "promptgrad.search",
        "StepReport": "promptgrad.optim",
        "Target": "promptgrad.autograd",
        "TextDelta": "promptgrad.lm",
        "TraceFailure": "promptgrad.autograd",
        "Transport": "promptgrad.lm",
        "Usage": "promptgrad.lm",
        "WeightTrace": "promptgrad.autograd",
        "register_kind": "promptgrad.autograd",
        "register_rule": "promptgrad.autograd",
        "register_selector": "promptgrad.autograd",
        "unreadable": "promptgrad.adapters",
    }

    __getattr__, __dir__ = late(__name__, _LATE)
