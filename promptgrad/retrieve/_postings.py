"""`Postings`: which passages have which words, and how often; and the scores of BM25 that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int32]
    Counts = NDArray[np.uint16]
    Starts = NDArray[np.int64]
    Floats = NDArray[np.float32]

_AT_ONCE = 1 << 22  # postings that are scored at once
_MOST = 65_535


@dataclass(frozen=True)
class Postings:
    """The passages of each word, in their order; those of word `w` stand from `starts[w]` up to `starts[w + 1]`.

    Attributes:
        starts: Where the postings of each word begin, and the number of all.
        places: The passage of each posting.
        counts: How often it has the word; at most 65,535.
        lengths: Words of each passage.
    """

    starts: Starts
    places: Ints
    counts: Counts
    lengths: Ints

    @classmethod
    def of(cls, tokens: Ints, lengths: Ints, words: int) -> Postings:
        """Of passages that are given as one row of numbers of words, and the number of words of each passage."""
        import numpy as np

        places = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
        keys, counts = np.unique((tokens.astype(np.int64) << 32) | places, return_counts=True)
        starts = np.zeros(words + 1, dtype=np.int64)
        np.cumsum(np.bincount(keys >> 32, minlength=words), out=starts[1:])
        found = np.minimum(counts, _MOST).astype(np.uint16)
        return cls(starts, (keys & 0xFFFFFFFF).astype(np.int32), found, lengths)

    @classmethod
    def joined(cls, parts: Sequence[Postings], words: int) -> Postings:
        """The postings of all parts, whose passages follow one another; nothing is sorted.

        Cost: time and memory in proportion to all postings.
        """
        import numpy as np

        sizes = np.zeros((len(parts), words), dtype=np.int64)
        for number, part in enumerate(parts):
            sizes[number, : len(part.starts) - 1] = np.diff(part.starts)
        starts = np.zeros(words + 1, dtype=np.int64)
        np.cumsum(sizes.sum(axis=0), out=starts[1:])
        heads = starts[:-1].copy()  # where the next posting of each word goes
        places = np.empty(int(starts[-1]), dtype=np.int32)
        counts = np.empty(int(starts[-1]), dtype=np.uint16)
        begin = 0
        for part, size in zip(parts, sizes, strict=True):
            known = len(part.starts) - 1
            goes = np.repeat(heads[:known] - part.starts[:-1], size[:known]) + np.arange(len(part.places))
            places[goes] = part.places + np.int32(begin)
            counts[goes] = part.counts
            heads += size
            begin += len(part.lengths)
        return cls(starts, places, counts, np.concatenate([part.lengths for part in parts]))

    def scores(self, k1: float, b: float) -> Floats:
        """What each posting adds to the score of its passage, by the formula of Lucene.

        Cost: about 10 ns a posting.
        """
        import numpy as np

        number = len(self.lengths)
        found = np.diff(self.starts)
        rarity = np.log1p((number - found + 0.5) / (found + 0.5))
        mean = max(float(self.lengths.mean()), 1e-9) if number else 1.0
        saturation = (k1 * (1 - b + b * self.lengths / mean)).astype(np.float32)
        scores = np.empty(len(self.places), dtype=np.float32)
        word = 0
        while word < len(found):
            end = int(np.searchsorted(self.starts, self.starts[word] + _AT_ONCE, side="right")) - 1
            end = min(max(end, word + 1), len(found))
            here = slice(int(self.starts[word]), int(self.starts[end]))
            counts = self.counts[here].astype(np.float32)
            share = counts / (counts + saturation[self.places[here]])
            scores[here] = share * np.repeat(rarity[word:end].astype(np.float32), found[word:end])
            word = end
        return scores
