"""`ParameterIterator`: what `Module.parameters()` returns."""

from collections.abc import Iterator

from promptgrad.autograd import Parameter


class ParameterIterator(Iterator[Parameter]):
    """The parameters of a program one by one, with their paths in that program.

    An optimizer of `model.parameters()` names them by these paths. Nothing is stored in the parameters, so the same
    parameter has one path under `model` and another under `model.solve`.

    Attributes:
        paths: The path of each parameter that was returned so far.

    >>> from promptgrad import nn
    >>> parameters = nn.Predict("question -> answer").parameters()
    >>> next(parameters).kind, list(parameters.paths.values())
    ('instruction', ['instruction'])
    """

    def __init__(self, named: Iterator[tuple[str, Parameter]]) -> None:
        self._named = named
        self.paths: dict[Parameter, str] = {}

    def __next__(self) -> Parameter:
        path, parameter = next(self._named)
        self.paths[parameter] = path
        return parameter
