"""`read_retry_after`: the time that a server asks to wait."""

from __future__ import annotations

from collections.abc import Mapping


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Read a Retry-After header: milliseconds, seconds or an HTTP date."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("Retry-After")
        return None if value is None else max(0.0, float(value))
    except ValueError:
        return _seconds_until(headers.get("Retry-After", ""))


def _seconds_until(date: str) -> float | None:
    from datetime import datetime, timezone  # seldom needed, and slow to import
    from email.utils import parsedate_to_datetime

    try:
        when = parsedate_to_datetime(date)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())
