"""One call of `Predict` while it runs, and what goes along: attempts, which change it, and streams, which hear it."""

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from promptgrad.adapters import Compiled
from promptgrad.lm import Completion, Request, Usage

if TYPE_CHECKING:
    from promptgrad.nn._predict import Predict
    from promptgrad.nn._turns import Turns
    from promptgrad.signature import Signature

Ask = Callable[[Request], Awaitable[Completion]]
"""What answers a request."""


class Call:
    """One call of a `Predict`: what is asked, and what goes along.

    Attributes:
        module: The `Predict`.
        inputs: What was passed, by name, as the graph keeps it.
        values: The inputs in the types of their fields, as the prompt shows them.
        options: The sampling options.
        lm: The language model of this call; None for that of the module or the context.
        turns: The conversation that goes on after the prompt.
        signature: What is asked.
        companions: What goes along.
    """

    __slots__ = ("companions", "inputs", "lm", "module", "options", "signature", "turns", "values")

    def __init__(
        self,
        module: "Predict",
        signature: "Signature",
        inputs: Mapping[str, Any],
        options: dict[str, Any],
        lm: Any = None,
        turns: "Turns | None" = None,
    ) -> None:
        self.module = module
        self.signature = signature
        self.inputs = inputs
        self.values = inputs
        self.options = options
        self.lm = lm
        self.turns = turns
        self.companions: tuple[Companion, ...] = ()


class Companion:
    """What goes along with one call, from before its request is made to its end. Here, each method changes nothing."""

    __slots__ = ()

    def begin(self, compiled: Compiled, ask: Ask) -> Ask:
        """The request is about to be sent by `ask`; what is returned sends it instead."""
        return ask

    def again(self, reason: str) -> None:
        """The reply is of no use, and the model is about to be asked again."""

    def end(self, outputs: Mapping[str, Any], usage: Usage) -> None:
        """The call has these outputs."""

    def fail(self, error: Exception, usage: Usage) -> None:
        """The call has failed."""


class Around:
    """What is around all calls of a context."""

    __slots__ = ()

    async def join(self, call: Call) -> Companion | None:
        """Go along with a call that begins, which may be changed; None for nothing that hears more of it."""
        raise NotImplementedError


_around: ContextVar[tuple[Around, ...]] = ContextVar("promptgrad.around", default=())

around = _around.get
"""What is around the calls of this context, one of a kind, in the order in which they came."""

K = TypeVar("K", bound=Around)


def around_of(kind: type[K]) -> K | None:
    """What is around the calls of this context, of one kind; None where there is none."""
    for one in _around.get():
        if isinstance(one, kind):
            return one
    return None


class surrounded:
    """Within the block, this is around all calls, in place of what is there of its kind."""

    __slots__ = ("_one", "_token")

    def __init__(self, one: Around) -> None:
        self._one = one

    def __enter__(self) -> None:
        one, outer = self._one, _around.get()
        if outer:
            kind = type(one)
            outer = tuple([other for other in outer if type(other) is not kind])
        self._token = _around.set((*outer, one))

    def __exit__(self, *_: object) -> None:
        _around.reset(self._token)


async def joined(call: Call, surroundings: tuple[Around, ...]) -> tuple[Companion, ...]:
    """What goes along with a call of what is around it."""
    found: tuple[Companion, ...] = ()
    for one in surroundings:
        companion = await one.join(call)
        if companion is not None:
            found = (*found, companion)
    return found
