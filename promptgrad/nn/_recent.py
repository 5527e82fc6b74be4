"""From an output back to the tape that it was recorded on, for outputs that did not come from `Module.map`."""

from collections import deque
from collections.abc import Sequence
from typing import Any

from promptgrad.autograd import GradFn, Join, Node, Tape, Text
from promptgrad.nn._prediction import Prediction

KEPT = 256
"""How many outputs without a producer of their own are remembered."""

_recent: deque[tuple[Any, Tape]] = deque(maxlen=KEPT)


def remember_output(output: Any, tape: Tape) -> None:
    """Remember the tape of an output that holds no text from it, such as a number."""
    kind = type(output)
    if kind is not Text and kind is not Prediction and tape_inside(output) is None:
        _recent.append((output, tape))


def tapes_of(outputs: Sequence[Any]) -> list[Tape | None]:
    """The tape of each output, or None where it is not known.

    An output that holds text leads to its tape. Others are found among the latest calls: as the same objects in the
    same order, which is right for small numbers and None as well, else as the only object of its identity.
    """
    tapes = [tape_inside(output) for output in outputs]
    unknown = [place for place, tape in enumerate(tapes) if tape is None]
    if not unknown or not _recent:
        return tapes
    calls = list(_recent)
    latest = calls[-len(unknown) :]
    if len(latest) == len(unknown) and all(
        output is outputs[place] for place, (output, _) in zip(unknown, latest, strict=True)
    ):
        for place, (_, tape) in zip(unknown, latest, strict=True):
            tapes[place] = tape
        return tapes
    for place in unknown:
        found = [tape for output, tape in calls if output is outputs[place]]
        if len(found) == 1:
            tapes[place] = found[0]
    return tapes


def tape_inside(output: Any) -> Tape | None:
    """The tape that text inside a value came from; None where it holds no such text."""
    stack = [output]
    while stack:
        value = stack.pop()
        fn: GradFn | None = None
        if isinstance(value, Text):
            fn = value.grad_fn
        elif isinstance(value, Prediction):
            fn = value._node
        elif isinstance(value, dict):
            stack.extend(reversed(value.values()))
        elif isinstance(value, (list, tuple)):
            stack.extend(reversed(value))
        elif hasattr(type(value), "model_fields") or hasattr(type(value), "__dataclass_fields__"):
            stack.extend(reversed(getattr(value, "__dict__", {}).values()))
        sources = [fn]
        while sources:
            fn = sources.pop()
            if isinstance(fn, Node):
                return fn.tape
            if isinstance(fn, Join):
                sources.extend(reversed(fn.sources))
    return None
