"""The longest silence of a server that an LM waits through: its default, and the check of a given one."""

from __future__ import annotations

SILENCE = 600.0
"""Default for the longest silence of a server, in seconds; a model that thinks is silent for minutes."""


def check_silence(timeout: object) -> float:
    """The longest silence in seconds; None is the default, as in other libraries.

    Raises:
        TypeError: It is no number.
        ValueError: It is not above 0.
    """
    if timeout is None:
        return SILENCE
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout is a number of seconds, the longest silence, not {type(timeout).__name__}")
    if not 0 < timeout < float("inf"):
        raise ValueError(f"timeout is a number of seconds above 0, not {timeout}")
    return float(timeout)
