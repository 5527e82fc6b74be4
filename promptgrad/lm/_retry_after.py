"""`read_retry_after` and `said_wait`: the time that a server asks to wait, in its headers or in words."""

from __future__ import annotations

import re
from collections.abc import Mapping

from promptgrad._patterns import late_pattern

_SAID = late_pattern(
    r"(?:try again|retry|available|reset\w*)\s+(?:after|in)\s+(?:about\s+)?"
    r"(?:(?P<h>\d{1,4})\s?h(?:ours?)?\s*)?(?:(?P<m>\d{1,5})\s?m(?:in(?:utes?)?)?(?![a-z])\s*)?"
    r"(?:(?P<s>\d{1,9}(?:\.\d{1,9})?)\s?(?P<unit>ms|milliseconds?|s(?:ec(?:onds?)?)?)\b)?"
    r"|\"retrydelay\"\s*:\s*\"(?P<delay>\d{1,9}(?:\.\d{1,9})?)s\"",
    re.IGNORECASE,
)


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Read a Retry-After header: milliseconds, seconds or an HTTP date."""
    value = headers.get("Retry-After") or headers.get("retry-after") or ""
    try:
        milliseconds = headers.get("retry-after-ms")
        if milliseconds is not None:
            return _seconds(float(milliseconds) / 1000)
        return _seconds(float(value)) if value else None
    except ValueError:
        return _seconds_until(value)


def said_wait(text: str) -> float | None:
    """Read the wait that a message asks for, such as "Please try again in 6m0.5s", or Google's `retryDelay`."""
    for found in _SAID.finditer(text):
        if found["delay"]:
            return float(found["delay"])
        if found["h"] or found["m"] or found["s"]:
            seconds = float(found["s"] or 0)
            if (found["unit"] or "").lower().startswith("m"):
                seconds /= 1000
            return int(found["h"] or 0) * 3600 + int(found["m"] or 0) * 60 + seconds
    return None


def _seconds(value: float) -> float | None:
    return None if value != value else max(0.0, value)


def _seconds_until(date: str) -> float | None:
    from datetime import datetime, timezone  # seldom needed, and slow to import
    from email.utils import parsedate_to_datetime

    try:
        when = parsedate_to_datetime(date)
        if when.tzinfo is None:
            when = when.replace(tzinfo=timezone.utc)
        return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
