"""`FitsSignature`: the constraint on the demos of a `Predict`."""

from collections.abc import Iterable, Sequence
from typing import Any

from promptgrad.autograd import Selector, demos_in
from promptgrad.signature import Signature


class FitsSignature:
    """The constraint on demos: each has at least one input and one output of the signature."""

    def __init__(self, signature: Signature, more: Iterable[str] = ()) -> None:
        self.inputs = tuple(signature.inputs)
        self.outputs = (*signature.outputs, *more)

    def __call__(self, demos: Sequence[Any] | Selector) -> str | None:
        for number, demo in enumerate(demos_in(demos)):
            names = list(demo.keys())
            for role, wanted in (("input", self.inputs), ("output", self.outputs)):
                if wanted and not any(name in names for name in wanted):
                    return (
                        f"demo {number} has no {role} field of the signature ({', '.join(wanted)}): "
                        f"its fields are {', '.join(names) or 'none'}"
                    )
        return None
