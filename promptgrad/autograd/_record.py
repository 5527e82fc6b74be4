"""`Record`: what the graph asks of a value with named fields."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, runtime_checkable

if TYPE_CHECKING:
    from promptgrad.autograd._node import GradFn


@runtime_checkable
class Record(Protocol):
    """A value with named fields that the graph can look into: `nn.Prediction` and `data.Example` are such.

    A program that reads a field of a prediction is noted, since it may be a router. What looks at a value without being
    the program (edges, drawings, reports) reads it through `__record__`, and so changes nothing.
    """

    def __record__(self) -> "tuple[GradFn | None, Mapping[str, Any]]":
        """What produced the value, if that is known, and its fields by name; nothing notes that they are read."""
        ...


def is_record(value: Any) -> TypeGuard[Record]:
    """Whether a value is a record; a class of records is none."""
    return issubclass(type(value), Record)


def fields_of(value: Any) -> Mapping[str, Any] | None:
    """The fields of a record or mapping, read without a trace; None for any other value."""
    if is_record(value):
        return value.__record__()[1]
    return value if isinstance(value, Mapping) else None
