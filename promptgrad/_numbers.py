"""Checks of numeric arguments: what is no number says so by name, before anything is done with it."""

import math
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
        check_count(name, value, least)


def check_count(name: str, value: Any, least: int = 1, what: str = "") -> Any:
    """Check one whole number, and return it.

    Args:
        name: The argument's name.
        value: Its value.
        least: The least allowed value.
        what: What the number is of, for the message: "a number of rollouts".

    Raises:
        TypeError: It is not a whole number.
        ValueError: It is too small.
    """
    if not is_number(value, whole=True):
        raise TypeError(f"{name} is {what or 'a whole number'}, not {value!r}")
    if value < least:
        raise ValueError(f"{name} is {what and what + ' and '}at least {least}, not {value}")
    return value


def optional_count(name: str, value: Any, least: int = 1, what: str = "") -> Any:
    """Check one whole number, or None for no number at all, as `check_count`, and return it."""
    return None if value is None else check_count(name, value, least, what)


def check_number(name: str, value: Any, *, least: float | None = None, above: float | None = None) -> Any:
    """Check one number, which may be infinite and is no NaN, and return it.

    Args:
        name: The argument's name.
        value: Its value.
        least: The least allowed value.
        above: What it has to be greater than.

    Raises:
        TypeError: It is not a number.
        ValueError: It is NaN, or too small.
    """
    if not is_number(value):
        raise TypeError(f"{name} is a number, not {value!r}")
    if math.isnan(value) or (least is not None and value < least) or (above is not None and value <= above):
        bound = "" if least is None else f" of at least {least:g}"
        bound = bound if above is None else f" above {above:g}"
        raise ValueError(f"{name} is a number{bound}, not {value!r}")
    return value
