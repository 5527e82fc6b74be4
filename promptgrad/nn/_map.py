"""Running a program on many items at once."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack, nullcontext
from time import perf_counter
from typing import Any, Protocol

from promptgrad import aio
from promptgrad._numbers import check_count, optional_count
from promptgrad.autograd import Tape, current_tape
from promptgrad.data import Example, not_a_table
from promptgrad.errors import InputError, NoLMError
from promptgrad.lm import Replicated, SampleGroup, current, sampled, track_usage
from promptgrad.nn._batch import Batch, BatchRow
from promptgrad.nn._prediction import Prediction

CONCURRENCY = 32
"""Items in flight by default."""


_NOTHING = nullcontext()

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Mappable(Protocol):
    """Something that can be mapped over a batch: a `Module`."""

    def _asks_once(self) -> bool: ...

    def input_names(self) -> tuple[str, ...] | None: ...

    def _open_tape(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tape | None: ...

    async def _arun_on(self, tape: Tape | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...


def in_flight(asked: int | None = None) -> int:
    """How many items run side by side: the argument, else that of the context or of `configure`, else `CONCURRENCY`."""
    return asked or current().concurrency or CONCURRENCY


def bind(program: Mappable, item: Any) -> Arguments:
    """The arguments with which a program is called for one item of a batch.

    Raises:
        InputError: The inputs of an example cannot be told from its labels, or do not fit the program.
    """
    if isinstance(item, Example):
        return (), _example_inputs(program, item)
    if isinstance(item, (Mapping, Prediction)):
        return (), dict(item)
    return (item,), {}


def _example_inputs(program: Mappable, example: Example) -> dict[str, Any]:
    names = program.input_names()
    keys = example.input_keys
    who = type(program).__name__
    if keys is None:
        if names is None:
            raise InputError(
                f"{who}.forward takes any keyword, so the inputs of the example cannot be told from its labels "
                f"({', '.join(example.keys())}): name them with example.with_inputs(...)"
            )
        keys = tuple(name for name in names if name in example)
        if not keys and names:
            raise InputError(
                f"{who} takes {', '.join(names)}, and the example has none of them, only {', '.join(example.keys())}"
            )
    elif names is not None and (unknown := [key for key in keys if key not in names]):
        raise InputError(
            f"{who} takes {', '.join(names) or 'no inputs'}, and the inputs of the example are {', '.join(keys)}: "
            f"{', '.join(map(repr, unknown))} cannot be passed"
        )
    return {key: example[key] for key in keys}


def check_items(batch: object) -> list[Any]:
    """The items of a batch as a list.

    Raises:
        InputError: The batch is one item, or a mapping of columns, or a table, rather than a sequence of items.
    """
    if isinstance(batch, Mapping):
        raise InputError(
            "map takes a list of items, not a mapping of columns: write [dict(zip(columns, row)) for row in "
            "zip(*columns.values())], or give promptgrad.data.collate to your DataLoader as collate_fn"
        )
    if table := not_a_table("map takes", batch):
        raise InputError(table)
    if isinstance(batch, (str, bytes, bytearray, Example, Prediction)) or not isinstance(batch, Iterable):
        raise InputError(f"map takes a list of items, not one {type(batch).__name__}: write model.map([item])")
    return list(batch)


def map_rows(program: Mappable, batch: object, n: int, *, concurrency: int | None, progress: bool) -> Batch:
    """Run a program on a batch and wait. See `Module.map`."""
    finished: dict[int, BatchRow] = {}
    try:
        return aio.run(amap_rows(program, batch, n, concurrency=concurrency, progress=progress, finished=finished))
    except KeyboardInterrupt as stop:
        stop.batch = Batch(finished[index] for index in sorted(finished))  # type: ignore[attr-defined]
        raise


async def amap_rows(
    program: Mappable,
    batch: object,
    n: int,
    *,
    concurrency: int | None,
    progress: bool,
    finished: dict[int, BatchRow] | None = None,
) -> Batch:
    """Run a program on a batch. See `Module.map`; each row is added to `finished` when it ends."""
    items = check_items(batch)
    check_count("n", n, what="a number of rollouts")
    optional_count("concurrency", concurrency, what="a number of items in flight")
    rows: dict[int, BatchRow] = {} if finished is None else finished
    settings = current()
    limit = in_flight(concurrency)
    calls: list[Arguments | InputError] = []
    for item in items:
        try:
            calls.append(bind(program, item))
        except InputError as error:
            calls.append(error)
    if calls and all(isinstance(call, InputError) for call in calls):
        raise next(call for call in calls if isinstance(call, InputError))
    inside = current_tape() is not None
    groups = [SampleGroup(0, n) for _ in items] if n > 1 and program._asks_once() else None

    async def one(index: int) -> None:
        item, call = items[index // n], calls[index // n]
        replicate = index % n if n > 1 else settings.replicate or 0
        row = BatchRow(item, replicate=replicate)
        if isinstance(call, InputError):
            row.error = call
            rows[index] = row
            return
        start = perf_counter()
        group = None if groups is None else groups[index // n]
        with (
            track_usage() as usage,
            Replicated(replicate) if n > 1 else _NOTHING,
            _NOTHING if group is None else sampled(group, replicate),
        ):
            if not inside:
                row.tape = program._open_tape(*call)
            try:
                row.output = await program._arun_on(row.tape, *call)
            except (NoLMError, ImportError):
                raise  # it would be the same for every row
            except BaseException as error:  # it is the row's result
                if not aio.is_failure(error):
                    raise
                row.error = error
        row.usage = usage.total
        row.seconds = perf_counter() - start
        rows[index] = row

    total = len(items) * n
    with ExitStack() as stack:
        advance = None
        if progress:
            from promptgrad.run import progress as progress_bar

            bar = stack.enter_context(progress_bar(total, type(program).__name__))
            advance = lambda *_: bar.advance()  # noqa: E731
        await aio.each(one, range(total), limit=limit, on_done=advance)
    return Batch(rows[index] for index in range(total))
