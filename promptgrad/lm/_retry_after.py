"""`read_retry_after` and `said_wait`: the time that a server asks to wait, in its headers or in words."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from promptgrad._patterns import late_pattern

_HOURS_TO_SECONDS = (
    r"(?:(?P<h>\d{1,4})\s?h(?:ours?|rs?)?(?![a-z])\s*)?(?:(?P<m>\d{1,5})\s?m(?:in(?:utes?)?)?(?![a-z])\s*)?"
    r"(?:(?P<s>\d{1,9}(?:\.\d{1,9})?)\s?(?P<unit>ms|milliseconds?|s(?:ec(?:onds?)?)?)\b)?"
)
_DURATION = late_pattern(_HOURS_TO_SECONDS, re.IGNORECASE)
_UNIX_TIME = 1e9
"""A wait of more seconds is a moment since 1970."""
_SAID = late_pattern(
    r"(?:(?:try again|retry|wait)\s+(?:(?:after|in|for)\s+)?|(?:available|reset\w*)\s+(?:after|in)\s+)(?:about\s+)?"
    rf"{_HOURS_TO_SECONDS}"
    r"|\"retrydelay\"\s*:\s*\"(?P<delay>\d{1,9}(?:\.\d{1,9})?)s\"",
    re.IGNORECASE,
)


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Read the time that headers ask to wait: seconds, a duration ("1m30s"), milliseconds, a date or a Unix time."""
    value = (headers.get("Retry-After") or headers.get("retry-after") or "").strip()
    milliseconds = headers.get("retry-after-ms") or headers.get("x-ms-retry-after-ms")
    if milliseconds:
        try:
            return _seconds(float(milliseconds) / 1000)
        except ValueError:
            return _seconds_until(value)
    try:
        seconds = float(value) if value else None
    except ValueError:
        said = _DURATION.fullmatch(value)
        return _seconds_until(value) if said is None or not said[0] else _length(said)
    return None if seconds is None else _seconds(seconds - time.time() if seconds > _UNIX_TIME else seconds)


def said_wait(text: str) -> float | None:
    """Read the wait that a message asks for, such as "Please try again in 6m0.5s", or Google's `retryDelay`."""
    for found in _SAID.finditer(text):
        if found["delay"]:
            return float(found["delay"])
        if found["h"] or found["m"] or found["s"]:
            return _length(found)
    return None


def _length(found: re.Match[str]) -> float:
    """The seconds of hours, minutes and seconds."""
    seconds = float(found["s"] or 0)
    if (found["unit"] or "").lower().startswith("m"):
        seconds /= 1000
    return int(found["h"] or 0) * 3600 + int(found["m"] or 0) * 60 + seconds


def _seconds(value: float) -> float | None:
    return None if value != value else max(0.0, value)


def _seconds_until(date: str) -> float | None:
    from datetime import datetime, timezone  # seldom needed, and slow to import
    from email.utils import parsedate_to_datetime

    try:
        iso = date[:4].isdigit()
        when = datetime.fromisoformat(date.replace("Z", "+00:00")) if iso else parsedate_to_datetime(date)
        if when.tzinfo is None:
            when = when.replace(tzinfo=timezone.utc)
        return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
