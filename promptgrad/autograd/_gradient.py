"""What accumulates in `Parameter.grad`: critiques for texts, scored traces for demos."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from textwrap import shorten
from typing import Any


@dataclass(frozen=True)
class Critique:
    """What one failed example says about one text.

    Attributes:
        example_id: The example that failed.
        path: The module that was blamed.
        index: Which of its calls, in the order of the forward.
        target: What was blamed there: a parameter's or an input's name.
        text: What is wrong, and how to change it.
        evidence: Inputs and outputs of the call, and the feedback that reached it.
        support: How many examples say this.
        verdict: "wrong", or "error" when the call failed.
        lm: The language model that answered the call, if one did; no part of the critique's identity.
    """

    example_id: str
    path: str
    index: int
    target: str
    text: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    support: int = 1
    verdict: str = "wrong"
    lm: Any = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """In JSON types."""
        return {
            "example_id": self.example_id,
            "path": self.path,
            "index": self.index,
            "target": self.target,
            "text": str(self.text),
            "evidence": plain(self.evidence),
            "support": self.support,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Trace:
    """One call with what it was given, what it returned, and how the whole forward scored: a demo, if it is good.

    Attributes:
        example_id: The example that it served.
        path: The module.
        index: Which of its calls, in the order of the forward.
        inputs: What it was given.
        outputs: What it returned.
        score: The metric's score of the forward.
    """

    example_id: str
    path: str
    index: int
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    score: float

    def to_dict(self) -> dict[str, Any]:
        """In JSON types."""
        return {
            "example_id": self.example_id,
            "path": self.path,
            "index": self.index,
            "inputs": plain(self.inputs),
            "outputs": plain(self.outputs),
            "score": self.score,
        }


class Gradient:
    """An ordered, frozen sum of critiques and traces. `+` appends; the same run gives the same order.

    >>> g = Gradient([Critique("e1", "solve", 0, "instruction", "name the unit")])
    >>> g + g
    Gradient(2 critiques: 'name the unit', 'name the unit')
    """

    __slots__ = ("_records",)

    def __init__(self, records: "Iterable[Critique | Trace]" = ()) -> None:
        self._records = tuple(records)

    @property
    def records(self) -> "tuple[Critique | Trace, ...]":
        """All records, in order."""
        return self._records

    @property
    def critiques(self) -> tuple[Critique, ...]:
        """The critiques, in order."""
        return tuple(record for record in self._records if isinstance(record, Critique))

    @property
    def traces(self) -> tuple[Trace, ...]:
        """The traces, in order."""
        return tuple(record for record in self._records if isinstance(record, Trace))

    def to_dict(self) -> dict[str, Any]:
        """In JSON types."""
        return {
            "critiques": [critique.to_dict() for critique in self.critiques],
            "traces": [trace.to_dict() for trace in self.traces],
        }

    def __add__(self, other: "Gradient | None") -> "Gradient":
        if other is None:
            return self
        if not isinstance(other, Gradient):
            return NotImplemented
        return Gradient(self._records + other._records)

    def __radd__(self, other: "Gradient | int | None") -> "Gradient":
        return self if other is None or other == 0 else NotImplemented

    def __iter__(self) -> "Iterator[Critique | Trace]":
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __eq__(self, other: object) -> bool:
        return self._records == other._records if isinstance(other, Gradient) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        parts = []
        for what, records in (("critique", self.critiques), ("trace", self.traces)):
            if records:
                parts.append(f"{len(records)} {what}{'s' if len(records) > 1 else ''}")
        texts = [shorten(str.__str__(critique.text), 60, placeholder="...") for critique in self.critiques[:2]]
        told = ": " + ", ".join(map(repr, texts)) if texts else ""
        return f"Gradient({', '.join(parts)}{told}{', ...' if len(self.critiques) > 2 else ''})"


def plain(value: Any) -> Any:
    """The value in JSON types, as well as it can be said."""
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    for name in ("to_dict", "model_dump"):
        dump = getattr(value, name, None)
        if callable(dump):
            return plain(dump())
    return str(value)
