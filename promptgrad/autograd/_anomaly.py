"""`detect_anomaly`: reports what silently came to nothing in a backward pass or a step, where, and what to do."""

from collections.abc import Iterable, Sequence
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any

from promptgrad._patterns import late_pattern
from promptgrad.aio import warn
from promptgrad.autograd._edges import joined_sources
from promptgrad.autograd._node import GradFn, Node
from promptgrad.autograd._walk import Walk
from promptgrad.errors import GraphError

if TYPE_CHECKING:
    from promptgrad.autograd._loss_row import LossRow
    from promptgrad.autograd._report import BackwardReport

_detector: "ContextVar[detect_anomaly | None]" = ContextVar("promptgrad.anomaly", default=None)

_PLACEHOLDER = late_pattern(r"(?<!\{)\{([A-Za-z_]\w*)\}(?!\})")
_MOST = 5  # names in one message


class AnomalyWarning(UserWarning):
    """Something in training silently comes to nothing; see `detect_anomaly`."""


def current_detector() -> "detect_anomaly | None":
    """The innermost `detect_anomaly` of this context."""
    return _detector.get()


class detect_anomaly:
    """Within the block, warn of what would silently come to nothing; as `torch.autograd.detect_anomaly`.

    In `backward()`: a parameter that requires a gradient and gets none, with the place where the path to it broke; a
    critic that blames nothing; critiques that are the same for all examples, or for several parameters; a text with a
    `{placeholder}` that nothing fills. In an optimizer's `step()`: one that changes nothing. When a loss is made under
    `no_grad` or `inference_mode`: examples that a backward pass in the block trained on (and the other way round). Each
    finding is reported once in a block.

    Cost: no LM call; a pass over the recorded calls at each backward.

    Args:
        error: Raise at the first anomaly instead of warning. A gradient that has grown, or a step taken, stays.

    Attributes:
        anomalies: The messages, in order.

    Raises:
        GraphError: `error` is true, and something came to nothing.

    >>> with detect_anomaly() as found:
    ...     pass  # loss.backward(); optimizer.step()
    >>> found.anomalies
    []
    """

    def __init__(self, *, error: bool = False) -> None:
        self.error = error
        self.anomalies: list[str] = []
        self._trained: dict[str, None] = {}
        self._held_out: dict[str, None] = {}
        self._tokens: list[Token[detect_anomaly | None]] = []

    def __enter__(self) -> "detect_anomaly":
        self._tokens.append(_detector.set(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _detector.reset(self._tokens.pop())

    def say(self, message: str) -> None:
        """Warn, or raise, unless the same message was given before.

        Raises:
            GraphError: The block was entered with `error=True`.
        """
        if message in self.anomalies:
            return
        self.anomalies.append(message)
        if self.error:
            raise GraphError(f"detect_anomaly: {message}")
        warn(message, AnomalyWarning)

    # -- backward -------------------------------------------------------------------------------------------------

    def before_backward(self, rows: "Sequence[LossRow]") -> None:
        """Check what was recorded, before it is freed."""
        self._overlap(rows, self._trained, self._held_out)
        for row in rows:
            for node in () if row.tape is None else row.tape.nodes:
                for read in node.reads:
                    if isinstance(read.value, str):
                        self._placeholders(read.value, node.name_of(read), is_input=False)
                for field, value in node.inputs.items():
                    if isinstance(value, str) and not _given(value, row):
                        self._placeholders(value, f"the input {field!r} of {node.path}", is_input=True)

    def after_backward(self, rows: "Sequence[LossRow]", report: "BackwardReport", never: Sequence[str]) -> None:
        """Check what the pass found; `never` names the parameters that no failed forward read."""
        for name in never:
            self.say(
                f"{name} requires a gradient, and none of the {report.failed} failed "
                "forwards read it: its module was not called, or was called where nothing is recorded (under no_grad, "
                "or in a bare thread; promptgrad.Executor carries the context). Call it, or freeze it "
                "with .requires_grad_(False)"
            )
        cuts = _Cuts(row for row in rows if row.failed)
        for name in report.unreached:
            if name in cuts.readers or name not in never:
                self.say(f"{name} was read and got no gradient: {cuts.above(name) or _where_it_broke(name, report)}")
        self._sameness(report)

    def _sameness(self, report: "BackwardReport") -> None:
        texts_of: dict[str, list[str]] = {}
        for critique in (critique for several in report.critiques.values() for critique in several):
            if critique.target_kind != "input":
                name = f"{critique.path}.{critique.target}".removeprefix(".")
                texts_of.setdefault(name, []).append(" ".join(critique.text.split()))
        for name, texts in texts_of.items():
            if len(texts) > 2 and len(dict.fromkeys(texts)) == 1:
                self.say(
                    f"all {len(texts)} critiques of {name} are the same, {texts[0][:80]!r}: they say nothing about "
                    "single examples. Let the metric return Score(value, feedback=...) that does, or a stronger critic"
                )
        owners: dict[tuple[str, ...], list[str]] = {}
        for name, texts in texts_of.items():
            owners.setdefault(tuple(texts), []).append(name)
        for gradient, names in owners.items():
            if len(names) > 1:
                self.say(
                    f"{_listed(names)} have identical gradients, {gradient[0][:80]!r}: the critic does not divide the "
                    "blame between them. Use a stronger critic, or train one of them at a time"
                )

    def _placeholders(self, text: str, what: str, *, is_input: bool) -> None:
        names = list(dict.fromkeys(_PLACEHOLDER.findall(text)))
        if names:
            shown = _listed([f"{{{name}}}" for name in names])
            do = (
                "an instruction is not a template: inputs are shown by their fields. Remove it, or double the braces"
                if not is_input
                else "an f-string without its f, or a format() that was not called"
            )
            self.say(f"{what} holds {shown}, which nothing filled: {do}")

    # -- steps and data -------------------------------------------------------------------------------------------

    def after_step(self, changes: Iterable[tuple[str, bool, str]]) -> None:
        """Check what a step did: for each parameter its name, whether its value changed, and why not."""
        results = list(changes)
        if results and not any(changed for _, changed, _ in results):
            reasons = "; ".join(f"{name}: {reason or 'the same value again'}" for name, _, reason in results[:_MOST])
            self.say(
                f"the step changed nothing ({reasons}). Call backward() on a loss with failures before it, and look at "
                "max_edit and the constraints where proposals are rejected"
            )

    def held_out(self, rows: "Sequence[LossRow]") -> None:
        """Note examples that a loss measures without a gradient."""
        self._overlap(rows, self._held_out, self._trained)

    def _overlap(self, rows: "Sequence[LossRow]", mine: dict[str, None], others: dict[str, None]) -> None:
        ids = [row.example_id for row in rows if row.example_id]
        shared = [identity for identity in dict.fromkeys(ids) if identity in others and identity not in mine]
        mine.update(dict.fromkeys(ids))
        if shared:
            self.say(
                f"{len(shared)} examples are both trained on and measured on without gradient (ids {_listed(shared)}): "
                "the score flatters the program. Keep them apart with promptgrad.data.split"
            )


def _given(value: str, row: "LossRow") -> bool:
    """Whether a text is part of the inputs that the user gave to the forward."""
    given: Iterable[Any] = () if row.tape is None else row.tape.inputs.values()
    return any(isinstance(item, str) and item != "" and item in value for item in given)


class _Cuts:
    """The places where the program detached outputs of calls from the graph.

    Args:
        rows: The failed rows.

    Attributes:
        readers: The calls that read a parameter, by its name in the report.
    """

    def __init__(self, rows: "Iterable[LossRow]") -> None:
        self.readers: dict[str, list[Node]] = {}
        walk = Walk()
        detached: dict[GradFn, None] = {}
        for row in rows:
            if row.node is not None:
                walk.add([row.node])
            elif row.error is None:
                walk.add_output(row.tape, row.output)
            for node in () if row.tape is None else row.tape.nodes:
                for read in node.reads:
                    self.readers.setdefault(node.name_of(read), []).append(node)
            for _, fn in () if row.tape is None else row.tape.detached:
                detached.update(dict.fromkeys(() if fn is None else joined_sources(fn)))
        self._followed = dict.fromkeys(walk.vertices())
        self._detached = [fn for fn in detached if isinstance(fn, Node) and fn not in self._followed]

    def above(self, name: str) -> str:
        """How the calls that read a parameter were cut off; empty where they were not."""
        readers = self.readers.get(name, [])
        if not readers or any(node in self._followed for node in readers):
            return ""
        for node in self._detached:
            place = f"{node.path}[{node.index}]"
            if node in readers:
                return (
                    f"the text of {place} was detached, and no other edge leaves it. If it should be blamed, "
                    "do not detach it, or freeze the parameter with .requires_grad_(False)"
                )
        for node in self._detached:
            before = Walk()
            before.add([node])
            known = dict.fromkeys(before.vertices())
            if any(reader in known for reader in readers):
                return (
                    f"the path from it ends at {node.path}[{node.index}], whose text was detached. If anything before "
                    "that should be blamed, do not detach it, or freeze the parameter with .requires_grad_(False)"
                )
        return ""


def _where_it_broke(name: str, report: "BackwardReport") -> str:
    module = name.rpartition(".")[0]
    for skip in report.skipped:
        if skip.path == module:
            return f"{skip.path}[{skip.index}] got no critique, since {skip.reason}"
    if report.skipped:
        skip = report.skipped[0]
        place = f" at {skip.path}[{skip.index}]" if skip.path else " in a forward"
        return f"the path to it may break{place}, where {skip.reason}"
    blamed = list(dict.fromkeys(critique.path for several in report.critiques.values() for critique in several))
    if module in blamed:
        return f"the critic blames other things at {module}, but not this. If that is right, freeze it"
    if blamed:
        return (
            f"the path to it breaks at {_listed(blamed)}: the critic blames nothing upstream of there. If that is "
            "wrong, let the metric's feedback say which part is, or use a stronger critic"
        )
    return "the critic blames nothing. Let the metric's feedback say which part is wrong, or use a stronger critic"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more
