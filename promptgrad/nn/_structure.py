"""The structure of programs, and what is derived from it, which is kept until any structure changes."""

from itertools import count
from typing import TYPE_CHECKING

from promptgrad.autograd import Parameter

if TYPE_CHECKING:
    from promptgrad.nn._members import Members
    from promptgrad.nn._module import Module

_changes = count(1)


class Structures:
    """Counts the changes of the structure of any program."""

    version = 0


def structure_changed() -> None:
    """Have what was derived from structures derived anew."""
    Structures.version = next(_changes)


class StructurePlan:
    """What is derived from the structure of a program: the paths of its modules and of its parameters."""

    __slots__ = ("parameters", "paths", "version")

    def __init__(self, root: "Members") -> None:
        self.version = Structures.version
        self.paths: dict[Module, str] = {module: path for path, module in root.named_modules()}
        self.parameters: dict[Parameter, str] = {parameter: path for path, parameter in root.named_parameters()}

    def takes_gradient(self) -> bool:
        """Whether a parameter requires a gradient, or a language model traces for its weights."""
        for parameter in self.parameters:
            if parameter.requires_grad:
                return True
        last = None
        for module in self.paths:
            lm = module._lm
            if lm is not None and lm is not last:  # most programs run on one LM
                if lm.traces():
                    return True
                last = lm
        return False


def plan_of(root: "Members") -> StructurePlan:
    """What is derived from the structure of a program as it is now."""
    plan = root._plan
    if plan is None or plan.version != Structures.version:
        plan = root.__dict__["_plan"] = StructurePlan(root)
    return plan
