"""Where a backward pass begins: the feedback of the losses about a failed forward, and the calls that it is about."""

import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from promptgrad._error_text import text_about
from promptgrad.autograd._critique import Critique
from promptgrad.autograd._edges import origin
from promptgrad.autograd._loss_row import LossRow
from promptgrad.autograd._node import AccumulateGrad, GradFn, Node
from promptgrad.autograd._report import Skipped
from promptgrad.autograd._sample import sample_of
from promptgrad.autograd._tape import Tape
from promptgrad.autograd._walk import Walk
from promptgrad.errors import MetricError, is_outage

LAST = 1 << 63
"""The place of the loss among the critics of a value: after all calls."""

UNRECORDED = "nothing was recorded: the forward ran under no_grad(), or its output is a plain value"

_FRAMES = 4  # of a traceback, the innermost that are not ours
_PACKAGE = str(Path(__file__).parents[1])


def feedback_of(row: LossRow) -> str:
    """What is wrong with a failed sample: the metric's feedback, else the traceback, the labels, or the score."""
    if row.feedback:
        return row.feedback
    if row.error is not None:
        said = "".join(_frames_of(row.error)) + _last_line(row.error)
        return f"the call failed:\n{text_about(said, row.error)}"
    labels = _labels(row.example, row.tape)
    if labels:
        return "; ".join(f"the {name} should be {value}" for name, value in labels.items())
    return f"the output scores {row.score:g} of {row.best:g}"


def _frames_of(error: BaseException) -> list[str]:
    """The user's frames of a traceback, the same wherever and in whatever mode the program runs; none of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_PACKAGE)][-_FRAMES:]
    shown = [traceback.FrameSummary(Path(f.filename).name, f.lineno, f.name, line=f.line) for f in theirs]
    return ["Traceback (most recent call last):\n", *traceback.format_list(shown)] if shown else []


def _last_line(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(type(error), error)).strip()


def seeds(rows: Sequence[LossRow], verdict: str) -> tuple[dict[GradFn, list[Critique]], list[Skipped]]:
    """The feedback of the losses on one failed forward, by the vertex that it is about; and what is skipped, and why.

    The vertices are the call that failed, or the producers of the output, and the calls of single modules that a loss
    gives feedback for.
    """
    critiques: dict[GradFn, list[Critique]] = {}
    skipped: dict[Skipped, None] = {}
    for row in rows:
        for start in _starts(row):
            if isinstance(start, Skipped):
                skipped[start] = None
            else:
                fn, text = start
                order = (LAST, 0, sum(map(len, critiques.values())))
                critique = Critique(row.example_id, "", 0, "", text, _evidence(row, text), verdict=verdict, order=order)
                critiques.setdefault(fn, []).append(critique)
    return critiques, list(skipped)


def _starts(row: LossRow) -> Iterator[tuple[GradFn, str] | Skipped]:
    """Where a loss begins, and with what text; or why it cannot."""
    broken = _broken_node(row)
    if broken is not None and is_outage(broken.error):
        yield Skipped(row.example_id, broken.path, broken.index, f"no answer: {broken.error!r}")
        return
    if isinstance(row.error, MetricError):  # the judge failed, not the program
        yield Skipped(row.example_id, "", 0, f"no score: {row.error}")
        return
    text = feedback_of(row)
    if broken is not None:
        yield broken, text
    elif row.node is not None:
        yield row.node, text
    else:
        sources = dict.fromkeys(edge.source for edge in Walk().into_output(row.tape, row.output))
        if row.tape is None and not sources:
            yield Skipped(row.example_id, "", 0, UNRECORDED)
        yield from ((source, text) for source in sources)
    for path, feedback in row.module_feedback.items():
        calls = [] if row.tape is None else [node for node in row.tape.nodes if _is_call_of(node, path)]
        texts = [feedback] if isinstance(feedback, str) else list(feedback)
        chosen = calls[-1:] if isinstance(feedback, str) else calls
        if len(texts) > len(chosen):
            yield Skipped(row.example_id, path, len(chosen), _ignored(path, len(texts), len(chosen), len(calls)))
        yield from ((node, text) for node, text in zip(chosen, texts, strict=False) if text)


def _ignored(path: str, texts: int, used: int, calls: int) -> str:
    """Why texts about single calls come to nothing."""
    times = {0: "never called", 1: "called once", 2: "called twice"}.get(calls, f"called {calls} times")
    some = "1 text" if texts == 1 else f"{texts} texts"
    rest = "none of them is used" if not used else "only the first is used" if used == 1 else f"only {used} are used"
    return f"module_feedback has {some} for {path!r}, which was {times}: {'it is ignored' if texts == 1 else rest}"


def _is_call_of(node: Node, path: str) -> bool:
    """Whether a call is one of the module at a path, or of a part of that module."""
    return node.path == path or node.path.startswith(f"{path}.")


def _broken_node(row: LossRow) -> Node | None:
    """The call whose failure ended the forward."""
    if row.error is None or row.tape is None:
        return None
    causes: list[BaseException] = []
    error: BaseException | None = row.error
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    for node in reversed(row.tape.nodes):
        if any(node.error is cause for cause in causes):
            return node
    return None


def _evidence(row: LossRow, text: str) -> dict[str, Any]:
    """What the loss knows about a sample: evidence for a parameter that gets its feedback without a critic."""
    alone = isinstance(origin(row.output), AccumulateGrad)  # the output is the parameter's value
    sample = sample_of(row.example)
    inputs = sample.to_dict() if sample.input_keys is None else sample.inputs()
    return {"inputs": dict(inputs), **({} if alone else {"outputs": row.output}), "feedback": (text,)}


def _labels(example: Any, tape: Tape | None) -> dict[str, Any]:
    sample = sample_of(example)
    if sample.input_keys is not None:
        return dict(sample.labels())
    if tape is None or not tape.inputs:
        return {}
    return {name: value for name, value in sample.to_dict().items() if name not in tape.inputs}
