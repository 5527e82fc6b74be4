"""`grad`: gradients as data."""

from collections.abc import Callable, Iterable, Mapping
from inspect import isawaitable
from typing import Any

from promptgrad import aio
from promptgrad.autograd import Critic, Gradient, Loss, Parameter, enable_grad
from promptgrad.autograd._engine import Backward, _with_tape
from promptgrad.errors import GraphError
from promptgrad.nn._metric_loss import as_critic
from promptgrad.nn._module import is_coroutine_function


class _Collect(Backward):
    """A backward pass whose result is returned rather than put into the parameters."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.found: dict[Parameter, Gradient] = {}

    def deliver(self, parameter: Parameter, gradient: Gradient) -> None:
        self.found[parameter] = gradient


class Grad:
    """A function that returns gradients. See `grad`."""

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
        self.critic: Critic | None = None if critic is None else as_critic(critic)
        self.inputs = None if inputs is None else tuple(inputs)
        self.retain_graph = retain_graph
        self.value = value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, go back from its loss, and return the gradients."""
        with enable_grad():
            loss = self.fn(*args, **kwargs)
            if isawaitable(loss):
                loss = aio.run(aio.awaited(loss))
        work, paths = self._work(loss, args)
        if work.suspends:
            aio.run(work.run())
        else:
            aio.drive(work.run())
        return self._result(work, paths, loss)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """The same, from a coroutine."""
        acall = getattr(self.fn, "acall", None)
        with enable_grad():
            if acall is not None:
                loss = await acall(*args, **kwargs)
            elif is_coroutine_function(self.fn):
                loss = await aio.awaited(self.fn(*args, **kwargs))
            else:
                loss = await aio.in_thread(self.fn, *args, **kwargs)
        work, paths = self._work(loss, args)
        await work.run()
        return self._result(work, paths, loss)

    def _work(self, loss: Any, args: tuple[Any, ...]) -> tuple[_Collect, dict[str, Parameter] | None]:
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
        work = _Collect(loss._terms, self.critic, inputs, retain_graph=self.retain_graph, weights=False)
        return work, paths

    def _result(self, work: _Collect, paths: dict[str, Parameter] | None, loss: Loss) -> Any:
        if paths is None:
            gradients: dict[str, Gradient] = {}
            for parameter, gradient in work.found.items():
                name = parameter.name or parameter.kind
                if name in gradients:
                    raise GraphError(
                        f"two parameters of the loss are called {name!r}: say which one is wanted with inputs=[...]"
                    )
                gradients[name] = gradient
        else:
            gradients = {path: work.found.get(parameter, Gradient()) for path, parameter in paths.items()}
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

    The first argument counts as a parameter set if it is a mapping from paths of the programs in the loss; only those
    that require a gradient get one, and one that nobody blames gets an empty one. The result can be called, and
    awaited as `.acall(...)`.

    Cost: what `fn` costs, and one critic call for each call of a failed sample that is to blame in part.

    Args:
        fn: Returns a `Loss`; plain or `async`, or a criterion.
        critic: Who divides the blame: an LM or its name, or a `Critic`; by default the criterion's.
        inputs: Only these parameters get a gradient.
        retain_graph: Keep what was recorded, for another backward over the same outputs.

    Raises:
        TypeError: When called: the function returned no `Loss`.
        GraphError: When called: nothing was recorded, or there is no critic; as `Loss.backward`.
    """
    return Grad(fn, critic, inputs, retain_graph=retain_graph, value=False)


def grad_and_value(
    fn: Callable[..., Any],
    *,
    critic: Any = None,
    inputs: Iterable[Parameter] | None = None,
    retain_graph: bool = False,
) -> Grad:
    """As `grad`, but the function returns the pair of the gradients and the loss."""
    return Grad(fn, critic, inputs, retain_graph=retain_graph, value=True)


def _paths(loss: Loss) -> dict[str, Parameter]:
    """The parameters of all programs in a loss, by path; of the first one where two share a path."""
    known: dict[str, Parameter] = {}
    programs: dict[int, None] = {}
    for row in loss.rows:
        tape = _with_tape(row).tape
        program = None if tape is None else tape.program
        if program is not None and id(program) not in programs:
            programs[id(program)] = None
            for path, parameter in program.named_parameters(remove_duplicate=False):
                known.setdefault(path, parameter)
    return known
