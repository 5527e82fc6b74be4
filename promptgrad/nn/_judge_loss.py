"""`JudgeLoss`, the criterion in which a language model judges by a rubric."""

from collections.abc import Mapping
from typing import Any

from promptgrad.autograd import CriticLike
from promptgrad.lm import LM
from promptgrad.nn._critic import Critic
from promptgrad.nn._judge import Judge
from promptgrad.nn._metric_loss import MetricLoss


class JudgeLoss(MetricLoss):
    """Let a language model score outputs by a rubric; its feedback is the gradient of the loss.

    `criterion = nn.JudgeLoss("The answer is polite and names a source.", lm="openai/gpt-4o")`. The judge is
    `criterion.judge`, a metric that `promptgrad.evaluate` accepts as well.

    An output may be a `Parameter`, as in `MetricLoss`: then the judge's feedback is its critique.

    Cost: one LM call per row.

    Source: the feedback of a language model as the loss, Yuksekgonul et al. 2024, arXiv 2406.07496.

    Args:
        rubric: What makes an output good, in words; or several criteria by name, judged in one call.
        lm: The LM that judges; else that of the context or of `configure`.
        critic: The critic that divides blame in `backward()`, as in `MetricLoss`.
        labels: Show the judge the labels of the example, as a reference.
        **options: Sampling options of the judge.

    Raises:
        TypeError: The rubric is not text, or is empty.
        MetricError: The judge failed on every row.
        NoLMError: The judge has no LM.
    """

    judge: Judge

    def __init__(
        self,
        rubric: str | Mapping[str, str],
        lm: LM | str | None = None,
        critic: "Critic | CriticLike | LM | str | None" = None,
        *,
        labels: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(Judge(rubric, lm, labels=labels, **options), critic)

    def extra_repr(self) -> str:
        """Empty: the judge is shown below."""
        return ""
