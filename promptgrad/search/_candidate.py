"""A candidate: values to lay over a program's parameters, and what was measured of it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from promptgrad.autograd import Selector, to_json, tokens
from promptgrad.data import Example
from promptgrad.nn import Module
from promptgrad.run import value_digest


@dataclass(frozen=True, eq=False)
class Candidate:
    """Values by parameter path, laid over a program while it is tried; the program itself is not changed.

    The values are complete: a parameter that they do not name has the program's own value. To build on another
    candidate, use `child`, which keeps that candidate's values.

    Attributes:
        values: The values that differ from the program's own; empty for the program as it is.
        origin: Where it came from, in words.
        program: The program to try instead of the session's, where something other than parameters changed: the weights
            of a local model, or the structure (several members that vote). `values` are paths in it.
        label: Tells such programs apart in the journal: equal for equal weights and equal members.
        parents: The candidates it was made from; empty for a start. Candidates with the same content are equal,
            whatever their parents.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    origin: str = "start"
    program: Module | None = field(default=None, repr=False)
    label: str = ""
    parents: "tuple[Candidate, ...]" = field(default=(), repr=False)

    @property
    def key(self) -> str:
        """Digest of the content, equal in every process."""
        return value_digest([dict(self.values), self.label])

    def child(self, values: Mapping[str, Any], origin: str, *more: "Candidate") -> "Candidate":
        """This candidate with some values replaced; it is the parent of the new one.

        Args:
            values: The new values by path.
            origin: Where they came from, in words.
            more: Further parents, such as the other side of a merge.
        """
        return Candidate({**self.values, **values}, origin, self.program, self.label, (self, *more))

    def to_dict(self) -> dict[str, Any]:
        """The values in JSON types, as the journal keeps them."""
        return {"id": self.key, "origin": self.origin, "values": to_json(self.values), "label": self.label}

    @property
    def size(self) -> int:
        """Length of all values in tokens: of two equally good candidates the shorter one wins."""
        return sum(size_of(value) for value in self.values.values())

    def __repr__(self) -> str:
        return f"<Candidate {self.origin}: {', '.join(self.values) or 'as it is'}>"


@dataclass(frozen=True)
class Measured:
    """Scores of one candidate on some examples, with the metric's feedback and the outputs.

    Shape: `scores`, `feedback`, `outputs` and each tuple of `parts` have one entry for each of `ids`, in that order.

    Attributes:
        candidate: What was measured.
        ids: Ids of the examples.
        scores: Its score on each; None where a language model gave no answer, which is no evidence about the candidate.
        errors: How many runs of the program failed (they count as 0) or had no answer.
        scope: Where in the run it was measured.
        failure: The first error among them, in this process.
        parts: The metric's scores of named aspects (`Score.parts`), by name; None where an example has no such part.
        feedback: The metric's feedback; empty where there is none.
        outputs: What the program returned; None where it failed.
    """

    candidate: Candidate
    ids: tuple[str, ...]
    scores: tuple[float | None, ...]
    errors: int = 0
    scope: str = ""
    failure: BaseException | None = field(default=None, compare=False, repr=False)
    parts: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict, compare=False)
    feedback: tuple[str, ...] = field(default=(), compare=False, repr=False)
    outputs: tuple[Any, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        count = len(self.ids)
        object.__setattr__(self, "feedback", self.feedback or ("",) * count)
        object.__setattr__(self, "outputs", self.outputs or (None,) * count)

    @property
    def known(self) -> tuple[float, ...]:
        """The scores that are known."""
        return tuple(score for score in self.scores if score is not None)

    @property
    def mean(self) -> float:
        """Mean score, 0 if none is known."""
        known = self.known
        return sum(known) / len(known) if known else 0.0

    @property
    def total(self) -> float:
        """Sum of the known scores."""
        return sum(self.known)

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
            {name: self._part(name) + other._part(name) for name in dict.fromkeys([*self.parts, *other.parts])},
            self.feedback + other.feedback,
            self.outputs + other.outputs,
        )

    def without(self, ids: Collection[str]) -> "Measured":
        """The measurement without these examples."""
        kept = [place for place, key in enumerate(self.ids) if key not in ids]
        return replace(
            self,
            ids=tuple(self.ids[place] for place in kept),
            scores=tuple(self.scores[place] for place in kept),
            parts={name: tuple(scores[place] for place in kept) for name, scores in self.parts.items()},
            feedback=tuple(self.feedback[place] for place in kept),
            outputs=tuple(self.outputs[place] for place in kept),
        )

    def _part(self, name: str) -> tuple[float | None, ...]:
        return self.parts.get(name, (None,) * len(self.ids))


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
    if isinstance(value, Selector):
        return round(size_of(value.examples) * min(1.0, value.k / len(value.examples)))
    if isinstance(value, Sequence):
        return sum(size_of(item) for item in value)
    return 1


def show_value(value: Any, width: int = 60) -> str:
    """A parameter's value in one short line."""
    if isinstance(value, tuple):
        return f"{len(value)} demo{'' if len(value) == 1 else 's'}"
    text = repr(value if not isinstance(value, str) else str(value))
    return text if len(text) <= width else f"{text[: width - 3]}..."
