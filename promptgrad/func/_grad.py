"""`grad`: gradients as data."""

from collections.abc import Callable, Iterable, Mapping
from inspect import isawaitable
from typing import Any

from promptgrad import aio
from promptgrad.autograd import CriticLike, Gradient, Gradients, Loss, Parameter, enable_grad
from promptgrad.errors import GraphError
from promptgrad.nn import as_critic


class Grad:
    """A function that returns gradients. See `grad`.

    Raises:
        TypeError: What is given is no function.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        critic: Any,
        inputs: Iterable[Parameter] | None,
        *,
        retain_graph: bool,
        value: bool,
    ) -> None:
        if not callable(fn):
            raise TypeError(f"grad takes a function that returns a Loss, such as a criterion, not {type(fn).__name__}")
        self.fn = fn
        self.critic: CriticLike | None = None if critic is None else as_critic(critic)
        self.inputs = None if inputs is None else tuple(inputs)
        self.retain_graph = retain_graph
        self.value = value

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function, go back from its loss, and return the gradients."""
        with enable_grad():
            loss = self.fn(*args, **kwargs)
            if isawaitable(loss):
                loss = aio.run(aio.awaited(loss))
        inputs, paths = self._wanted(loss, args)
        found = loss.gradients(inputs, self.critic, retain_graph=self.retain_graph)
        return self._result(found, paths, loss)

    async def acall(self, /, *args: Any, **kwargs: Any) -> Any:
        """The coroutine twin of calling it."""
        acall = getattr(self.fn, "acall", None)
        with enable_grad():
            if acall is not None:
                loss = await acall(*args, **kwargs)
            elif aio.is_coroutine_function(self.fn):
                loss = await aio.awaited(self.fn(*args, **kwargs))
            else:
                loss = await aio.in_thread(self.fn, *args, **kwargs)
        inputs, paths = self._wanted(loss, args)
        found = await loss.agradients(inputs, self.critic, retain_graph=self.retain_graph)
        return self._result(found, paths, loss)

    def _wanted(
        self, loss: Any, args: tuple[Any, ...]
    ) -> tuple[tuple[Parameter, ...] | None, dict[str, Parameter] | None]:
        """The parameters that get a gradient, and their paths if the function was called with a parameter set."""
        if not isinstance(loss, Loss):
            raise TypeError(
                f"the function returned {type(loss).__name__}, not a Loss: end it with criterion(outputs, examples)"
            )
        paths: dict[str, Parameter] | None = None
        inputs = self.inputs
        if args and isinstance(args[0], Mapping) and args[0]:
            known = _paths(loss)
            if all(path in known for path in args[0]):
                paths = {path: known[path] for path in args[0]}
                inputs = tuple(paths.values()) if inputs is None else inputs
        return inputs, paths

    def _result(self, found: Gradients, paths: dict[str, Parameter] | None, loss: Loss) -> Any:
        if paths is None:
            gradients: dict[str, Gradient] = {}
            for parameter, gradient in found.items():
                name = found.names[parameter]
                if name in gradients:
                    raise GraphError(f"two parameters of the loss are called {name!r}: choose one with inputs=[...]")
                gradients[name] = gradient
        else:
            gradients = {path: found.get(parameter, Gradient()) for path, parameter in paths.items()}
        return (gradients, loss) if self.value else gradients

    def __repr__(self) -> str:
        name = getattr(self.fn, "__name__", None) or repr(self.fn)
        return f"grad({name})"


def grad(
    fn: Callable[..., Any],
    *,
    critic: Any = None,
    inputs: Iterable[Parameter] | None = None,
    retain_graph: bool = False,
) -> Grad:
    """Make of a function that returns a loss one that returns gradients, as `{path: Gradient}`.

    No `.grad` changes, neither of parameters nor of local weights. A criterion is such a function:
    `func.grad(criterion)(model.map(batch), batch)`. So is one of a parameter set, whose gradient then has its paths:

    ```
    def loss(params, batch):
        return criterion([func.functional_call(model, params, example) for example in batch], batch)

    func.grad(loss)({"solve.instruction": "Answer in one word."}, batch)
    func.vmap(func.grad(loss), in_dims=(0, None))(candidates, batch)
    ```

    The first argument counts as a parameter set if it is a mapping from paths of the programs in the loss. Only
    parameters that require a gradient get one; it is empty for a parameter that is not blamed. The result can be
    called, and awaited as `.acall(...)`.

    Cost: what `fn` costs, and one critic call for each call of a failed sample that is to blame in part.

    Args:
        fn: Returns a `Loss`; plain or `async`, or a criterion.
        critic: The critic that divides the blame: an LM or its name, or a `Critic`; by default the criterion's.
        inputs: Only these parameters get a gradient.
        retain_graph: Keep what was recorded, for another backward over the same outputs.

    Raises:
        TypeError: When called: the function returned no `Loss`.
        GraphError: When called: nothing was recorded, or there is no critic, as in `Loss.backward`.
    """
    return Grad(fn, critic, inputs, retain_graph=retain_graph, value=False)


def grad_and_value(
    fn: Callable[..., Any],
    *,
    critic: Any = None,
    inputs: Iterable[Parameter] | None = None,
    retain_graph: bool = False,
) -> Grad:
    """Like `grad`, for a function that returns the pair of the gradients and the loss."""
    return Grad(fn, critic, inputs, retain_graph=retain_graph, value=True)


def _paths(loss: Loss) -> dict[str, Parameter]:
    """The parameters of all programs in a loss, by path; of the first one where two share a path."""
    known: dict[str, Parameter] = {}
    for program in dict.fromkeys(tape.program for tape in loss.tapes if tape.program is not None):
        for path, parameter in program.named_parameters(remove_duplicate=False):
            known.setdefault(path, parameter)
    return known
