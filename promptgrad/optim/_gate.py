"""The gate of a step: the proposal meets the current values on the same rows, and must be better beyond doubt."""

from collections.abc import Iterator, Sequence

from promptgrad.autograd import Loss, LossRow
from promptgrad.autograd._sample import example_id
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
    """The scores of two losses over the same samples.

    A sample whose program failed counts as the score 0; one where a language model gave no answer (which says
    nothing about the program) leaves the comparison. In a sum of losses a sample's score is the weighted sum of what
    they say of its output; losses about single calls do not count.

    Raises:
        ValueError: The losses are not over the same examples.
    """
    old, new = _samples(before), _samples(after)
    if list(old) != list(new):
        raise ValueError(
            "the closure returned a loss over other examples than before: "
            "it must run the same batch in the same order each time it is called"
        )
    pairs = zip(old.values(), new.values(), strict=True)
    kept = [(one, two) for one, two in pairs if one is not None and two is not None]
    return [one for one, _ in kept], [two for _, two in kept]


def best_of(loss: Loss) -> float:
    """The range of a sample's score."""
    bests: dict[Key, float] = {}
    for scale, key, row in _judged(loss):
        bests[key] = bests.get(key, 0.0) + abs(scale) * row.best
    return max(bests.values(), default=1.0)


Key = tuple[str, int, int]
"""What tells one sample from another: its example, the rollout, and which of several alike."""


def _judged(loss: Loss) -> Iterator[tuple[float, Key, LossRow]]:
    for scale, rows, _ in loss._terms:
        count: dict[tuple[str, int], int] = {}
        for row in rows:
            if row.node is None:
                key = (example_id(row.example), row.replicate)
                count[key] = count.get(key, -1) + 1
                yield scale, (*key, count[key]), row


def _samples(loss: Loss) -> dict[Key, float | None]:
    scores: dict[Key, float | None] = {}
    for scale, key, row in _judged(loss):
        so_far, score = scores.get(key, 0.0), _score(row)
        scores[key] = None if so_far is None or score is None else so_far + scale * score
    return scores


def _score(row: LossRow) -> float | None:
    if row.error is None:
        return float(row.score)
    return None if is_outage(row.error) else 0.0
