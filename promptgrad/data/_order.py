"""Seeded orders."""

import hashlib
import random
from collections.abc import Iterable


def shuffled(indices: Iterable[int], seed: int, *path: str | int) -> list[int]:
    """The indices in an order that depends on the seed and the path alone."""
    digest = hashlib.blake2b(repr((seed, *path)).encode(), digest_size=8).digest()
    order = list(indices)
    random.Random(int.from_bytes(digest, "big")).shuffle(order)
    return order
