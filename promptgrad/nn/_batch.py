"""`Batch`, what `Module.map` returns: outputs in order, failures kept as rows of their own."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn, SupportsIndex, overload

from promptgrad.autograd import Tape
from promptgrad.lm import Usage


@dataclass(slots=True, eq=False)
class BatchRow:
    """One call of a batch, finished or failed.

    Attributes:
        example: The item of the batch.
        output: What `forward` returned; None where it failed.
        error: Why it failed, or None.
        tape: The recorded graph, or None where nothing was recorded.
        replicate: Number of the rollout.
        usage: What the call cost.
        seconds: How long it took.
    """

    example: Any
    output: Any = None
    error: BaseException | None = None
    tape: Tape | None = field(default=None, repr=False)
    replicate: int = 0
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0


class ErrorRow:
    """Takes the place of a failed output in a batch. It is false, so `[y for y in batch if y]` leaves it out.

    Attributes:
        error: The exception.
        example: The item that failed.
        replicate: Number of the rollout.
    """

    def __init__(self, error: BaseException, example: Any = None, replicate: int = 0) -> None:
        self.error = error
        self.example = example
        self.replicate = replicate

    @cached_property
    def traceback(self) -> str:
        """The traceback as Python prints it."""
        import traceback

        return "".join(traceback.format_exception(self.error))

    def __bool__(self) -> bool:
        return False

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_") or "error" not in self.__dict__:
            raise AttributeError(name)
        raise AttributeError(
            f"this example failed and has no {name!r}: {_line(self.error)} "
            "(a failed row is false: test `if row`, or read batch.errors)"
        )

    def __repr__(self) -> str:
        return f"<ErrorRow {_line(self.error)}>"


class Batch(list[Any]):
    """Outputs of a batch in input order; with `n` rollouts, those of one item are adjacent.

    It is a list: an output that failed is an `ErrorRow` in its place.

    Attributes:
        rows: The record of each call, in the same order.
    """

    def __init__(self, rows: Iterable[BatchRow] = ()) -> None:
        self.rows = list(rows)
        super().__init__(
            row.output if row.error is None else ErrorRow(row.error, row.example, row.replicate) for row in self.rows
        )

    @property
    def errors(self) -> list[ErrorRow]:
        """The rows that failed."""
        return [item for item in self if isinstance(item, ErrorRow)]

    @property
    def usage(self) -> Usage:
        """What the batch cost."""
        return sum((row.usage for row in self.rows), Usage())

    @overload
    def __getitem__(self, index: SupportsIndex) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> "Batch": ...
    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        return Batch(self.rows[index]) if isinstance(index, slice) else super().__getitem__(index)

    def __reduce__(self) -> tuple[type["Batch"], tuple[list[BatchRow]]]:
        return (Batch, (self.rows,))


def _line(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
