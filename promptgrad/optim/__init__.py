"""Optimizers: they improve the parameters of a program, step by step from gradients or by search.

Every optimizer works in `promptgrad.Trainer`, which gives it data, a budget and a journal, and ships only confirmed
improvements. An optimizer that learns from gradients also works in a loop of your own (`zero_grad`, `loss.backward()`,
`step`).
"""

from typing import TYPE_CHECKING

__all__ = [
    "GEPA",
    "GRPO",
    "MIPRO",
    "TGD",
    "TPE",
    "Amend",
    "Auto",
    "BayesianSignatureOptimizer",
    "BetterTogether",
    "BootstrapFewShot",
    "BootstrapFewShotWithRandomSearch",
    "BootstrapFinetune",
    "Candidate",
    "Change",
    "CosineAnnealingEdit",
    "EditScheduler",
    "Ensemble",
    "Hunk",
    "Improve",
    "ImproveSolution",
    "KNNFewShot",
    "LabeledFewShot",
    "LambdaEdit",
    "Measured",
    "Optimizer",
    "Point",
    "ProposeInstruction",
    "RandomSearch",
    "ReduceEditOnPlateau",
    "Rules",
    "Search",
    "Session",
    "StepEdit",
    "StepReport",
    "Trial",
    "TrustRegionEdit",
    "Verdict",
    "apply_hunks",
    "edit_distance",
    "edit_ratio",
]

if TYPE_CHECKING:
    from promptgrad.optim._auto import Auto
    from promptgrad.optim._better_together import BetterTogether
    from promptgrad.optim._bootstrap_few_shot import BootstrapFewShot
    from promptgrad.optim._bootstrap_finetune import BootstrapFinetune
    from promptgrad.optim._edit_scheduler import CosineAnnealingEdit, EditScheduler, LambdaEdit, StepEdit
    from promptgrad.optim._ensemble import Ensemble
    from promptgrad.optim._gepa import GEPA
    from promptgrad.optim._grpo import GRPO
    from promptgrad.optim._knn_few_shot import KNNFewShot
    from promptgrad.optim._labeled_few_shot import LabeledFewShot
    from promptgrad.optim._mipro import MIPRO, BayesianSignatureOptimizer
    from promptgrad.optim._optimizer import Optimizer
    from promptgrad.optim._plateau import ReduceEditOnPlateau
    from promptgrad.optim._random_search import BootstrapFewShotWithRandomSearch, RandomSearch
    from promptgrad.optim._report import Change, StepReport
    from promptgrad.optim._search import Search
    from promptgrad.optim._tgd import TGD
    from promptgrad.optim._trust_region import TrustRegionEdit
    from promptgrad.search import (
        TPE,
        Amend,
        Candidate,
        Hunk,
        Improve,
        ImproveSolution,
        Measured,
        Point,
        ProposeInstruction,
        Rules,
        Session,
        Trial,
        Verdict,
        apply_hunks,
        edit_distance,
        edit_ratio,
    )
else:
    from promptgrad._late import late

    _LATE = {
        "GEPA": "_gepa",
        "GRPO": "_grpo",
        "MIPRO": "_mipro",
        "TGD": "_tgd",
        "Auto": "_auto",
        "BayesianSignatureOptimizer": "_mipro",
        "BetterTogether": "_better_together",
        "BootstrapFewShot": "_bootstrap_few_shot",
        "BootstrapFewShotWithRandomSearch": "_random_search",
        "BootstrapFinetune": "_bootstrap_finetune",
        "Change": "_report",
        "CosineAnnealingEdit": "_edit_scheduler",
        "EditScheduler": "_edit_scheduler",
        "Ensemble": "_ensemble",
        "KNNFewShot": "_knn_few_shot",
        "LabeledFewShot": "_labeled_few_shot",
        "LambdaEdit": "_edit_scheduler",
        "Optimizer": "_optimizer",
        "RandomSearch": "_random_search",
        "ReduceEditOnPlateau": "_plateau",
        "Search": "_search",
        "StepEdit": "_edit_scheduler",
        "StepReport": "_report",
        "TrustRegionEdit": "_trust_region",
    }
    # The others are names of promptgrad.search that users look for here.
    _LATE |= {name: "promptgrad.search" for name in __all__ if name not in _LATE}

    # Names that users of PyTorch, DSPy or TextGrad may type out of habit, and what to write instead.
    _ELSEWHERE = {
        **{
            name: f"promptgrad.optim.TGD for text, torch.optim.{name}(model.weights()) for the weights of a local model"
            for name in ("Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "LBFGS", "NAdam", "Adadelta")
        },
        **dict.fromkeys(("TextualGradientDescent", "TextGrad", "TGDOptimizer", "TextualSGD"), "promptgrad.optim.TGD"),
        "TextualGradientDescentwithMomentum": "promptgrad.optim.TGD, whose writer sees every run with the present "
        "values in Trainer.fit",
        **dict.fromkeys(("BayesianOptimizer", "Optuna"), "promptgrad.optim.MIPRO"),
        "MIPROv2": 'promptgrad.optim.MIPRO(params, auto="light")',
        "COPRO": "promptgrad.optim.MIPRO(params, num_demo_sets=0), which searches over instructions alone, or "
        "promptgrad.optim.TGD, which rewrites them from what went wrong",
        "BootstrapRS": "promptgrad.optim.RandomSearch",
        "BootstrapFewShotWithOptuna": "promptgrad.optim.MIPRO(params, num_candidates=0), which searches over demo sets "
        "alone",
        **dict.fromkeys(
            ("SIMBA", "InferRules"),
            "promptgrad.optim.GEPA or promptgrad.optim.TGD, which write rules from runs that went wrong and runs that "
            "went right",
        ),
        "SignatureOptimizer": "promptgrad.optim.MIPRO(params, num_demo_sets=0)",
        "lr_scheduler": "promptgrad.optim.StepEdit, CosineAnnealingEdit, LambdaEdit, ReduceEditOnPlateau or "
        "TrustRegionEdit: there is no lr here, and they move max_edit, the bound on how far a step may go",
        "LRScheduler": "promptgrad.optim.EditScheduler",
        **dict.fromkeys(("StepLR", "MultiStepLR", "ExponentialLR"), "promptgrad.optim.StepEdit(optimizer, step_size)"),
        "LambdaLR": "promptgrad.optim.LambdaEdit(optimizer, edit_lambda)",
        "CosineAnnealingLR": "promptgrad.optim.CosineAnnealingEdit(optimizer, T_max)",
        "ReduceLROnPlateau": "promptgrad.optim.ReduceEditOnPlateau(optimizer)",
    }

    __getattr__, __dir__ = late(__name__, _LATE, _ELSEWHERE)
