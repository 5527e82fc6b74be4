"""`once`: the object of JSON in which no key stands twice with different values."""

from typing import Any


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make the dict of an object, for `object_pairs_hook`.

    Raises:
        ValueError: A key comes twice, with different values: one of them would have to be guessed.
    """
    made = dict(pairs)
    for key, value in pairs if len(made) != len(pairs) else ():
        if made[key] != value:
            raise ValueError(f"the key {key!r} comes twice, with different values")
    return made
