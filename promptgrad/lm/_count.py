"""`read_count`: a number of tokens as a server reports it."""

from __future__ import annotations

MOST = 10**9


def read_count(value: object) -> int | None:
    """Return the number of tokens; None where it is none that a call can have, so that it is estimated."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST else None
