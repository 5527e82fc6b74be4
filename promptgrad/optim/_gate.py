"""The gate of a step: it compares a proposal with the current values on the same rows."""

from collections.abc import Iterator, Sequence

from promptgrad.autograd import Loss, LossRow
from promptgrad.errors import BadRequestError, is_outage
from promptgrad.search import Verdict

UNTRIED = "not tried: "
"""Beginning of the reason of a proposal that was not tried because of the rows, not because of its text."""


def judge(
    before: Sequence[float],
    after: Sequence[float],
    *,
    confidence: float,
    seed: int,
    best: float = 1.0,
    exact: bool = False,
    price: float = 0.0,
    of: int = 1,
    dropped: int = 0,
) -> Verdict:
    """Compare paired scores: accept if the one-sided lower bound of the mean difference lies above the price.

    The best of several proposals looks better than it is. So the allowed probability of error is divided by their
    number `of` (Bonferroni): all bounds hold at once with the given confidence, and any proposal that passes may be
    installed.

    Args:
        before: Scores of the current values.
        after: Scores of the proposal on the same examples, in the same order.
        confidence: Coverage of the one-sided bound, in [0.5, 1), for all proposals together.
        seed: Seed of the bootstrap.
        best: The highest possible score.
        exact: True if the rows are the whole population, not a sample.
        price: The score that the proposal must gain to be worth its length.
        of: Number of proposals that are compared with the current values.
        dropped: Number of rows left out of the comparison.
    """
    from promptgrad.evaluation import paired_interval

    pairs = len(before)
    confidence = 1 - (1 - confidence) / of
    if pairs == 0:
        reason = "no row could be compared"
        return Verdict(reason=reason, confidence=confidence, price=price, of=of, dropped=dropped)
    first, second = sum(before) / pairs, sum(after) / pairs
    if exact:
        low = high = second - first
    else:
        low, high = paired_interval(before, after, seed=seed, level=max(2 * confidence - 1, 1e-9), best=best)
    bound = "on all that it is measured by" if exact else f"the {confidence:.0%} lower bound is {low:+.3f}"
    if price:
        bound += f", the price of its length {price:+.3f}"
    if second - first <= price:
        reason = "not better than the current values"
        if second > first:
            reason = f"better, but its length costs more: {price:+.3f} for a gain of {second - first:+.3f}"
        elif price < 0:
            reason = f"shorter, but the score falls by more than that is worth: {bound}"
    else:
        how = "better" if second > first else "worse, but shorter" if second < first else "as good, and shorter"
        reason = f"{how}, but not beyond doubt: {bound}" if low <= price else f"{how}: {bound}"
        if exact and low > price:
            reason = f"{how} {bound}"
    return Verdict(
        accepted=low > price and second - first > price,
        before=first,
        after=second,
        low=low,
        high=high,
        pairs=pairs,
        confidence=confidence,
        reason=reason,
        price=price,
        of=of,
        dropped=dropped,
    )


def hopeless(
    before: Sequence[float], *, confidence: float, seed: int, best: float = 1.0, price: float = 0.0, of: int = 1
) -> str:
    """The reason why no proposal of this price can pass the gate on these rows, however good; empty if one can."""
    if not before:
        return f"{UNTRIED}no row could be compared, as no language model answered"
    settings = {"confidence": confidence, "seed": seed, "best": best, "of": of}
    room = sorted({best - score for score in before if score < best}) or [0.0]
    for most in room[:: max(1, len(room) // 8)] + room[-1:]:  # an even gain is surer than a larger one on few rows
        after = [score + max(0.0, min(most, best - score)) for score in before]
        if judge(before, after, price=price, **settings).accepted:  # type: ignore[arg-type]
            return ""
    if price > 0 and not hopeless(before, price=0.0, **settings):  # type: ignore[arg-type]
        return f"its length costs {price:+.3f}, more than can be shown to be gained on {len(before)} rows"
    if room == [0.0]:
        return (
            f"{UNTRIED}all {len(before)} rows of the closure are right, and nothing can be better. "
            "Let the closure run harder ones, or end the training"
        )
    enough = next((n for n in range(1, 100) if judge([0.0] * n, [best] * n, **settings).accepted), 100)  # type: ignore[arg-type]
    failed = sum(score < best for score in before)
    several = f"{of} proposals" if of > 1 else "one proposal"
    return (
        f"{UNTRIED}no gain on {len(before)} rows ({failed} of them not right) can be beyond doubt: "
        f"of {several} at gate={confidence:g} one must win {enough} rows or more. Let the closure run more"
    )


def most_provable(
    before: Sequence[float],
    most: int,
    *,
    confidence: float,
    seed: int,
    best: float = 1.0,
    exact: bool = False,
    price: float = 0.0,
) -> tuple[int, str]:
    """How many proposals the gate could judge on these rows, at most `most`, and why none where it is 0.

    The more of them there are, the more each has to gain; so where several could not pass, fewer may. Where the rows
    are all there is to judge by (`exact`), any gain passes.
    """
    if exact and any(score < best for score in before):
        return most, ""
    why = ""
    for count in range(most, 0, -1):
        why = hopeless(before, confidence=confidence, seed=seed, best=best, price=price, of=count)
        if not why:
            return count, ""
    return 0, why


def known_scores(loss: Loss) -> list[float]:
    """The scores of a loss's samples, without those where a language model gave no answer."""
    return [score for score in _samples(loss).values() if score is not None]


def paired_rows(before: Loss, after: Loss) -> tuple[list[float], list[float], int]:
    """The scores of two losses over the same samples, and the number of samples left out.

    A sample whose program failed counts as the score 0; one where a language model gave no answer (which is no evidence
    about the program) is left out. In a sum of losses a sample's score is the weighted sum of its scores in them;
    losses about single calls do not count.

    Raises:
        ValueError: The losses are not over the same examples.
    """
    old, new = _samples(before), _samples(after)
    if list(old) != list(new):
        raise ValueError(
            "the closure returned a loss over other examples than before: "
            "it must run the same batch in the same order each time it is called, and loss=, if given, is its loss"
        )
    pairs = zip(old.values(), new.values(), strict=True)
    kept = [(one, two) for one, two in pairs if one is not None and two is not None]
    return [one for one, _ in kept], [two for _, two in kept], len(old) - len(kept)


def best_of(loss: Loss) -> float:
    """The range of a sample's score."""
    bests: dict[Key, float] = {}
    for scale, key, row in _judged(loss):
        bests[key] = bests.get(key, 0.0) + abs(scale) * row.best
    return max(bests.values(), default=1.0)


Key = tuple[str, int, int]
"""Identity of a sample: its example, its rollout, and its number among equal ones."""


def _judged(loss: Loss) -> Iterator[tuple[float, Key, LossRow]]:
    for scale, rows, _ in loss._terms:
        count: dict[tuple[str, int], int] = {}
        for row in rows:
            if row.node is None:
                key = (row.example_id, row.replicate)
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
    untold = is_outage(row.error) or isinstance(row.error, BadRequestError)  # neither says anything of the text
    return None if untold else 0.0
