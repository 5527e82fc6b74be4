"""`Identity`: a module that returns what it is given."""

from typing import Any

from promptgrad.nn._module import Module
from promptgrad.nn._prediction import Prediction


class Identity(Module):
    """Return the input as it is: a place in a program that is left empty; as `torch.nn.Identity`.

    Inputs by name come back as a `Prediction` with these fields, so that the next module of an `nn.Sequential` finds
    them. Arguments of the constructor are taken and ignored, as in torch.

    Shape: one input without a name: that very object. Inputs by name: a `Prediction` of them.
    Cost: no LM call.

    Raises:
        TypeError: When called: there are several inputs without names, or both kinds, or none.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, /, *args: Any, **inputs: Any) -> Any:
        """Return what was given.

        Raises:
            TypeError: There is no input, or there are several without names.
        """
        if len(args) == 1 and not inputs:
            return args[0]
        if args or not inputs:
            raise TypeError(
                f"Identity takes one input, or inputs by name; it got {len(args)} without and {len(inputs)} with a name"
            )
        return Prediction(inputs)
