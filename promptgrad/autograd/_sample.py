"""`Sample`: what a backward pass needs from an example."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from promptgrad.autograd._fits import fits


@runtime_checkable
class Sample(Protocol):
    """An example: fields by name, some of which may be marked as inputs, the others being labels.

    `promptgrad.data.Example` is one. A mapping counts as one without marks, any other value as its only input.
    """

    @property
    def id(self) -> str:
        """Identifies the example in gradients and reports; empty if nothing does."""
        ...

    @property
    def input_keys(self) -> tuple[str, ...] | None:
        """Names of the inputs; None where they are not marked."""
        ...

    def inputs(self) -> Mapping[str, Any]:
        """The inputs, where they are marked."""
        ...

    def labels(self) -> Mapping[str, Any]:
        """All other fields, where inputs are marked."""
        ...

    def to_dict(self) -> Mapping[str, Any]:
        """All fields."""
        ...


class _Plain:
    """A mapping or another value as a sample without an id."""

    id = ""

    def __init__(self, fields: Mapping[str, Any], input_keys: tuple[str, ...] | None) -> None:
        self._fields = fields
        self.input_keys = input_keys

    def inputs(self) -> Mapping[str, Any]:
        return self._fields

    def labels(self) -> Mapping[str, Any]:
        return {}

    def to_dict(self) -> Mapping[str, Any]:
        return self._fields


def sample_of(example: Any) -> Sample:
    """Any example as a `Sample`."""
    if fits(example, Sample):
        sample: Sample = example
        return sample
    if isinstance(example, Mapping):
        return _Plain(example, None)
    fields = {} if example is None else {"input": example}
    return _Plain(fields, tuple(fields))
