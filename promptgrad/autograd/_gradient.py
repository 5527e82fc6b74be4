"""What accumulates in `Parameter.grad`: critiques for texts, scored traces for demos."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any, overload

from promptgrad.autograd._cluster import THRESHOLD, Cluster, Similarity, clusters_of, support_of
from promptgrad.autograd._critique import Critique
from promptgrad.autograd._tokens import tokens
from promptgrad.autograd._values import to_json

FORMAT = "promptgrad.gradient"
VERSION = 1


@dataclass(frozen=True)
class Trace:
    """One call with its inputs, its outputs and the score of the complete forward: a demo, if it is good.

    Attributes:
        example_id: The example that was run.
        path: The module.
        index: Which of its calls, in the order of the forward.
        inputs: What it was called with.
        outputs: What it returned.
        score: The metric's score of the forward.
        best: The best possible score.
    """

    example_id: str
    path: str
    index: int
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    score: float
    best: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """In JSON types."""
        return {
            "kind": "trace",
            "example_id": self.example_id,
            "path": self.path,
            "index": self.index,
            "inputs": to_json(self.inputs),
            "outputs": to_json(self.outputs),
            "score": self.score,
            "best": self.best,
        }


Record = Critique | Trace


class Gradient:
    """An ordered, frozen sum of critiques and traces. `+` appends; the same run gives the same order.

    It is a sequence: `len`, iteration, `grad[0]`, `grad[:3]`. Methods that reduce it (`filter`, `cluster`, `clip`)
    return a new gradient. Critiques are what a language model reads; traces, which become demos, pass through `cluster`
    and `clip` as they are.

    >>> g = Gradient([Critique("e1", "solve", 0, "instruction", "name the unit")])
    >>> g + Gradient([Critique("e2", "solve", 0, "instruction", "name the unit")])
    Gradient(2 critiques: 2 x 'name the unit')
    """

    __slots__ = ("_records",)

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._records = tuple(records)

    @property
    def records(self) -> tuple[Record, ...]:
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

    def filter(
        self,
        predicate: Callable[[Any], object] | None = None,
        *,
        path: str | None = None,
        target: str | None = None,
        example_id: str | None = None,
        verdict: str | None = None,
        min_support: int = 0,
        min_agreement: float = 0.0,
    ) -> "Gradient":
        """The records that satisfy all given conditions, in order.

        Traces have no target, verdict, support or agreement, so these conditions do not apply to them: to leave traces
        out, write `Gradient(grad.critiques)`.

        Args:
            predicate: Called with each record, `Critique` or `Trace`, that satisfies the rest.
            path: The module that was blamed.
            target: What was blamed there.
            example_id: The example; one of them, if a critique represents several.
            verdict: "wrong" or "error".
            min_support: Fewest examples behind a critique; of use after `cluster`.
            min_agreement: Least agreement of a critique's repetitions.
        """

        def holds(record: Record) -> bool:
            if path is not None and record.path != path:
                return False
            if isinstance(record, Trace):
                return example_id is None or record.example_id == example_id
            return (
                (example_id is None or example_id == record.example_id or example_id in record.examples)
                and (target is None or record.target == target)
                and (verdict is None or record.verdict == verdict)
                and record.support >= min_support
                and record.agreement >= min_agreement
            )

        return Gradient(
            record for record in self._records if holds(record) and (predicate is None or predicate(record))
        )

    def cluster(self, threshold: float = THRESHOLD, *, similarity: Similarity | None = None) -> "Gradient":
        """One critique for all that say the same, with their supports added, the most supported first; then the traces.

        A cluster is represented by the critique that the others are most like, see `clusters`. Clustering again changes
        nothing. A sum can be clustered, and so can sums of clusters: a critique remembers the examples that it
        represents.
        """
        return Gradient(
            (*(cluster.critique for cluster in self.clusters(threshold, similarity=similarity)), *self.traces)
        )

    def clusters(self, threshold: float = THRESHOLD, *, similarity: Similarity | None = None) -> tuple[Cluster, ...]:
        """The critiques by what they say, the most supported first, those of equal support by first appearance.

        Critiques are compared if they blame the same target of the same module. Without a `similarity`, two are the
        same if their words are, apart from the case of the first letter, white space and the last mark. So critiques
        that ask for different things are not merged, and paraphrases stay apart: it takes an embedding or a language
        model (`nn.Grouper`) to decide whether they mean the same. Support counts examples: one that leads to the same
        critique at two calls of a loop, or in two accumulated backward passes, counts once. Without ids, each critique
        counts as one example.

        Supports and texts do not depend on the order in which the critiques were added.

        Cost: no LM call. With a `similarity`, one call of it for each pair of different texts of one target.

        Args:
            threshold: Least similarity to the critique that represents the cluster, in (0, 1].
            similarity: How alike two texts are, in [0, 1], for example the cosine of two embeddings.

        Raises:
            ValueError: `threshold` is not in (0, 1], or `similarity` returned something outside of [0, 1].
        """
        return clusters_of(self.critiques, threshold, similarity)

    def clip(self, max_tokens: int) -> "Gradient":
        """Keep at most `max_tokens` words and marks of critiques, the weightiest uncut and in order, and all traces.

        Weight is support times agreement, and among equals the earlier counts more. A critique that does not fit is
        left out, and lighter ones that do fit are kept. `cluster` first, so that the weight of a critique is the number
        of examples behind it.

        Raises:
            ValueError: `max_tokens` is negative.
        """
        kept = heaviest(self.critiques, max_tokens)
        answers = iter(kept)
        return Gradient(record for record in self._records if isinstance(record, Trace) or next(answers))

    def to_dict(self) -> dict[str, Any]:
        """In JSON types, all records in their order; `from_dict` reads it. Language models are left out."""
        return {"format": FORMAT, "version": VERSION, "records": [record.to_dict() for record in self._records]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Gradient":
        """The gradient that `to_dict` wrote, equal to it if its evidence is in JSON types.

        `evidence["feedback"]` comes back as the tuple that `backward` makes.

        Raises:
            ValueError: `data` is not a gradient, or of another version, or one of its records is malformed.
        """
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise ValueError(f"not a gradient: expected what Gradient.to_dict() returns, not {shorten(repr(data), 80)}")
        if data.get("version") != VERSION:
            raise ValueError(
                f"a gradient of version {data.get('version')!r}, and this promptgrad reads version {VERSION}: "
                "read it with the promptgrad that wrote it, or a newer one"
            )
        if not isinstance(records := data.get("records"), list):
            raise ValueError(f"the 'records' of a gradient are a list, not {shorten(repr(records), 80)}")
        return cls(_record(number, record) for number, record in enumerate(records))

    def __add__(self, other: "Gradient | None") -> "Gradient":
        if other is None:
            return self
        if not isinstance(other, Gradient):
            return NotImplemented
        return Gradient(self._records + other._records)

    def __radd__(self, other: "Gradient | int | None") -> "Gradient":
        return self if other is None or other == 0 else NotImplemented

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> "Gradient": ...
    def __getitem__(self, index: int | slice) -> "Record | Gradient":
        return Gradient(self._records[index]) if isinstance(index, slice) else self._records[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __eq__(self, other: object) -> bool:
        return self._records == other._records if isinstance(other, Gradient) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        critiques = self.critiques
        by_text: dict[str, list[Critique]] = {}
        for critique in critiques:
            by_text.setdefault(str.__str__(critique.text), []).append(critique)
        supports = sorted(((support_of(group)[0], text) for text, group in by_text.items()), key=lambda item: -item[0])
        shown = [
            f"{f'{support} x ' if support > 1 else ''}{shorten(text, 60, placeholder='...')!r}"
            for support, text in supports[:_BRIEF]
        ]
        if len(supports) > _BRIEF:
            shown.append("...")
        return f"Gradient({', '.join(_counts(self))}{': ' if shown else ''}{', '.join(shown)})"

    def _repr_html_(self) -> str:
        import html

        rows = "".join(
            f"<tr><td>{cluster.support}</td><td>{html.escape(f'{cluster.path}.{cluster.target}'.lstrip('.'))}</td>"
            f'<td style="text-align: left">{html.escape(str.__str__(cluster.text))}</td></tr>'
            for cluster in self.clusters()[:_SHOWN]
        )
        table = f"<table><tr><th>support</th><th>of</th><th>critique</th></tr>{rows}</table>" if rows else ""
        return f"<div>Gradient: {', '.join(_counts(self)) or 'empty'}</div>{table}"


_BRIEF, _SHOWN = 3, 20


def _counts(gradient: Gradient) -> list[str]:
    counts = (("critique", len(gradient.critiques)), ("trace", len(gradient.traces)))
    return [f"{count} {what}{'' if count == 1 else 's'}" for what, count in counts if count]


def heaviest(critiques: Sequence[Critique], max_tokens: int) -> list[bool]:
    """Which critiques to keep, so that they have at most `max_tokens` words and marks; see `Gradient.clip`."""
    if max_tokens < 0:
        raise ValueError(f"max_tokens is at least 0, not {max_tokens}")
    kept = [False] * len(critiques)
    order = sorted(range(len(critiques)), key=lambda at: -critiques[at].support * critiques[at].agreement)
    for at in order:
        length = len(tokens(critiques[at].text))
        if length <= max_tokens:
            kept[at] = True
            max_tokens -= length
    return kept


def _record(number: int, data: Any) -> Record:
    kinds: dict[Any, type[Record]] = {"critique": Critique, "trace": Trace}
    kind = kinds.get(data.get("kind")) if isinstance(data, Mapping) else None
    if kind is None:
        raise ValueError(
            f"record {number} of the gradient is neither a critique nor a trace: {shorten(repr(data), 80)}"
        )
    values = {name: value for name, value in data.items() if name != "kind"}
    if "examples" in values:
        values["examples"] = tuple(values["examples"])
    if isinstance(evidence := values.get("evidence"), Mapping) and isinstance(evidence.get("feedback"), list):
        values["evidence"] = {**evidence, "feedback": tuple(evidence["feedback"])}
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"record {number} of the gradient is not a valid {data['kind']}: {error}") from None
