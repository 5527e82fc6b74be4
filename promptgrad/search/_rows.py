"""Rows: what a search knows of a program's runs on training data, as the writer of one text sees them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from promptgrad._error_text import error_text
from promptgrad.autograd import Critique, Gradient, Loss, LossRow, Node, Tape, to_json
from promptgrad.data import Example
from promptgrad.errors import is_outage
from promptgrad.nn import Module, Predict
from promptgrad.run import Cell, value_digest
from promptgrad.search._candidate import Candidate, Measured
from promptgrad.search._row import TOLERANCE, Row, inputs_of, labels_of

if TYPE_CHECKING:
    from promptgrad.search._places import Place


@dataclass(frozen=True)
class _Call:
    """One call of a step that read parameters, in JSON types, with images, sounds and files as they are."""

    path: str
    index: int
    reads: frozenset[str]
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    error: str = ""


@dataclass(frozen=True)
class _Run:
    """One run of the program, in JSON types. Its critiques come later, by the path of the text."""

    example: str
    reads: Mapping[str, str]
    label: str
    calls: tuple[_Call, ...]
    inputs: Mapping[str, Any]
    returned: Mapping[str, Any]
    labels: Mapping[str, Any]
    score: float
    best: float
    feedback: str = ""
    module_feedback: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    error: str = ""
    critiques: dict[str, list[Critique]] = field(default_factory=dict, compare=False)


class Rows:
    """Every run on training data that was paid for, kept for all optimizers and phases of one search.

    A run speaks of a candidate if all parameters that it read have the same values there. So a change of a text makes
    the runs that read it mute, and one that a run never read does not; a candidate that goes back to earlier values
    finds their runs again.

    Args:
        value: Gives the value of a parameter, by its path, in a candidate.
    """

    def __init__(self, value: Callable[[str, Candidate], Any]) -> None:
        self._value = value
        self._runs: dict[tuple[str, str], _Run] = {}
        self._latest: dict[tuple[str, str], _Run] = {}
        self._candidates: dict[str, Candidate] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, candidate: Candidate, loss: Loss, gradients: Mapping[str, Gradient] | None = None) -> None:
        """Note the runs of a candidate, and what a critic found in them.

        A run that is known and whose record is gone, as after `backward`, only gets the critiques.

        Args:
            candidate: The candidate.
            loss: Its loss on training examples. Rows for which a language model gave no answer are left out, and so are
                examples without an id.
            gradients: What is wrong with its texts in these runs, by path.
        """
        for row in loss.rows:
            known = gradients and (candidate.key, row.example_id) in self._latest
            if row.example_id and not known and not is_outage(row.error):
                run = _recorded(candidate, row)
                if run is not None:
                    self._keep(candidate, run)
        for path, gradient in (gradients or {}).items():
            for critique in gradient.critiques:
                for example in dict.fromkeys([critique.example_id, *critique.examples]):
                    found = self._latest.get((candidate.key, example))
                    if found is not None:
                        found.critiques.setdefault(path, []).append(critique)

    def add_cells(
        self, candidate: Candidate, program: Module, cells: Iterable[tuple[Example, Cell]], best: float
    ) -> None:
        """Note the runs that were only scored. They say what a step was given and answered if the program has just one.

        Args:
            candidate: The candidate.
            program: Its program.
            cells: Training examples with its results on them.
            best: The best possible score.
        """
        steps = [(path, module) for path, module in program.named_modules() if isinstance(module, Predict)]
        if len(steps) != 1:
            return
        ((path, step),) = steps
        for example, cell in cells:
            returned, given = _named(cell.output), inputs_of(example)
            fits = set(step.signature.inputs) == set(given) and set(step.signature.outputs) <= set(returned)
            if cell.error is None and fits:
                call = _Call(path, 0, frozenset(cell.reads), given, returned)
                run = _Run(
                    example.id,
                    cell.reads,
                    candidate.label,
                    (call,),
                    given,
                    returned,
                    to_json(labels_of(example, given), media=True),
                    cell.score,
                    best,
                    cell.feedback,
                )
                self._keep(candidate, run)

    def _keep(self, candidate: Candidate, run: _Run) -> None:
        key = run.example, value_digest([dict(run.reads), run.label])
        self._candidates.setdefault(candidate.key, candidate)
        old = self._runs.pop(key, None)
        if old is not None and old.critiques and (old.calls, old.score) == (run.calls, run.score):
            run.critiques.update(old.critiques)  # the same run again, as with a cache: what was said of it holds
        self._runs[key] = self._latest[candidate.key, run.example] = run

    def of(self, place: "Place", candidate: Candidate) -> tuple[Row, ...]:
        """The runs that speak of a candidate and read the text at a place, one for each example, the oldest first.

        The newest run of an example counts. Of several calls that read the text, the row is about the one that a critic
        blamed, else the last.
        """
        found: dict[str, Row] = {}
        for run in self._about(candidate):
            if place.path in run.reads:
                found.pop(run.example, None)
                found[run.example] = _row(run, place)
        return tuple(found.values())

    def right(self, place: "Place") -> tuple[Row, ...]:
        """The runs of any candidate that went right and read the parameter at a place, the newest for each example."""
        found = {
            run.example: run
            for run in self._runs.values()
            if place.path in run.reads and not run.error and run.score >= run.best - TOLERANCE
        }
        return tuple(_row(run, place) for run in found.values())

    def whole(self, candidate: Candidate) -> tuple[Row, ...]:
        """The runs that speak of a candidate from beginning to end, one for each example, the oldest first.

        Each row has the `calls` of the steps in their order, with what each was given and what it answered. A long text
        that stands further up in the run is referred to, as in "= facts of extract".
        """
        found: dict[str, Row] = {}
        for run in self._about(candidate):
            if run.calls:
                found.pop(run.example, None)
                found[run.example] = _whole(run)
        return tuple(found.values())

    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates that were run, the oldest first."""
        return tuple(self._candidates.values())

    def known(self, candidate: Candidate) -> frozenset[str]:
        """The examples on which there is a run that speaks of a candidate."""
        return frozenset(run.example for run in self._about(candidate))

    def measured(self, candidate: Candidate, examples: Sequence[Example]) -> Measured:
        """The scores of a candidate on some examples in its newest runs there; None where there is no run."""
        scores = {run.example: run.score for run in self._about(candidate)}
        ids = tuple(example.id for example in examples)
        return Measured(candidate, ids, tuple(scores.get(key) for key in ids))

    def _about(self, candidate: Candidate) -> list[_Run]:
        """The runs that speak of a candidate, the oldest first."""
        digests = dict[str, str]()
        runs = self._runs.values()
        return [run for run in runs if run.label == candidate.label and self._speaks(run, candidate, digests)]

    def _speaks(self, run: _Run, candidate: Candidate, digests: dict[str, str]) -> bool:
        for path, digest in run.reads.items():
            if path not in digests:
                digests[path] = value_digest(self._value(path, candidate))
            if digests[path] != digest:
                return False
        return True


def _row(run: _Run, place: "Place") -> Row:
    """A run as the writer of one text sees it."""
    own = [call for call in run.calls if place.path in call.reads]
    blames = run.critiques.get(place.path, [])
    blamed = [call for call in own if any((call.path, call.index) == (c.path, c.index) for c in blames)]
    exact = place.parameter.kind.exact
    call = (blamed or own or [_Call("", 0, frozenset(), run.inputs, run.returned)])[-1]
    outputs = {} if exact else call.outputs
    fields = place.signature.outputs if place.signature is not None else call.outputs
    about = _module_feedback(run, call)
    said = dict.fromkeys(str.__str__(critique.text).strip() for critique in blames)
    critique = "\n".join(text for text in said if text and text != run.feedback.strip())
    seen = list(call.inputs.values())
    return Row(
        run.example,
        call.inputs,
        outputs,
        run.score,
        run.best,
        "\n".join(text for text in (run.feedback, about) if text),
        {} if exact else {name: value for name, value in run.labels.items() if name in fields},
        critique,
        call.error or run.error,
        {} if exact or call.outputs == run.returned else run.returned,
        program_inputs={} if exact else {name: value for name, value in run.inputs.items() if value not in seen},
    )


def _whole(run: _Run) -> Row:
    """A run from beginning to end."""
    above: dict[str, str] = {}  # where each long text stood first
    calls = []
    for name, value in run.inputs.items():
        _shorter(value, f"= {name} of the run", above)
    for call in run.calls:
        again = sum(other.path == call.path for other in run.calls) > 1
        name = f"{call.path}[{call.index}]" if again else call.path
        shown: dict[str, Any] = {"call": name}
        for part in ("inputs", "outputs"):
            fields = getattr(call, part)
            shown[part] = {key: _shorter(value, f"= {key} of {name}", above) for key, value in fields.items()}
        about = _module_feedback(run, call)
        shown |= {"feedback": about} if about else {}
        shown |= {"error": call.error} if call.error else {}
        calls.append(shown)
    error = "" if any(call.error == run.error for call in run.calls) else run.error
    return Row(
        run.example,
        run.inputs,
        {key: _shorter(value, "", above) for key, value in run.returned.items()},
        run.score,
        run.best,
        run.feedback,
        run.labels,
        error=error or ("it failed" if run.error else ""),
        calls=calls,
    )


def _shorter(value: Any, name: str, above: dict[str, str]) -> Any:
    """A value, or a reference to the place above where the same text stands, if that is shorter."""
    if not isinstance(value, str):
        return value
    known = above.setdefault(value, name)
    return known if known != name and len(known) < len(value) else value


def _module_feedback(run: _Run, call: _Call) -> str:
    """What the metric says of the module of a call, or of the module that holds it."""
    texts = []
    for path, said in run.module_feedback.items():
        if call.path == path or call.path.startswith(f"{path}."):
            each = [said] if isinstance(said, str) else list(said)
            last = max((other.index for other in run.calls if other.path == call.path), default=0)
            index = call.index - last - 1 if isinstance(said, str) else call.index
            if -len(each) <= index < len(each):
                texts.append(each[index])
    return "\n".join(texts)


def _recorded(candidate: Candidate, row: LossRow) -> _Run | None:
    """The run behind a row of a loss; None where nothing was recorded."""
    tape = row.recorded
    if tape is None or tape.freed:
        return None
    given = inputs_of(row.example) or to_json(tape.inputs, media=True)
    return _Run(
        row.example_id,
        {path: value_digest(read.value) for read in tape.reads if (path := tape.paths.get(read.parameter))},
        candidate.label,
        tuple(call for node in tape.nodes if (call := _call(tape, node)).reads),
        given,
        _named(row.output) if row.error is None else {},
        to_json(labels_of(row.example, tape.inputs), media=True),
        row.score if row.error is None else 0.0,
        row.best,
        row.feedback,
        row.module_feedback,
        _error_text(row.error),
    )


def _call(tape: Tape, node: Node) -> _Call:
    reads = frozenset(path for read in node.reads if (path := tape.paths.get(read.parameter)))
    outputs = to_json(node.outputs, media=True)
    if not outputs and node.error is not None and node.reply:
        outputs = {"reply": node.reply}
    return _Call(node.path, node.index, reads, to_json(node.inputs, media=True), outputs, _error_text(node.error))


def _error_text(error: BaseException | None) -> str:
    """An error in words; empty for none."""
    return "" if error is None else error_text(error)


def _named(output: Any) -> dict[str, Any]:
    """What a program returned, by field."""
    plain = to_json(output, media=True)
    return plain if isinstance(plain, dict) else {} if plain is None else {"output": plain}
