"""The one seed a process falls back on where none was passed."""

from __future__ import annotations

from operator import index

_default = 0


def manual_seed(seed: int) -> None:
    """Set the seed that is used wherever no `seed=` is passed, for the whole process.

    It is 0 until this is called, so programs are repeatable without it. A `seed=` passed to a
    loader, split, evaluation or trainer always wins. The language model's own sampling is not
    touched: pass `seed=` in its options, or use temperature 0.

    Cost: no LM call.

    Raises:
        TypeError: `seed` is not an int.
    """
    global _default
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"manual_seed takes an int, not {seed!r}")
    _default = seed


def seed_or_default(seed: int | None) -> int:
    """Return `seed`, or the process default where it is None.

    Raises:
        TypeError: `seed` is not an int.
    """
    if seed is None:
        return _default
    try:
        return index(None if isinstance(seed, bool) else seed)  # type: ignore[arg-type]  # of numpy too
    except TypeError:
        raise TypeError(f"seed is an int, or None for that of manual_seed, not {seed!r}") from None
