"""`Parallel`: several modules side by side."""

from collections.abc import Iterable, Mapping
from functools import partial
from time import perf_counter
from typing import Any

from promptgrad import aio
from promptgrad._habits import refuses
from promptgrad._numbers import optional_count
from promptgrad.errors import InputError, NoLMError
from promptgrad.lm import track_usage
from promptgrad.nn._batch import Batch, BatchRow
from promptgrad.nn._calling import MAP_HABITS
from promptgrad.nn._map import bind, in_flight
from promptgrad.nn._module import Module

_HABITS = {name: how for name, how in MAP_HABITS.items() if how.startswith(("concurrency", "nothing"))}


class Parallel(Module, in_place=True):
    """Call modules side by side.

    With the same inputs: `nn.Parallel(nn.Predict("text -> topic"), nn.Predict("text -> mood"))(text=...)` gives the
    list of their outputs. Modules by name give a dict: `nn.Parallel({"topic": ..., "mood": ...})`.

    On a list, as DSPy's: without modules of its own, it is called with pairs of a module and an item,
    `nn.Parallel()([(module, example), ...])`, and gives a `Batch`: the outputs in order, a pair that fails as an
    `ErrorRow`. An item is what `module.map` takes. Modules of pairs are not part of the program: their calls are
    recorded, and their parameters get gradients, only if they have a place in the program around it.

    Shape: a list in the order of the modules, a dict in the order of the names, or a `Batch` in the order of the pairs.
    Cost: the sum of what the modules cost; in time, what the slowest takes.

    Args:
        *modules: The modules, or a mapping of them by name.
        concurrency: Modules in flight; by default all, and of pairs as many as `map` has.

    Raises:
        TypeError: An argument is not a module.
        InputError: When called: there are no modules, and the input is not a list of pairs.
        Exception: When called on the same inputs: the first error that a module raises; the others are cancelled.
    """

    @refuses(_HABITS)
    def __init__(self, *modules: Module | Mapping[str, Module], concurrency: int | None = None) -> None:
        super().__init__()
        named = modules[0] if len(modules) == 1 and isinstance(modules[0], Mapping) else None
        self._by_name = named is not None
        chosen = dict(enumerate(modules)) if named is None else named
        for name, module in chosen.items():
            if not isinstance(module, Module):
                raise TypeError(f"Parallel takes modules, or one mapping of modules by name, not {module!r}")
            self.add_module(str(name), module)
        optional_count("concurrency", concurrency, what="a number of modules in flight")
        self.concurrency = concurrency

    async def forward(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the modules with the same inputs; without modules, each module of the pairs with its item."""
        modules = {name: module for name, module in self._modules.items() if module is not None}
        if not modules and not self._by_name:
            return await self._pairs(*args, **kwargs)
        outputs = await aio.gather(
            [partial(module.acall, *args, **kwargs) for module in modules.values()], limit=self.concurrency
        )
        return dict(zip(modules, outputs, strict=True)) if self._by_name else list(outputs)

    async def _pairs(self, *args: Any, **kwargs: Any) -> Batch:
        pairs = _checked(*args, **kwargs)

        async def one(module: Module, item: Any) -> BatchRow:
            row = BatchRow(item)
            start = perf_counter()
            with track_usage() as usage:
                try:
                    given, named = bind(module, item)
                    row.output = await module.acall(*given, **named)
                except (NoLMError, ImportError):
                    raise  # it would be the same for every pair
                except BaseException as error:  # it is the row's result
                    if not aio.is_failure(error):
                        raise
                    row.error = error
            row.usage, row.seconds = usage.total, perf_counter() - start
            return row

        return Batch(await aio.gather([partial(one, *pair) for pair in pairs], limit=in_flight(self.concurrency)))

    def input_names(self) -> tuple[str, ...] | None:
        """Names of the inputs of the first module that tells them."""
        for module in self._modules.values():
            if module is not None and (names := module.input_names()) is not None:
                return names
        return None


def _checked(*args: Any, **kwargs: Any) -> list[tuple[Module, Any]]:
    if len(args) == 1 and not kwargs and isinstance(args[0], Iterable) and not isinstance(args[0], (str, Mapping)):
        pairs = list(args[0])
        if all(isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], Module) for pair in pairs):
            return pairs
    raise InputError(
        "a Parallel without modules of its own takes one list of pairs, [(module, example), ...]; to call several "
        "modules with the same inputs, write nn.Parallel(first, second)(...)"
    )
