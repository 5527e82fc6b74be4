"""`functional_call`: a module called with other values for its parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

from promptgrad.data import Example
from promptgrad.nn import Module, Parameter, bind

Params = Mapping[str, Any]
"""Values of parameters by path, as `{"solve.instruction": "Answer in one word."}`."""


def functional_call(
    module: Module, params: Params | Sequence[Params], args: Any = (), kwargs: Mapping[str, Any] | None = None
) -> Any:
    """Call a module as if its parameters had these values. The module does not change.

    The values are laid over the parameters for this call only: calls in other threads and tasks do not see them, so
    any number of candidates can be tried at once. Parameters without a value in `params` keep their own.

    Cost: that of calling the module.

    Args:
        module: The program.
        params: Values by path, or several such mappings without a common path.
        args: The positional arguments: a tuple, or the only one; an `Example` stands for its inputs.
        kwargs: The arguments by name.

    Raises:
        StateDictError: A path is not a parameter of the module; the message names the nearest.
        ConstraintError: A value does not fit its parameter.
        ValueError: Two mappings have a path in common.
        AsyncUsageError: Called inside a coroutine that promptgrad runs: `await afunctional_call(...)` there.
    """
    values = merged(params)
    given, named = arguments(module, args, kwargs)
    with module.candidate(values):
        return module(*given, **named)


async def afunctional_call(
    module: Module, params: Params | Sequence[Params], args: Any = (), kwargs: Mapping[str, Any] | None = None
) -> Any:
    """The coroutine twin of `functional_call`."""
    values = merged(params)
    given, named = arguments(module, args, kwargs)
    with module.candidate(values):
        return await module.acall(*given, **named)


def merged(params: Params | Sequence[Params]) -> dict[str, Any]:
    """Merge the mappings into one."""
    if isinstance(params, Mapping):  # `dict(model.named_parameters())` and `model.state_dict()` also work
        return {
            path: value.data if isinstance(value, Parameter) else value
            for path, value in params.items()
            if path != "_meta"
        }
    if not all(isinstance(part, Mapping) for part in params):
        raise TypeError(f"params is a mapping from path to value, not {params!r}")
    values: dict[str, Any] = {}
    for part in params:
        twice = [path for path in part if path in values]
        if twice:
            raise ValueError(f"{', '.join(twice)} has a value in two of the mappings: leave it out of one")
        values.update(part)
    return values


def arguments(module: Module, args: Any, kwargs: Mapping[str, Any] | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional arguments and those by name."""
    given = args if isinstance(args, tuple) else (args,)
    named = dict(kwargs or {})
    if len(given) == 1 and isinstance(given[0], Example) and not named:
        return bind(module, given[0])
    return given, named
