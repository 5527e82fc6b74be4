"""`graph`: what was recorded, as a picture."""

import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptgrad.autograd import (
    AccumulateGrad,
    Critique,
    Edge,
    ForwardOutput,
    GradFn,
    Join,
    Loss,
    LossRow,
    Node,
    Record,
    Tape,
    Walk,
    call_name,
    joined_sources,
    short,
    to_json,
)
from promptgrad.errors import GraphError
from promptgrad.nn import Batch
from promptgrad.viz._drawing import Drawing
from promptgrad.viz._picture import Box, Line, Link, Picture

_WIDE = 44  # characters of a line
_LINES = 4  # values, and critiques, that a box shows

Place = tuple[int, str, int]


def graph(of: Any, *, limit: int = 8) -> Drawing:
    """Draw the calls behind a loss, a batch or an output, with the values that flowed between them.

    A box is a call, a parameter that the program's code read, or an output; it shows values shortened, and in its
    tooltip in full. A line is solid where the same text was passed on (*exact*), dashed where it was recognised by its
    content (*content*), dotted where only the program's code or the order implies it (*control*, *order*).
    After `loss.backward(retain_graph=True)`, calls that are to blame are marked, and show their critiques.

    The result shows itself in a notebook; `.svg()`, `.mermaid()` and `.dot()` give it as text, `.save(path)` writes it.

    Cost: no LM call; the edges are computed, as in backward.

    Args:
        of: A `Loss`, a `Batch`, a finished `Tape`, or an output: a prediction, a text, a list of them.
        limit: How many samples of a loss or batch are drawn, failed ones first.

    Raises:
        GraphError: Nothing was recorded, or backward has freed it.
    """
    rows, report = _rows(of)
    if limit < 1:
        raise ValueError(f"limit is a number of samples and at least 1, not {limit}")
    order = sorted(range(len(rows)), key=lambda number: not rows[number].failed)[:limit]
    if any(rows[number].tape is not None and rows[number].tape.freed for number in order):  # type: ignore[union-attr]
        raise GraphError(_FREED)
    work = _Collect(report)
    for number in sorted(order):
        work.add(number, rows[number])
    hidden = len(rows) - len(order)
    return Drawing(work.picture(_hidden(hidden)))


def _hidden(count: int) -> str:
    if not count:
        return ""
    return "1 more sample is not drawn" if count == 1 else f"{count} more samples are not drawn"


_FREED = "backward() has freed what was recorded: draw before it, or write loss.backward(retain_graph=True)"
_NOTHING = (
    "nothing was recorded behind this: the forward ran under no_grad() or inference_mode(), no parameter of the "
    "program requires a gradient, or it is not an output of a program"
)


@dataclass(frozen=True)
class _Row:
    output: Any
    tape: Tape | None
    error: BaseException | None = None
    judged: LossRow | None = None

    @property
    def failed(self) -> bool:
        return self.error is not None or (self.judged is not None and self.judged.failed)


def _rows(of: Any) -> tuple[list[_Row], Mapping[int, Sequence[Critique]]]:
    if isinstance(of, Loss):
        rows = [_Row(row.output, row.tape, row.error, row) for row in of.rows]
        return rows, {} if of.report is None else of.report.critiques
    if isinstance(of, Batch):
        return [_Row(row.output, row.tape, row.error) for row in of.rows], {}
    if isinstance(of, Tape):
        return [_Row(of.output, of, of.error)], {}
    return [_Row(of, None)], {}


class _Collect:
    """Collects the vertices of some samples, and makes boxes of them."""

    def __init__(self, critiques: Mapping[int, Sequence[Critique]]) -> None:
        self.walk = Walk()
        self.rows: list[tuple[int, _Row, list[Edge]]] = []
        self.tapes: dict[Tape, list[int]] = {}  # the rows of each forward: several losses may judge one
        self.at: dict[Place, list[Critique]] = {}
        self.named: dict[tuple[int, str], list[Critique]] = {}
        for row, several in critiques.items():
            for critique in several:
                self.at.setdefault((row, critique.path, critique.index), []).append(critique)
                if critique.parameter:
                    self.named.setdefault((row, critique.parameter), []).append(critique)

    def add(self, number: int, row: _Row) -> None:
        """Add one sample, with all that its forward recorded."""
        node = None if row.judged is None else row.judged.node
        if node is None:
            into = self.walk.into_output(row.tape, row.output)
        else:
            into = [Edge(node, ForwardOutput(row.tape), None, "exact")]
        self.rows.append((number, row, into))
        self.walk.add(edge.source for edge in into)
        if row.tape is not None:
            self.tapes.setdefault(row.tape, []).append(number)
            self.walk.add(row.tape.nodes)

    def picture(self, note: str) -> Picture:
        """The boxes and links."""
        fns = [fn for fn in self.walk.vertices() if not isinstance(fn, Join)]
        if not fns:
            raise GraphError(_NOTHING)
        if any(isinstance(fn, Node) and fn.tape.freed for fn in fns):
            raise GraphError(_FREED)
        number: dict[GradFn, int] = {fn: place for place, fn in enumerate(fns)}
        users: dict[GradFn, list[int]] = {}
        links: dict[tuple[int, int, str, str], Link] = {}
        for edge in self.walk.edges():
            if isinstance(edge.target, (Join, ForwardOutput)):
                continue
            for source in joined_sources(edge.source):
                _link(links, number[source], number[edge.target], edge)
                if isinstance(edge.target, Node):
                    users.setdefault(source, self.tapes.get(edge.target.tape, []))
        for place, _, into in self.rows:
            for edge in into:
                for source in joined_sources(edge.source):
                    users.setdefault(source, [place])
        boxes = [self.box(fn, users.get(fn, [])) for fn in fns]
        for place, row, into in self.rows:
            if row.error is None or into:
                for edge in into:
                    for source in joined_sources(edge.source):
                        _link(links, number[source], len(boxes), edge)
                boxes.append(_output(place, row, many=len(self.rows) > 1))
        return Picture(tuple(boxes), tuple(links.values()), note)

    def name_of(self, fn: AccumulateGrad, rows: Iterable[int]) -> str:
        """The name of a parameter in the program of the first of some rows."""
        tapes = [tape for tape, numbers in self.tapes.items() if any(number in rows for number in numbers)]
        path = tapes[0].path_of(fn.parameter) if tapes else fn.parameter.name
        return path or fn.parameter.kind

    def box(self, fn: GradFn, rows: list[int]) -> Box:
        """The box of a call, or of a parameter that is used in some rows."""
        if isinstance(fn, AccumulateGrad):
            name = self.name_of(fn, rows)
            return _parameter(fn, name, [one for row in rows for one in self.named.get((row, name), [])])
        if not isinstance(fn, Node):
            return Box(repr(fn), fn.kind, "call", (), repr(fn))
        own = {fn.name_of(read) for read in fn.reads}
        critiques = [
            critique
            for row in self.tapes.get(fn.tape, [])
            for critique in self.at.get((row, fn.path, fn.index), [])
            if critique.target_kind == "input" or critique.parameter in own
        ]
        lines = [Line(short(f"{name}: {_as_text(value)}", _WIDE)) for name, value in fn.outputs.items()]
        lines = _some(lines, "outputs")
        if fn.error is not None:
            lines.append(Line(short(f"{type(fn.error).__name__}: {fn.error}", _WIDE), "error"))
        lines += _some(
            [Line(short(f"{_target_name(one)}: {one.text}", _WIDE), "blame") for one in critiques], "critiques"
        )
        state = "error" if fn.error is not None else "blamed" if critiques else ""
        title = call_name(fn.path, fn.index)
        return Box(title, fn.module_name or fn.kind, "call", tuple(lines), "\n".join(_tooltip(fn, critiques)), state)


def _parameter(fn: AccumulateGrad, name: str, critiques: list[Critique]) -> Box:
    text = str(fn.value)
    lines = [Line(short(text, _WIDE))]
    full = [name, "", text]
    if critiques:
        lines += _some([Line(short(critique.text, _WIDE), "blame") for critique in critiques], "critiques")
        full += ["", "critiques", *(f"  {critique.text}" for critique in critiques)]
    return Box(name, fn.parameter.kind, "parameter", tuple(lines), "\n".join(full), "blamed" if critiques else "")


def _link(links: dict[tuple[int, int, str, str], Link], source: int, target: int, edge: Edge) -> None:
    label = edge.field or ""
    links.setdefault((source, target, edge.kind, label), Link(source, target, edge.kind, label, edge.ambiguous))


def _some(lines: list[Line], what: str) -> list[Line]:
    if len(lines) <= _LINES:
        return lines
    return [*lines[: _LINES - 1], Line(f"and {len(lines) - _LINES + 1} {what} more", "note")]


def _output(number: int, row: _Row, *, many: bool) -> Box:
    title = f"output {number}" if many else "output"
    judged = row.judged
    if judged is not None and judged.node is not None:
        title = call_name(judged.node.path, judged.node.index)
    lines, full, state, subtitle = [], [title], "", ""
    if row.error is not None:
        lines.append(Line(short(f"{type(row.error).__name__}: {row.error}", _WIDE), "error"))
        full += ["", *_trace(row.error)]
        state = "error"
    else:
        fields = _fields(row.output)
        if fields:
            lines += _some([Line(short(f"{name}: {_as_text(item)}", _WIDE)) for name, item in fields.items()], "fields")
        else:
            lines.append(Line(short(_as_text(row.output), _WIDE)))
        full += ["", _as_text(row.output)]
    if judged is not None:
        if row.error is None:
            subtitle = f"score {judged.score:g} of {judged.best:g}"
            state = "blamed" if judged.failed else "right"
        full += ["", f"example: {judged.example!r}", subtitle]
        if judged.feedback:
            lines.append(Line(short(judged.feedback, _WIDE), "blame"))
            full += ["", f"feedback: {judged.feedback}"]
    return Box(title, subtitle, "output", tuple(lines), "\n".join(full).rstrip(), state)


def _tooltip(node: Node, critiques: Iterable[Critique]) -> Iterator[str]:
    yield f"{call_name(node.path, node.index)} {node.module_name}".rstrip()
    for head, values in (("inputs", node.inputs), ("outputs", node.outputs)):
        if values:
            yield f"\n{head}"
            for name, value in values.items():
                yield f"  {name}: {_as_text(value)}"
    if node.reads:
        yield "\nparameters"
        for read in node.reads:
            version = "candidate" if read.version < 0 else f"version {read.version}"
            yield f"  {read.name or node.name_of(read)} ({version}): {_as_text(read.value)}"
    if node.error is not None:
        yield "\nerror"
        yield from _trace(node.error)
    for number, critique in enumerate(critiques):
        if not number:
            yield "\ncritiques"
        yield f"  {_target_name(critique)}: {critique.text}"


def _trace(error: BaseException) -> Iterator[str]:
    for part in traceback.format_exception(type(error), error, error.__traceback__, limit=-4):
        yield part.rstrip()


def _target_name(critique: Critique) -> str:
    return f"input {critique.target}" if critique.target_kind == "input" else critique.target


def _fields(value: Any) -> dict[str, Any]:
    """The fields of a record; empty for any other value."""
    shown = to_json(value) if isinstance(value, (Mapping, Record)) else {}
    return shown if isinstance(shown, dict) else {}


def _as_text(value: Any) -> str:
    """A value as text: texts as they are, records by field."""
    if isinstance(value, str):
        return str.__str__(value)
    fields = _fields(value)
    return "\n".join(f"{name}: {item}" for name, item in fields.items()) if fields else repr(value)
