"""The gate of a step: the proposal meets the current values on the same rows, and must be better beyond doubt."""

from collections.abc import Sequence

from promptgrad.autograd import Loss, LossRow
from promptgrad.autograd._engine import example_id
from promptgrad.evaluation import paired_interval
from promptgrad.optim._outage import is_outage
from promptgrad.optim._report import Verdict


def judge(
    before: Sequence[float],
    after: Sequence[float],
    *,
    confidence: float,
    seed: int,
    best: float = 1.0,
    exact: bool = False,
) -> Verdict:
    """Compare paired scores: accept if the one-sided lower bound of the mean difference lies above zero.

    Args:
        before: Scores of the current values.
        after: Scores of the proposal on the same examples, in the same order.
        confidence: Coverage of the one-sided bound, in [0.5, 1).
        seed: Seed of the bootstrap.
        best: The best score that there is.
        exact: Whether the rows are all that counts, and not a sample of what the values will meet.
    """
    pairs = len(before)
    if pairs == 0:
        return Verdict(reason="no row could be compared", confidence=confidence)
    first, second = sum(before) / pairs, sum(after) / pairs
    if exact:
        low = high = second - first
    else:
        low, high = paired_interval(before, after, seed=seed, level=2 * confidence - 1, best=best)
    if second <= first:
        reason = "not better than the current values"
    elif exact:
        reason = "better on all that it is measured by"
    elif low <= 0:
        reason = f"better, but not beyond doubt: the {confidence:.0%} lower bound is {low:+.3f}"
    else:
        reason = f"better: the {confidence:.0%} lower bound is {low:+.3f}"
    return Verdict(
        accepted=low > 0 and second > first,
        before=first,
        after=second,
        low=low,
        high=high,
        pairs=pairs,
        confidence=confidence,
        reason=reason,
    )


def paired_rows(before: Loss, after: Loss) -> tuple[list[float], list[float]]:
    """The scores of two losses over the same rows.

    A row whose program failed counts as the score 0; a row where a language model gave no answer (which says
    nothing about the program) leaves the comparison.

    Raises:
        ValueError: The losses are not over the same examples.
    """
    old_rows, new_rows = list(before.rows), list(after.rows)
    if [_key(row) for row in old_rows] != [_key(row) for row in new_rows]:
        raise ValueError(
            "the closure returned a loss over other examples than before: "
            "it must run the same batch in the same order each time it is called"
        )
    pairs = [(_score(old), _score(new)) for old, new in zip(old_rows, new_rows, strict=True)]
    kept = [(old, new) for old, new in pairs if old is not None and new is not None]
    return [old for old, _ in kept], [new for _, new in kept]


def _key(row: LossRow) -> tuple[str, int]:
    return (example_id(row.example), row.replicate)


def _score(row: LossRow) -> float | None:
    if row.error is None:
        return float(row.score)
    return None if is_outage(row.error) else 0.0
