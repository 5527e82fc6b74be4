"""`Program`: what the graph needs from the module whose forward is recorded."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from promptgrad.autograd._parameter import Parameter


@runtime_checkable
class Program(Protocol):
    """A module: parts that may be modules themselves, and parameters by path. `nn.Module` is one."""

    def modules(self) -> Iterable[Any]:
        """The module and all modules in it, each once. Constants in their code explain inputs of calls."""
        ...

    def parameters(self) -> "Iterable[Parameter]":
        """All parameters, each once."""
        ...

    def named_parameters(self, *, remove_duplicate: bool = True) -> "Iterable[tuple[str, Parameter]]":
        """All parameters with their paths; with `remove_duplicate=False` under every path that they have."""
        ...
