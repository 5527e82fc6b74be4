"""`Record`: what the graph needs from a value with named fields."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, runtime_checkable

if TYPE_CHECKING:
    from promptgrad.autograd._node import GradFn


@runtime_checkable
class Record(Protocol):
    """A value with named fields that the graph can look into, such as `nn.Prediction` and `data.Example`.

    When a program reads a field of a prediction, this is noted, since the program may be a router. Code that only looks
    at a value (edges, drawings, reports) reads it through `__record__`, and so changes nothing.
    """

    def __record__(self) -> "tuple[GradFn | None, Mapping[str, Any]]":
        """The producer of the value, if it is known, and its fields by name; this read is not noted."""
        ...


def is_record(value: Any) -> TypeGuard[Record]:
    """Whether a value is a record; a class of records is not."""
    return issubclass(type(value), Record)


def fields_of(value: Any) -> Mapping[str, Any] | None:
    """The fields of a record or mapping, read without a trace; None for any other value."""
    if is_record(value):
        return value.__record__()[1]
    return value if isinstance(value, Mapping) else None
