"""`vmap`: a function of one example, or of one set of parameters, becomes a function of many."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

from promptgrad import aio
from promptgrad.data import Example
from promptgrad.func._functional_call import arguments
from promptgrad.nn import Module, Prediction, in_flight

InDims = int | None | tuple[int | None, ...]


class Vmap:
    """A function that is called once for each item of its arguments. See `vmap`.

    Raises:
        TypeError: What is given is no function.
        ValueError: `in_dims` holds something else than 0 and None, or `concurrency` is below 1.
    """

    def __init__(self, fn: Callable[..., Any], in_dims: InDims, concurrency: int | None) -> None:
        if not callable(fn):
            raise TypeError(f"vmap takes a function or a module, not {type(fn).__name__}")
        for dim in in_dims if isinstance(in_dims, tuple) else (in_dims,):
            if dim is not None and (isinstance(dim, bool) or dim != 0):
                raise ValueError(f"in_dims is 0 (one item a call) or None (the same) for each argument, not {dim!r}")
        if concurrency is not None and concurrency < 1:
            raise ValueError(f"concurrency is a number of calls in flight and at least 1, not {concurrency}")
        self.fn = fn
        self.in_dims = in_dims
        self.concurrency = concurrency

    def __call__(self, /, *args: Any, **kwargs: Any) -> list[Any]:
        """Call the function for all items, and wait."""
        return aio.run(self.acall(*args, **kwargs))

    async def acall(self, /, *args: Any, **kwargs: Any) -> list[Any]:
        """Call the function for all items, from a coroutine."""
        calls = self._calls(args, kwargs)
        return await aio.gather([partial(_call, self.fn, *call) for call in calls], limit=in_flight(self.concurrency))

    def _calls(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """The arguments of each call."""
        dims = self.in_dims if isinstance(self.in_dims, tuple) else (self.in_dims,) * len(args)
        if len(dims) != len(args):
            raise ValueError(f"in_dims has {len(dims)} entries, and there are {len(args)} positional arguments")
        columns = [
            _column(value, f"argument {number}") if dim == 0 else None
            for number, (value, dim) in enumerate(zip(args, dims, strict=True))
        ]
        named = {name: _column(value, name) for name, value in kwargs.items()}
        mapped = [column for column in (*columns, *named.values()) if column is not None]
        if not mapped:
            raise ValueError("nothing to map over: at least one argument needs in_dims 0")
        sizes = list(dict.fromkeys(map(len, mapped)))
        if len(sizes) > 1:
            raise ValueError(f"the arguments to map over differ in length: {', '.join(map(str, sizes))}")
        return [
            (
                tuple(args[i] if column is None else column[number] for i, column in enumerate(columns)),
                {name: column[number] for name, column in named.items()},
            )
            for number in range(sizes[0])
        ]

    def __repr__(self) -> str:
        name = getattr(self.fn, "__name__", None) or repr(self.fn)
        return f"vmap({name}, in_dims={self.in_dims!r})"


def vmap(fn: Callable[..., Any], in_dims: InDims = 0, *, concurrency: int | None = None) -> Vmap:
    """Make of a function of single values one of lists of them, whose calls run concurrently.

    Over examples: `vmap(model)(questions)`. Over candidate parameter sets:

    ```
    def ask(params, question):
        return func.functional_call(model, params, question)

    func.vmap(ask, in_dims=(0, None))(candidates, question)
    func.vmap(func.vmap(ask, in_dims=(None, 0)), in_dims=(0, None))(candidates, questions)    # the table of both
    ```

    The result is the list of what the calls returned, in the order of the items, whatever the order in which they
    ended. The first call that fails cancels the others and raises; `module.map(batch)` keeps failures as rows.
    A module and an `async` function take one task for each call in flight, a plain function one thread. The result
    can be called, and awaited as `.acall(...)`.

    Cost: what the calls cost.

    Args:
        fn: A function, plain or `async`, or a module. Called with an `Example` only, a module gets its inputs.
        in_dims: For each positional argument 0, if each call gets one item of it, or None, if all get it as it is; a
            value that is not a tuple holds for all of them. Arguments by name always give one item a call. An argument
            to map over is a list of items, or a mapping of such lists, as `{"solve.instruction": ["...", "..."]}`.
        concurrency: Calls in flight; else that of the context or of `configure`, else 32.

    Raises:
        TypeError: When called: an argument to map over is not a list.
        ValueError: `in_dims` is not made of 0 and None or, when called, does not fit; or lengths differ.
    """
    return Vmap(fn, in_dims, concurrency)


def _column(value: Any, name: str) -> list[Any]:
    """The items of an argument."""
    if isinstance(value, Mapping) and not isinstance(value, Prediction):
        columns = {key: _column(items, f"{name}[{key!r}]") for key, items in value.items()}
        sizes = {len(items) for items in columns.values()}
        if len(sizes) != 1:
            raise ValueError(f"the lists in {name} differ in length, or there is none: {sorted(sizes)}")
        return [{key: items[number] for key, items in columns.items()} for number in range(sizes.pop())]
    if isinstance(value, (str, bytes, Example, Prediction)) or not isinstance(value, Iterable):
        raise TypeError(
            f"{name} is to be mapped over and is not a list, but a single {type(value).__name__}: "
            "write in_dims=None for an argument that is the same in every call"
        )
    return list(value)


async def _call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if isinstance(fn, Module):
        args, kwargs = arguments(fn, args, kwargs)
    acall: Callable[..., Awaitable[Any]] | None = getattr(fn, "acall", None)
    if acall is not None:
        return await acall(*args, **kwargs)
    if aio.is_coroutine_function(fn):
        return await aio.awaited(fn(*args, **kwargs))
    return await aio.in_thread(fn, *args, **kwargs)
