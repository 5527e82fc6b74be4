"""`Explanation`: a loss in words, and what is blamed for it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from promptgrad.autograd._critique import Critique
from promptgrad.autograd._kind import as_kind
from promptgrad.autograd._loss_row import LossRow

if TYPE_CHECKING:
    from promptgrad.autograd._report import BackwardReport

_SHOWN = 100  # characters of an example or output


class Explanation:
    """A loss in words: what went wrong in each sample, and what backward blames for it. Its `repr` is the text.

    Attributes:
        critiques: What is wrong with which parameter or input, by row; empty before `backward()`.
    """

    def __init__(self, head: str, rows: Sequence[LossRow], report: "BackwardReport | None") -> None:
        self.critiques: Mapping[int, tuple[Critique, ...]] = {} if report is None else report.critiques
        self._text = "\n".join([head, *_lines(rows, report)])

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        import html

        return f"<pre>{html.escape(self._text)}</pre>"


def _lines(rows: Sequence[LossRow], report: "BackwardReport | None") -> Iterator[str]:
    failed = [(number, row) for number, row in enumerate(rows) if row.failed]
    critiques: Mapping[int, tuple[Critique, ...]] = {} if report is None else report.critiques
    for number, row in failed:
        yield f"row {number}: {short(row.example)}"
        if row.error is not None:
            yield f"  failed: {type(row.error).__name__}: {short(str(row.error))}"
        else:
            who = "" if row.node is None else f"{call_name(row.node.path, row.node.index)} "
            yield f"  {who}scored {row.score:g} of {row.best:g} with {short(row.output)}"
        if row.feedback:
            yield f"  feedback: {_indented(row.feedback)}"
        for path, said in row.module_feedback.items():
            texts = [said] if isinstance(said, str) else said
            yield from (f"  feedback for {path or 'program'}: {_indented(text)}" for text in texts if text)
        for critique in critiques.get(number, ()):
            what = f"input {critique.target}" if critique.target_kind == "input" else critique.target
            alone = not critique.path and as_kind(critique.target_kind).exact
            where = "" if alone else f"{call_name(critique.path, critique.index)} "
            yield f"  {where}{what}: {_indented(critique.text)}"
        if report is not None and number not in critiques:
            other = report.together.get(number)
            yield "  nobody is blamed" if other is None else f"  the same forward as row {other}: see there"
    if len(failed) < len(rows):
        rest = len(rows) - len(failed)
        yield f"{rest} of {len(rows)} rows {'has' if rest == 1 else 'have'} the best score"
    if report is None:
        if failed:
            yield "nobody is blamed yet: backward() has not run"
        return
    totals: dict[str, int] = {}
    for critique in (critique for several in critiques.values() for critique in several):
        if critique.target_kind != "input":
            name = critique.parameter or f"{critique.path}.{critique.target}".removeprefix(".")
            totals[name] = totals.get(name, 0) + 1
    for name, times in sorted(totals.items(), key=lambda item: -item[1]):
        yield f"{name}: blamed {times} time{'' if times == 1 else 's'}"
    for remark in report.remarks:
        where = f" (in {len(remark.examples)} samples)" if len(remark.examples) > 1 else ""
        yield f"about {remark.about}{where}: {_indented(remark.text)}"
    for skip in report.skipped:
        yield f"skipped {call_name(skip.path, skip.index)}: {short(skip.reason, 300)}"


def call_name(path: str, index: int) -> str:
    """The name of a call, such as `hops.query[1]`."""
    return f"{path or 'program'}[{index}]"


def short(value: Any, size: int = _SHOWN) -> str:
    """A value in one line."""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(str.__str__(text).split())
    return text if len(text) <= size else text[: size - 3] + "..."


def _indented(text: str) -> str:
    return "\n      ".join(str(text).strip().splitlines())
