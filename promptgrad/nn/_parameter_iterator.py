"""`ParameterIterator`: what `Module.parameters()` returns."""

from collections.abc import Callable, Iterator

from promptgrad.autograd import Parameter


class ParameterIterator(Iterator[Parameter]):
    """The parameters of a program one by one, with their paths in that program.

    An optimizer of `model.parameters()` names them by these paths. Nothing is stored in the parameters, so the same
    parameter has one path under `model` and another under `model.solve`. A loop after the last one begins again, so
    that several optimizers may be made of the same iterator.

    Attributes:
        paths: The path of each parameter that was returned so far.

    >>> from promptgrad import nn
    >>> parameters = nn.Predict("question -> answer").parameters()
    >>> next(parameters).kind, list(parameters.paths.values())
    ('instruction', ['instruction'])
    """

    def __init__(self, named: Callable[[], Iterator[tuple[str, Parameter]]]) -> None:
        self._begin = named
        self._named = named()
        self._ended = False
        self.paths: dict[Parameter, str] = {}

    def __iter__(self) -> "ParameterIterator":
        if self._ended:
            self._named, self._ended = self._begin(), False
        return self

    def __next__(self) -> Parameter:
        path, parameter = next(self._named, ("", None))
        if parameter is None:
            self._ended = True
            raise StopIteration
        self.paths[parameter] = path
        return parameter
