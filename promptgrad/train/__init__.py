"""Training runs: the `Trainer` with its plans and reports, states on disk, and the test that a step goes downhill."""

from typing import TYPE_CHECKING

__all__ = [
    "Callback",
    "DSPyReport",
    "EarlyStopping",
    "Estimate",
    "FitResult",
    "Gain",
    "GradcheckArm",
    "GradcheckReport",
    "ModelCheckpoint",
    "ParetoFront",
    "ParetoPoint",
    "Phase",
    "Plan",
    "Trainer",
    "acompile",
    "agradcheck",
    "compile",
    "from_dspy",
    "gradcheck",
    "load",
    "load_dspy",
    "save",
]

if TYPE_CHECKING:
    from promptgrad.search import Phase, Plan
    from promptgrad.train._callback import Callback
    from promptgrad.train._checkpoint import load, save
    from promptgrad.train._compile import acompile, compile
    from promptgrad.train._dspy import DSPyReport, from_dspy, load_dspy
    from promptgrad.train._early_stopping import EarlyStopping, ModelCheckpoint
    from promptgrad.train._gradcheck import agradcheck, gradcheck
    from promptgrad.train._gradcheck_report import GradcheckArm, GradcheckReport
    from promptgrad.train._pareto_front import ParetoFront, ParetoPoint
    from promptgrad.train._result import Estimate, FitResult, Gain
    from promptgrad.train._trainer import Trainer
else:
    from promptgrad._late import late

    _LATE = {
        "Callback": "_callback",
        "DSPyReport": "_dspy",
        "EarlyStopping": "_early_stopping",
        "Estimate": "_result",
        "FitResult": "_result",
        "Gain": "_result",
        "GradcheckArm": "_gradcheck_report",
        "GradcheckReport": "_gradcheck_report",
        "ModelCheckpoint": "_early_stopping",
        "ParetoFront": "_pareto_front",
        "ParetoPoint": "_pareto_front",
        "Phase": "promptgrad.search",
        "Plan": "promptgrad.search",
        "Trainer": "_trainer",
        "acompile": "_compile",
        "agradcheck": "_gradcheck",
        "compile": "_compile",
        "from_dspy": "_dspy",
        "gradcheck": "_gradcheck",
        "load": "_checkpoint",
        "load_dspy": "_dspy",
        "save": "_checkpoint",
    }

    __getattr__, __dir__ = late(__name__, _LATE)
