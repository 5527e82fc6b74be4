"""What backward asks of others: the `Critic` and `WeightTrace` protocols, and the data that cross them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from promptgrad.autograd._node import Node
    from promptgrad.autograd._parameter import Parameter


@dataclass(frozen=True)
class Target:
    """One thing that may be to blame for a failed call.

    Attributes:
        name: What the critic's answer calls it: the parameter's name in its module, or the input field's.
        kind: "instruction" or "description" for a parameter, "input" for an input that another call produced.
        value: What it was at the call.
        parameter: The parameter; None for an input.
    """

    name: str
    kind: str
    value: Any
    parameter: "Parameter | None" = None


@dataclass(frozen=True)
class NodeFailure:
    """A call in a failed forward, and all that may be blamed for it.

    Attributes:
        node: The call, with its inputs, outputs and messages.
        example: The example that failed; None when there is none.
        feedback: What is wrong with the call's outputs, as far as those who used them could say.
        targets: What may be blamed, parameters first.
    """

    node: "Node"
    example: Any
    feedback: tuple[str, ...]
    targets: tuple[Target, ...]


@runtime_checkable
class Critic(Protocol):
    """Divides the blame for a failed call among its targets."""

    async def critique(self, failure: NodeFailure) -> Mapping[str, str]:
        """What is wrong with each target, by its name. A missing or empty answer, or `RIGHT`, means no blame.

        Called once for each (failed sample, call), for as many at once as the graph allows.
        """
        ...


RIGHT = "it is right"
"""What a critic says of a target that is not to blame."""


@runtime_checkable
class WeightTrace(Protocol):
    """What a local model keeps of one sampled reply, to compute the gradient of its weights."""

    @property
    def requires_grad(self) -> bool:
        """Whether any weight of the model does."""
        ...

    def backward(self, advantage: float) -> None:
        """Add the policy gradient of the sampled tokens, weighted by the advantage, to the weights' `.grad`."""
        ...
