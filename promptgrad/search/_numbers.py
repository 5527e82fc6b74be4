"""Checks of numeric arguments."""

from numbers import Integral, Real
from typing import Any


def is_number(value: Any, *, whole: bool = False) -> bool:
    """True for a number of Python or numpy, other than a bool."""
    return isinstance(value, Integral if whole else Real) and not isinstance(value, bool)


def check_counts(**counts: tuple[Any, int]) -> None:
    """Check whole numbers, each given with its least allowed value: `check_counts(steps=(steps, 1))`.

    Raises:
        TypeError: A value is not a whole number.
        ValueError: A value is too small.
    """
    for name, (value, least) in counts.items():
        if not is_number(value, whole=True):
            raise TypeError(f"{name} is a whole number, not {value!r}")
        if value < least:
            raise ValueError(f"{name} is at least {least}, not {value}")
