"""Pairs of replies to the same prompt, of which one is preferred, from better and worse runs of one example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from promptgrad import aio, lm
from promptgrad._numbers import check_count
from promptgrad.autograd import LossRow, Node
from promptgrad.data import Example
from promptgrad.finetune._conversation import Preference
from promptgrad.finetune._records import DUPLICATE, Records
from promptgrad.finetune._sample import FAILED, arollouts, no_text
from promptgrad.nn import Module, Predict

ALIKE = "example whose runs score alike"
_APART = "pair of runs without a reply to the same prompt at which they part"


@dataclass(frozen=True)
class Preferences(Records[Preference]):
    """The pairs of some runs, or of a file; `filter`, `dedup`, `limit` and `save` are theirs.

    Attributes:
        samples: The pairs, in the order of the data.
        runs: How many runs there were.
        alike: How many examples gave no pair because no two of their runs differ in score.
        errors: How many runs failed.
        dropped: How many runs, examples, pairs or lines were left out, by reason.
    """

    samples: tuple[Preference, ...]
    runs: int
    alike: int
    errors: int
    dropped: Mapping[str, int] = field(default_factory=dict, hash=False)
    _known: ClassVar[tuple[str, ...]] = (FAILED, ALIKE)

    def nothing(self) -> str:
        """Why there may be nothing to learn, and what to do about it."""
        failed = f", {self.errors} failed" if self.errors else ""
        lost = f"; left out: {lost}" if (lost := self.lost(known=False)) else ""
        return (
            f"of {self.runs} runs{failed} no two of one example differ in score by the reply of a module on the local "
            f"model ({self.alike} examples have equal scores{lost}). Let the model sample (temperature=1.0), take more "
            "runs n= of each example, or a metric with more than two values"
        )

    def __repr__(self) -> str:
        lost = f"; left out: {lost}" if (lost := self.lost(known=False)) else ""
        return f"Preferences({len(self.samples)} pairs of {self.runs} runs, {self.errors} errors{lost})"


async def acollect_preferences(
    program: Module,
    data: Iterable[Example],
    metric: Any,
    *,
    n: int = 4,
    concurrency: int | None = None,
    progress: bool = False,
) -> Preferences:
    """Run a program several times on each example, and pair better with worse replies to the same prompt.

    The best run is paired with the worst, the second best with the second worst, and so on while their scores differ.
    Of a pair of runs the first call counts in which a module was sent the same messages and replied otherwise: up to
    there both runs are the same, so that reply decided. What came after it had other prompts and is left out. Equal
    pairs count once.

    Cost: `n` runs for each example.

    Args:
        program: The program; its LM has to sample.
        data: Examples.
        metric: Scores the runs. A run that failed is worse than any other, if its reply could be recorded.
        n: Runs for each example.
        concurrency: Runs in flight.
        progress: Show a bar.

    Raises:
        DataError: There is no example.
        MetricError: The metric failed on every run.
        ValueError: `n` is below 2.
    """
    check_count("n", n, 2, "a number of runs of an example, of which a pair needs two,")
    rows = await arollouts(program, data, metric, n, concurrency=concurrency, progress=progress)
    of_example = [rows[start : start + n] for start in range(0, len(rows), n)]
    made: dict[Preference, None] = {}
    dropped: Counter[str] = Counter()
    for group in of_example:
        ranked = sorted((row for row in group if row.error is None), key=lambda row: -row.score)
        dropped[ALIKE] += len({row.score for row in ranked}) < 2
        for better, worse in zip(ranked[: n // 2], ranked[::-1], strict=False):
            if better.score > worse.score:
                fork = _first_fork(program, better, worse)
                if isinstance(fork, str) or fork in made:
                    dropped[fork if isinstance(fork, str) else DUPLICATE] += 1
                else:
                    made[fork] = None
    dropped[FAILED] = sum(row.error is not None for row in rows)
    return Preferences(tuple(made), len(rows), dropped[ALIKE], dropped[FAILED], dict(+dropped))


collect_preferences = aio.blocking(acollect_preferences)


def _first_fork(program: Module, better: LossRow, worse: LossRow) -> Preference | str:
    """The first call at which two runs went different ways though their prompts were the same; else why there is none.

    A reply that is a call of tools is no text, so that two of them cannot be a pair.
    """
    ours, theirs = (_calls(program, row) for row in (better, worse))
    for one, other in zip(ours, theirs, strict=False):
        if one.path != other.path or one.messages != other.messages:
            break
        if one.reply != other.reply:
            example_id = better.example.id if isinstance(better.example, Example) else ""
            return Preference(lm.unmarked(one.messages), str(one.reply), str(other.reply), one.path, example_id)
        module = program.get_submodule(one.path)
        if one.outputs != other.outputs and isinstance(module, Predict) and (reason := no_text(module)):
            return reason
    return _APART


def _calls(program: Module, row: LossRow) -> list[Node]:
    nodes = row.tape.nodes if row.tape is not None else ()
    return [
        node
        for node in nodes
        if node.kind == "lm" and node.reply is not None and isinstance(program.get_submodule(node.path), Predict)
    ]
