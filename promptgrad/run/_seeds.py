"""A tree of seeds: every part of a run draws from a seed of its own, whatever the others draw in whatever order."""

import hashlib
import json
import random


def spawn(seed: int, *path: str | int) -> int:
    """The seed of one branch: a 63-bit number that depends on `seed` and on every step of `path`, and nothing else.

    >>> spawn(0, "trial", 3) == spawn(0, "trial", 3), spawn(0, "trial", 3) == spawn(0, "trial", 4)
    (True, False)
    """
    text = json.dumps([seed, *path], separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def rng(seed: int, *path: str | int) -> random.Random:
    """A generator of random numbers of its own for one branch of the seed tree."""
    return random.Random(spawn(seed, *path))
