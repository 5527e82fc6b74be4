"""What backward needs from others: the protocols of critics and of weight traces, and the data that cross them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from promptgrad.autograd._edges import Edge
    from promptgrad.autograd._node import Node
    from promptgrad.autograd._parameter import Parameter


@dataclass(frozen=True)
class Target:
    """One thing that may be to blame for a failed call.

    Attributes:
        name: Its name in the critic's answer: the parameter's name in its module, or the input field's.
        kind: The kind of the parameter, or "input" for an input that another call produced.
        value: Its value at the call.
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
        feedback: What is wrong with the call's outputs, according to the loss and the calls that used them.
        targets: What may be blamed, parameters first.
        replicate: Which of several answers about the same call is wanted, from `backward(repeat=...)`.
    """

    node: "Node"
    example: Any
    feedback: tuple[str, ...]
    targets: tuple[Target, ...]
    replicate: int = 0


@dataclass(frozen=True)
class TraceSuccess:
    """A forward that was right, shown beside those that failed.

    Attributes:
        example: The example.
        nodes: The calls that led to its output and read a text or demos that may be blamed, in their order.
        edges: The edges between these calls.
    """

    example: Any
    nodes: "tuple[Node, ...]"
    edges: "tuple[Edge, ...]"


@dataclass(frozen=True)
class TraceFailure:
    """A failed forward as a whole, and all parameters that may be blamed for it.

    Attributes:
        example: The example that failed; None when there is none.
        feedback: What is wrong with what the forward returned.
        nodes: The calls that led to its output and in which a parameter may be to blame, in their order.
        edges: The edges between these calls: which call used what another one produced.
        node_feedback: What is wrong with single calls, if a loss has feedback for them.
        targets: The parameters, by full name, with the values that were read.
        successes: Forwards of the same batch that were right, those with the most similar inputs first.
    """

    example: Any
    feedback: tuple[str, ...]
    nodes: "tuple[Node, ...]"
    edges: "tuple[Edge, ...]"
    node_feedback: "Mapping[Node, tuple[str, ...]]"
    targets: tuple[Target, ...]
    successes: tuple[TraceSuccess, ...] = ()


@runtime_checkable
class CriticLike(Protocol):
    """Divides the blame for a failed call among its targets."""

    async def critique(self, failure: NodeFailure) -> Mapping[str, str]:
        """What is wrong with each target that is to blame, by its name; empty or missing where it is not.

        Called once for each (failed sample, call), for as many at once as the graph allows.
        """
        ...


@runtime_checkable
class JointCriticLike(Protocol):
    """A critic that can also judge whole forwards, the engine "joint" of `backward`."""

    def groups(self, failures: Sequence[TraceFailure], size: int | None = None) -> Sequence[Sequence[TraceFailure]]:
        """Partition failed forwards into groups, one call each; empty if the critic cannot judge such forwards.

        `size` is the most forwards of a group, from `backward(group=...)`; None leaves it to the critic.
        """
        ...

    async def critique_traces(self, group: Sequence[TraceFailure]) -> Sequence[Mapping[str, str | Sequence[str]]]:
        """For each forward of a group, what is wrong with each parameter, by its full name, in one text or several.

        What is wrong with the program's own code stands under `PROGRAM`.
        """
        ...


@runtime_checkable
class AgreeingCritic(Protocol):
    """A critic that can also say which of its answers about one call agree, for `backward(repeat=...)`."""

    async def agreeing(self, failure: NodeFailure, target: str, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        """Groups of texts about one target that ask for the same, by index; a text in no group agrees with none.

        Called once for each target that repeated answers blame in more than one wording.
        """
        ...


@runtime_checkable
class SparingCritic(Protocol):
    """A critic that says whether it may be spared where only one call can be to blame."""

    def is_spared(self, lm: Any) -> bool:
        """Whether the feedback on a forward serves as the critique, where one call alone can be to blame for it.

        Args:
            lm: The language model that would criticise if no critic is set: that of the call; None if there is none.
        """
        ...


@runtime_checkable
class StoppingCritic(Protocol):
    """A critic that keeps the error for which its caller will stop, so that no warning need tell of it."""

    stopped: BaseException | None


PROGRAM = "program"
"""The name under which a critic of whole forwards says what is wrong with the program's own code."""


@runtime_checkable
class WeightTrace(Protocol):
    """What a local model keeps of one sampled reply, to compute the gradient of its weights."""

    @property
    def requires_grad(self) -> bool:
        """Whether any weight of the model requires a gradient."""
        ...

    def backward(self, advantage: float) -> None:
        """Add the policy gradient of the sampled tokens, weighted by the advantage, to the weights' `.grad`."""
        ...

    @staticmethod
    def backward_all(pairs: "Sequence[tuple[Any, float]]") -> None:
        """Do so for many traces of this class with their advantages; `backward` in a loop, or something faster."""
        ...
