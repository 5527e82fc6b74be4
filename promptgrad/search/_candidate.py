"""A candidate: values to lay over a program's parameters, and what was measured of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from promptgrad.autograd._gradient import plain
from promptgrad.autograd._tokens import tokens
from promptgrad.data import Example
from promptgrad.nn import Module
from promptgrad.run import value_digest


@dataclass(frozen=True, eq=False)
class Candidate:
    """Values by parameter path, laid over a program while it is tried; the program itself is not changed.

    Attributes:
        values: The values that differ from the start; none for the start itself.
        origin: Where it came from, in words.
        program: The program to try instead of the session's, where something else than parameters changed (the
            weights of a local model). It has the same parameters.
        label: Tells such programs apart in the journal: equal for equal weights.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    origin: str = "start"
    program: Module | None = None
    label: str = ""

    @property
    def key(self) -> str:
        """Digest of the content, equal in every process."""
        return value_digest([dict(self.values), self.label])

    def with_values(self, values: Mapping[str, Any], origin: str) -> "Candidate":
        """This candidate with some values replaced."""
        return Candidate({**self.values, **values}, origin, self.program, self.label)

    def to_dict(self) -> dict[str, Any]:
        """The values in JSON types, as the journal keeps them."""
        return {"id": self.key, "origin": self.origin, "values": plain(self.values), "label": self.label}

    @property
    def size(self) -> int:
        """Length of all values in tokens: of two equally good candidates the shorter one wins."""
        return sum(size_of(value) for value in self.values.values())

    def __repr__(self) -> str:
        return f"<Candidate {self.origin}: {', '.join(self.values) or 'as it is'}>"


@dataclass(frozen=True)
class Measured:
    """Scores of one candidate on some examples.

    Attributes:
        candidate: What was measured.
        ids: Ids of the examples.
        scores: Its score on each; None where a language model gave no answer, which says nothing about it.
        errors: How many runs of the program failed (they count as 0) or had no answer.
        failure: The first error among them, in this process.
        scope: Where in the run it was measured.
    """

    candidate: Candidate
    ids: tuple[str, ...]
    scores: tuple[float | None, ...]
    errors: int = 0
    scope: str = ""
    failure: BaseException | None = field(default=None, compare=False, repr=False)

    @property
    def known(self) -> tuple[float, ...]:
        """The scores that are known."""
        return tuple(score for score in self.scores if score is not None)

    @property
    def mean(self) -> float:
        """Mean score, 0 if none is known."""
        known = self.known
        return sum(known) / len(known) if known else 0.0

    def by_id(self) -> dict[str, float]:
        """The known scores by example."""
        return {key: score for key, score in zip(self.ids, self.scores, strict=True) if score is not None}

    def __add__(self, other: "Measured") -> "Measured":
        return Measured(
            self.candidate,
            self.ids + other.ids,
            self.scores + other.scores,
            self.errors + other.errors,
            other.scope or self.scope,
            self.failure or other.failure,
        )


def pairs(first: Measured, second: Measured) -> tuple[list[float], list[float]]:
    """The scores of two candidates on the examples that both have, in the order of the second."""
    known = first.by_id()
    shared = [(known[key], score) for key, score in second.by_id().items() if key in known]
    return [one for one, _ in shared], [two for _, two in shared]


def size_of(value: Any) -> int:
    """Length of a parameter's value in tokens."""
    if isinstance(value, str):
        return len(tokens(value))
    if isinstance(value, Example):
        return sum(size_of(str(item)) for item in value.values())
    if isinstance(value, Sequence):
        return sum(size_of(item) for item in value)
    return 1
