"""Seeded noise: the same parts give the same number in every process."""

import math
from hashlib import blake2b


def uniform(*parts: object) -> float:
    """A number in (0, 1) drawn by the parts."""
    digest = blake2b("\x1f".join(map(str, parts)).encode(), digest_size=7).digest()
    return (int.from_bytes(digest, "big") + 0.5) / 2.0**56


def pick(count: int, *parts: object) -> int:
    """A number from 0 to count - 1 drawn by the parts."""
    return int(uniform(*parts) * count)


def gumbel(*parts: object) -> float:
    """A draw from the Gumbel distribution: added to scores, the largest is a draw from their softmax."""
    return -math.log(-math.log(uniform(*parts)))


def digest(*parts: object) -> str:
    """A short name for the parts."""
    return blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).hexdigest()
