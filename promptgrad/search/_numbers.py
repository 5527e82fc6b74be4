"""Checks of the numbers that optimizers are given."""

from numbers import Integral, Real
from typing import Any


def is_number(value: Any, *, whole: bool = False) -> bool:
    """True for a number of Python or of numpy that is no bool."""
    return isinstance(value, Integral if whole else Real) and not isinstance(value, bool)


def check_counts(**counts: tuple[Any, int]) -> None:
    """Check whole numbers, each given with the least it may be: `check_counts(steps=(steps, 1))`.

    Raises:
        TypeError: One is no whole number.
        ValueError: One is too small.
    """
    for name, (value, least) in counts.items():
        if not is_number(value, whole=True):
            raise TypeError(f"{name} is a whole number, not {value!r}")
        if value < least:
            raise ValueError(f"{name} is at least {least}, not {value}")
