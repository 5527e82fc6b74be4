"""Credit for a choice among outputs: which of those who gave an output hear the critiques of what was chosen."""

from collections.abc import Sequence
from typing import Any

from promptgrad.autograd import Context, Function
from promptgrad.nn._prediction import Prediction, fields_of


def credited(chosen: Any, outputs: Sequence[Any], whose: Sequence[bool], **more: Any) -> Any:
    """The chosen output, whose critiques go to those that are marked, or to all where none is.

    Args:
        chosen: What is returned: one of the outputs, or something made of them.
        outputs: All outputs.
        whose: For each whether the chosen one is its.
        **more: Fields that stand before those of a chosen `Prediction`.
    """
    if isinstance(chosen, Prediction):
        fields = fields_of(chosen)
        return Prediction({**more, **_Choice.apply(fields, tuple(whose), *outputs)})
    return _Choice.apply(chosen, tuple(whose), *outputs)


class _Choice(Function):
    """The result of several outputs; its critiques go to those whose answer it is."""

    @staticmethod
    def forward(ctx: Context, chosen: Any, whose: tuple[bool, ...], *outputs: Any) -> Any:
        """Return what was chosen, and remember who gave it."""
        ctx.save_for_backward(*whose)
        return chosen

    @staticmethod
    def backward(ctx: Context, grad: str | None) -> tuple[str | None, ...]:
        """Pass the critique to those whose answer it is."""
        whose = ctx.saved
        return None, None, *(grad if mine or not any(whose) else None for mine in whose)
