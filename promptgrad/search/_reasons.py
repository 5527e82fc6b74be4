"""Explanations in words of why a search, or one of its steps, found nothing."""

import re
from collections.abc import Iterable

from promptgrad.autograd import Loss


def refusals(reasons: Iterable[str]) -> str:
    """Why proposals were refused, the most frequent reason first; reasons that differ only in numbers count as one.

    >>> refusals(["it has 9 tokens, more than max_tokens=8", "it is empty", "it has 12 tokens, more than max_tokens=8"])
    '3 proposals refused: 2x it has 9 tokens, more than max_tokens=8; 1x it is empty'
    """
    alike: dict[str, list[str]] = {}
    for reason in reasons:
        alike.setdefault(re.sub(r"\d+", "0", reason), []).append(reason)
    most = sorted(alike.values(), key=lambda same: -len(same))
    count = sum(map(len, most))
    shown = "; ".join(f"{len(same)}x {same[0]}" for same in most[:3])
    more = f"; {sum(map(len, most[3:]))}x other reasons" if most[3:] else ""
    return f"{count} proposal{'' if count == 1 else 's'} refused: {shown}{more}"


def unblamed(loss: Loss, *, seen: bool = True) -> list[str]:
    """A note that samples failed and no text was blamed, and why, from the loss's report; empty if none failed.

    Args:
        loss: The loss, from which no parameter has a critique.
        seen: Whether there was a backward pass, where the loss has no report of one.
    """
    rows = [row for row in loss.rows if row.error is None]
    failed = sum(1 for row in rows if row.failed)
    if not failed:
        return []
    report = loss.report
    if report is None and seen:
        why = " (of the closure's batch): backward() reached other parameters, and the critic blamed no text or failed"
    elif report is None:
        why = " (of the closure's batch; was backward() called, on a batch with failures?)"
    elif report.skipped:
        calls = f"{len(report.skipped)} call{'' if len(report.skipped) == 1 else 's'}"
        why = f": {calls} got no critique, the first as {report.skipped[0].reason}"
    else:
        why = ": the critic found every instruction right. Take the gradient at an earlier text, or ask another critic"
    return [f"{failed} of {len(rows)} samples failed and nobody was blamed{why}"]
