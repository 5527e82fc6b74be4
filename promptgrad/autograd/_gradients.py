"""`Gradients`: what a backward pass found, as a value."""

from collections.abc import Iterator, Mapping

from promptgrad.autograd._gradient import Gradient
from promptgrad.autograd._parameter import Parameter
from promptgrad.autograd._report import BackwardReport


class Gradients(Mapping[Parameter, Gradient]):
    """The gradient of each parameter that a backward pass reached, in the order in which they were reached.

    `Loss.gradients` returns it. A parameter that got no gradient is not among its keys: use `gradients.get(parameter)`.

    Attributes:
        report: What the pass did.
        names: The name of each parameter: its path in the program that was called, its own name, or its kind.
    """

    __slots__ = ("_found", "names", "report")

    def __init__(
        self, found: Mapping[Parameter, Gradient], report: BackwardReport, names: Mapping[Parameter, str]
    ) -> None:
        self._found = dict(found)
        self.report = report
        self.names = {parameter: names[parameter] for parameter in self._found}

    def __getitem__(self, parameter: Parameter) -> Gradient:
        return self._found[parameter]

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        lines = [f"  {self.names[parameter]}: {gradient!r}" for parameter, gradient in self.items()]
        return "\n".join([f"Gradients of {len(lines)} parameter{'' if len(lines) == 1 else 's'}", *lines])
