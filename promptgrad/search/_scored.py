"""What the runs of a candidate say of it: its measurement, from the cells of an evaluation."""

from collections.abc import Sequence

from promptgrad.data import Example
from promptgrad.errors import MetricError, is_outage
from promptgrad.run import Cell
from promptgrad.search._candidate import Candidate, Measured


def measurement(candidate: Candidate, examples: Sequence[Example], cells: Sequence[Cell], scope: str) -> Measured:
    """The measurement of a candidate.

    Args:
        candidate: The candidate.
        examples: What it was run on.
        cells: What came of it, in the same order.
        scope: Where in the run it was measured.

    Raises:
        MetricError: The metric raised on every example.
    """
    failures = [cell.error for cell in cells if cell.error is not None]
    if failures and all(isinstance(cell.error, MetricError) for cell in cells):
        raise failures[0]
    known = {example.id: cell for example, cell in zip(examples, cells, strict=True)}
    ids = tuple(example.id for example in examples)
    found = [known[key] for key in ids]
    return Measured(
        candidate,
        ids,
        tuple(score_of(cell) for cell in found),
        len(failures),
        scope,
        failures[0] if failures else None,
        {
            name: tuple(cell.parts.get(name) for cell in found)
            for name in dict.fromkeys(name for cell in found for name in cell.parts)
        },
        tuple(cell.feedback for cell in found),
        tuple(cell.output for cell in found),
    )


def score_of(cell: Cell) -> float | None:
    """The score of a run: 0 where the program failed, None where a language model gave no answer."""
    if is_outage(cell.error):
        return None
    return float(cell.score) if cell.error is None else 0.0
