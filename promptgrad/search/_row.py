"""Row: one run of a program on a training example, as the writer of one text sees it."""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from promptgrad.autograd import Gradient, Trace, as_kind, to_json
from promptgrad.data import Example
from promptgrad.run import value_digest

if TYPE_CHECKING:
    from promptgrad.search._places import Place

TOLERANCE = 1e-9

FEW = 6
"""Rows that a model which knows only its own tasks is shown at once; the embedded one was trained on six at most."""


@dataclass(frozen=True)
class Row:
    """One run of a program on a training example, as the writer of one text sees it.

    Attributes:
        example: Id of the example.
        inputs: What the step that uses the text was given, in JSON types, with images, sounds and files as they are.
            Where the text is used outside of steps, what the program was given.
        outputs: What the step answered; of a reply that could not be read, the reply. Empty for a solution.
        score: The score of the whole run; nan where it is not known.
        best: The best possible score.
        feedback: The metric's feedback, and what it says of this step besides.
        expected: The labels of the example that are named like outputs of this step.
        critique: What a critic said about this very text in this run; empty without one.
        error: Why the step or the run failed; empty where it did not.
        returned: What the program returned in the end, where that is something else.
        calls: The calls of the program in their order, for a row that is about the whole run.
        program_inputs: What the program was given and the step was not; a writer sees it where there is room.
    """

    example: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    score: float
    best: float = 1.0
    feedback: str = ""
    expected: Mapping[str, Any] = field(default_factory=dict)
    critique: str = ""
    error: str = ""
    returned: Mapping[str, Any] = field(default_factory=dict)
    calls: Sequence[Mapping[str, Any]] = ()
    program_inputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def right(self) -> bool:
        """Whether the run has the best score."""
        return not self.error and self.score >= self.best - TOLERANCE

    @property
    def unrun(self) -> bool:
        """Whether it has an example's label alone, as the program was not run on it."""
        return bool(self.expected) and not (self.outputs or self.feedback or self.critique or self.error)

    @property
    def answered(self) -> bool:
        """Whether it shows what the step should answer."""
        return bool(self.expected) or (self.right and bool(self.outputs))

    def shown(self) -> dict[str, Any]:
        """The row as a writer sees it at least, without what is empty or goes without saying."""
        row: dict[str, Any] = {}
        for name in ("inputs", "calls", "outputs", "returned", "expected"):
            if value := getattr(self, name):
                row[name] = value
        if self.score == self.score:
            row["score"] = round(self.score, 3)
            if self.best != 1:
                row["best"] = self.best
        for name in ("feedback", "critique", "error"):
            if text := getattr(self, name):
                row[name] = text
        return row


def few(rows: Sequence[Row], seed: int | str) -> list[Row]:
    """A few rows that show right answers, for a model that knows only its own tasks; other ones for each proposal.

    Such a model finds one instruction in one prompt, so what keeps its proposals apart is what they are shown: as many
    rows that went right as others, where there are enough, drawn and mixed anew.

    Args:
        rows: All rows.
        seed: Seed of the draw, another one for each proposal.
    """
    known, draw = [row for row in rows if row.answered], random.Random(seed)
    draw.shuffle(known)
    right, others = ([row for row in known if row.right is side] for side in (True, False))
    turns = [row for turn in zip_longest(others, right) for row in turn if row is not None]
    chosen = turns[:FEW]
    draw.shuffle(chosen)
    return chosen


def labeled_rows(place: "Place", examples: Iterable[Example]) -> tuple[Row, ...]:
    """Rows of examples that need no run: those that have every input of the step and some of its outputs.

    Args:
        place: The place of the step's text.
        examples: The examples.
    """
    signature = place.signature
    if signature is None or place.parameter.kind.exact:
        return ()
    found = []
    for example in examples:
        labels = {name: example[name] for name in signature.outputs if name in example}
        if labels and all(name in example for name in signature.inputs):
            given = {name: example[name] for name in signature.inputs}
            found.append(
                Row(example.id, to_json(given, media=True), {}, math.nan, expected=to_json(labels, media=True))
            )
    return tuple(found)


def unrun_rows(examples: Iterable[Example]) -> tuple[Row, ...]:
    """Rows of examples that the program was not run on: what it will be given, and their labels.

    Args:
        examples: The examples; those whose inputs are not marked, or that have no label, are left out.
    """
    found = []
    for example in examples:
        given = inputs_of(example)
        labels = labels_of(example, given) if given else {}
        if labels:
            found.append(Row(example.id, given, {}, math.nan, expected=to_json(labels, media=True)))
    return tuple(found)


def rows_of(gradient: Gradient) -> tuple[Row, ...]:
    """The failed calls that the critiques of a gradient are about, a row for each, with no score.

    Critiques that are about no single call, such as a remark of a hook, come after them as rows of their own, each text
    once, the best supported first.
    """
    found: dict[Any, Row] = {}
    more: dict[str, int] = {}
    for critique in gradient.critiques:
        seen, text = critique.evidence, str.__str__(critique.text).strip()
        if not seen:
            more[text] = more.get(text, 0) + critique.support
            continue
        feedback = "\n".join(str.__str__(part) for part in seen.get("feedback", ()))
        key = (critique.example_id, critique.path, critique.index, value_digest(to_json(seen)))
        row = found.get(key) or Row(
            critique.example_id,
            to_json(seen.get("inputs", {}), media=True),
            {} if as_kind(critique.target_kind).exact else to_json(seen.get("outputs", {})),
            math.nan,
            feedback=feedback,
            error="the call failed" if critique.verdict == "error" else "",
        )
        said = [part for part in (row.critique, text) if part and part != feedback]
        found[key] = replace(row, critique="\n".join(dict.fromkeys(said)))
    remarks = sorted(more, key=lambda text: -more[text])
    return (*found.values(), *(remark(text) for text in remarks))


def right_rows(gradient: Gradient, traces: Iterable[Trace]) -> tuple[Row, ...]:
    """The calls of right runs of the modules that a gradient blames, a row for each example: the last of its calls.

    Args:
        gradient: The gradient.
        traces: Traces of the same runs, as the gradients of demos have them.
    """
    blamed = {critique.path for critique in gradient.critiques}
    found: dict[Any, Row] = {}
    for number, trace in enumerate(traces):
        row = Row(
            trace.example_id,
            to_json(trace.inputs, media=True),
            to_json(trace.outputs, media=True),
            trace.score,
            trace.best,
        )
        if row.right and trace.path in blamed:
            found[trace.path, trace.example_id or number] = row
    return tuple(found.values())


def remark(text: str) -> Row:
    """A critique that is about no single run, as a row."""
    return Row("", {}, {}, math.nan, critique=text)


def inputs_of(example: Any) -> dict[str, Any]:
    """The inputs of an example in JSON types and media; empty where they are not marked."""
    marked = getattr(example, "input_keys", None)
    return {} if marked is None else to_json(dict(example.inputs()), media=True)


def labels_of(example: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The labels of an example: all that is not among what was given."""
    if getattr(example, "input_keys", None) is not None:
        return dict(example.labels())
    fields = example.to_dict() if hasattr(example, "to_dict") else {}
    return {name: value for name, value in fields.items() if name not in given}
