"""`Function`, an operation with a backward of its own, and the `Context` that carries things from one to the other."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import lru_cache
from typing import Any, ClassVar

from promptgrad.autograd._node import Node, Pick
from promptgrad.autograd._parameter import Parameter
from promptgrad.autograd._rules import Passing
from promptgrad.autograd._tape import current_tape
from promptgrad.autograd._text import attach
from promptgrad.errors import GraphError

FEEDBACK_SEPARATOR = "\n"
"""The separator between the texts of several users of one output, in the gradient that `Function.backward` gets."""


class Context:
    """What `forward` leaves for `backward`.

    Attributes:
        needs_input_grad: For each input of `forward`, whether a gradient of it is wanted. In `backward` this is exact;
            in `forward` it is whether anything is recorded, since the producer of an input is only found at backward.
        saved: The values that were given to `save_for_backward`.
    """

    def __init__(self, *, recording: bool, inputs: int) -> None:
        self.needs_input_grad: tuple[bool, ...] = (recording,) * inputs
        self.saved: tuple[Any, ...] = ()
        self._detached: tuple[Any, ...] = ()

    def save_for_backward(self, *values: Any) -> None:
        """Keep values for `backward`, until the graph is freed."""
        self.saved = values

    def mark_non_differentiable(self, *outputs: Any) -> None:
        """Mark outputs, these very objects, so that no blame passes through them; as `Text.detach`.

        Critiques of a marked output go nowhere: its gradient in `backward` is None, and no edge leaves a call if all
        its outputs are marked.
        """
        self._detached = outputs

    def is_detached(self, output: Any) -> bool:
        """Whether an output was marked."""
        return any(marked is output for marked in self._detached)


class Function:
    """An operation without an LM whose backward you write; as `torch.autograd.Function`.

    A subclass has two static methods. It is called by `apply` and never instantiated:

    ```
    class Search(autograd.Function):
        @staticmethod
        def forward(ctx, query, k=3):
            found = index.search(query, k)
            ctx.save_for_backward(query)
            return found

        @staticmethod
        def backward(ctx, grad):
            (query,) = ctx.saved
            return f"the query {query!r} found the wrong documents: {grad}", None

    documents = Search.apply(query, 5)
    ```

    `forward` gets plain values: for a `Parameter`, its value. If it returns a tuple, each item is an output. `backward`
    gets, for each output, the critique of it: a text, or None if there is none. It returns, for each input of
    `forward`, what is wrong with that: a text, a sequence of texts, or None. A result for the only input needs no
    tuple. Returning `grad` itself keeps its origin. Either method may be an `async def`; then `apply` gives an
    awaitable, and the other runs where it can wait. What `backward` raises is noted in the report, with a warning, and
    the rest goes on.

    Keyword arguments are inputs too: `backward` returns theirs in the order of `forward`'s parameters.

    Cost: no LM call except those that the two methods make.
    """

    forward: ClassVar[Callable[..., Any]]
    backward: ClassVar[Callable[..., Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:  # not NoReturn, which hides `apply` from type checkers
        raise TypeError(f"a Function is not instantiated: write {cls.__name__}.apply(...)")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run `forward`, and record the call where calls are recorded.

        Raises:
            TypeError: The arguments do not fit `forward`, or `forward` or `backward` is missing.
        """
        for name in ("forward", "backward"):
            if not hasattr(cls, name):
                raise TypeError(f"{cls.__name__} does not define {name}(ctx, ...) as a static method")
        bound = _signature(cls.forward).bind(None, *args, **kwargs)
        inputs = _named(bound)
        tape = current_tape()
        node = (
            None if tape is None else tape.node(cls.__name__, kind="function", inputs=inputs, module_name=cls.__name__)
        )
        ctx = Context(recording=node is not None, inputs=len(inputs))
        if node is not None:
            node.rule = _rule(cls, ctx, tuple(inputs))
        values = {
            id(value): _value(name, value, node) for name, value in inputs.items() if isinstance(value, Parameter)
        }
        args = tuple(values.get(id(value), value) for value in args)
        kwargs = {name: values.get(id(value), value) for name, value in kwargs.items()}
        if inspect.iscoroutinefunction(cls.forward):
            return _awaited(cls, ctx, node, args, kwargs)
        try:
            outputs = cls.forward(ctx, *args, **kwargs)
        except BaseException as error:
            if node is not None:
                node.finish(error=error)
            raise
        return _finish(ctx, node, outputs)


_signature = lru_cache(256)(inspect.signature)


async def _awaited(
    cls: type[Function], ctx: Context, node: Node | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    try:
        outputs = await cls.forward(ctx, *args, **kwargs)
    except BaseException as error:
        if node is not None:
            node.finish(error=error)
        raise
    return _finish(ctx, node, outputs)


def _named(bound: inspect.BoundArguments) -> dict[str, Any]:
    """The inputs by name, in the order of forward's parameters; without the ctx, and with *args and **kwargs spread."""
    inputs: dict[str, Any] = {}
    first = True
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            inputs.update(value)
            continue
        values = list(value) if kind is inspect.Parameter.VAR_POSITIONAL else [value]
        if first:
            values, first = values[1:], False
            inputs.update({str(number): item for number, item in enumerate(values)})
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            inputs.update({f"{name}[{number}]": item for number, item in enumerate(values)})
        else:
            inputs[name] = value
    return inputs


def _value(name: str, parameter: Parameter, node: Node | None) -> Any:
    return parameter.data if node is None else node.read(parameter, name)


def _finish(ctx: Context, node: Node | None, outputs: Any) -> Any:
    """Note what forward returned, and attach the call to the texts in it."""
    if node is None:
        return attach(outputs, None, objects=False)
    several = type(outputs) is tuple
    items = outputs if several else (outputs,)
    names = [f"out[{number}]" if several else "out" for number in range(len(items))]
    node.output_fields = tuple(names)
    kept = {name: item for name, item in zip(names, items, strict=True) if not ctx.is_detached(item)}
    node.tape.detach([item for item in items if ctx.is_detached(item)], None if kept else node)
    node.finish({name: attach(item, node, objects=False) for name, item in kept.items()})
    results = []
    for number, (name, item) in enumerate(zip(names, items, strict=True)):
        if name not in kept:
            results.append(attach(item, None, objects=False))
        elif len(items) > 1:
            results.append(attach(item, Pick(node, number), objects=False))
        else:
            results.append(node.outputs[name])
    return tuple(results) if several else results[0]


class _Backward:
    """The rule of one call of a `Function`: its backward, with the ctx of the call."""

    def __init__(self, cls: type[Function], ctx: Context, names: tuple[str, ...]) -> None:
        self.cls = cls
        self.ctx = ctx
        self.names = names

    def context(self, passing: Passing) -> Context:
        """The ctx of the call for one backward pass, with the inputs of which that pass wants a gradient."""
        wanted = {target.name.removeprefix("input.") for target in passing.targets}
        ctx = copy(self.ctx)
        ctx.needs_input_grad = tuple(name in wanted for name in self.names)
        return ctx

    def grads(self, passing: Passing) -> list[str | None]:
        """The critique of each output."""
        by_output = (passing.feedback,) if passing.by_output is None else passing.by_output
        return [FEEDBACK_SEPARATOR.join(texts) or None for texts in by_output]

    def answer(self, passing: Passing, grads: Sequence[str | None], result: Any) -> Mapping[str, Any]:
        """What backward returned, by input.

        Raises:
            GraphError: It returned another number of gradients than forward has inputs.
        """
        results = result if isinstance(result, tuple) else (result,)
        if result is None:
            results = (None,) * len(self.names)
        if len(results) > len(self.names) and all(extra is None for extra in results[len(self.names) :]):
            results = results[: len(self.names)]
        if len(results) != len(self.names):
            raise GraphError(
                f"{self.cls.__name__}.backward returned {len(results)} gradients, and this forward had "
                f"{len(self.names)} inputs ({', '.join(self.names)}): return one for each, None where there is none"
            )
        given = dict(zip(self.names, results, strict=True))
        by_output = (passing.feedback,) if passing.by_output is None else passing.by_output
        whole = {grad: texts for grad, texts in zip(grads, by_output, strict=True) if grad is not None}
        return {
            target.name: whole.get(value, value) if isinstance(value, str) else value
            for target in passing.targets
            if (value := given.get(target.name.removeprefix("input."))) is not None
        }


def _rule(cls: type[Function], ctx: Context, names: tuple[str, ...]) -> Callable[[Passing], Any]:
    own = _Backward(cls, ctx, names)
    if inspect.iscoroutinefunction(cls.backward):

        async def later(passing: Passing) -> Mapping[str, Any]:
            grads = own.grads(passing)
            return own.answer(passing, grads, await cls.backward(own.context(passing), *grads))

        return later

    def rule(passing: Passing) -> Mapping[str, Any]:
        grads = own.grads(passing)
        return own.answer(passing, grads, cls.backward(own.context(passing), *grads))

    return rule
