"""`Postings`: which passages have which words, and how often; and the scores of BM25 that follow from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int32]
    Counts = NDArray[np.uint16]
    Starts = NDArray[np.int64]
    Floats = NDArray[np.float32]

_AT_ONCE = 1 << 20  # postings that are looked at together
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

        starts = np.zeros(words + 1, dtype=np.int64)
        for part in parts:
            starts[1 : len(part.starts)] += np.diff(part.starts)
        np.cumsum(starts, out=starts)
        heads = starts[:-1].copy()  # where the next posting of each word goes
        places = np.empty(int(starts[-1]), dtype=np.int32)
        counts = np.empty(int(starts[-1]), dtype=np.uint16)
        begin = 0
        for part in parts:
            size = np.diff(part.starts)
            for words_here, here in part._pieces():
                moved = heads[words_here] - part.starts[:-1][words_here]
                goes = np.repeat(moved, size[words_here]) + np.arange(here.start, here.stop)
                places[goes] = part.places[here] + np.int32(begin)
                counts[goes] = part.counts[here]
            heads[: len(size)] += size
            begin += len(part.lengths)
        return cls(starts, places, counts, np.concatenate([part.lengths for part in parts]))

    def scores(self, k1: float, b: float) -> Floats:
        """What each posting adds to the score of its passage, by the formula of Lucene.

        Cost: about 10 ns a posting.
        """
        import numpy as np

        found = np.diff(self.starts)
        rarity = _rarity(found, len(self.lengths))
        saturation = _saturation(self.lengths, self.lengths, k1, b)
        scores = np.empty(len(self.places), dtype=np.float32)
        for words_here, here in self._pieces():
            counts = self.counts[here].astype(np.float32)
            share = counts / (counts + saturation[self.places[here]])
            scores[here] = share * np.repeat(rarity[words_here], found[words_here])
        return scores

    def range(self, word: int) -> slice:
        """Where the postings of a word stand; nothing, for a word that came later."""
        return slice(int(self.starts[word]), int(self.starts[word + 1])) if word < len(self.starts) - 1 else slice(0, 0)

    def _pieces(self) -> Iterator[tuple[slice, slice]]:
        """All words in pieces: the words of each, and their postings, so many that what is computed stays small."""
        import numpy as np

        known, word = len(self.starts) - 1, 0
        while word < known:
            end = int(np.searchsorted(self.starts, self.starts[word] + _AT_ONCE, side="right")) - 1
            end = min(max(end, word + 1), known)
            yield slice(word, end), slice(int(self.starts[word]), int(self.starts[end]))
            word = end


class Unjoined:
    """The scores of several parts, computed for the words of a query alone: for an index to which little was added.

    Cost: in making, some ns a passage; then about 10 ns for each posting of the words of a query.

    Args:
        parts: The postings, whose passages follow one another.
        k1: As in `Postings.scores`.
        b: As there.
    """

    def __init__(self, parts: Sequence[Postings], k1: float, b: float) -> None:
        import numpy as np

        self.words = max(len(part.starts) for part in parts) - 1
        lengths = np.concatenate([part.lengths for part in parts])
        self._number = len(lengths)
        self._parts = [(part, _saturation(part.lengths, lengths, k1, b)) for part in parts]

    def get_scores_from_ids(self, words: Sequence[int]) -> Floats:
        """The score of each passage for these words, as bm25s has it."""
        import numpy as np

        ranges = [[part.range(word) for part, _ in self._parts] for word in words]
        found = np.array([sum(here.stop - here.start for here in pieces) for pieces in ranges])
        scores = np.zeros(self._number, dtype=np.float32)
        for pieces, rare in zip(ranges, _rarity(found, self._number), strict=True):
            begin = 0
            for (part, saturation), here in zip(self._parts, pieces, strict=True):
                places, counts = part.places[here], part.counts[here].astype(np.float32)
                scores[begin : begin + len(part.lengths)][places] += counts / (counts + saturation[places]) * rare
                begin += len(part.lengths)
        return scores


def _rarity(found: Starts, number: int) -> Floats:
    """What a word counts that `found` of `number` passages have."""
    import numpy as np

    return np.log1p((number - found + 0.5) / (found + 0.5)).astype(np.float32)


def _saturation(lengths: Ints, all_lengths: Ints, k1: float, b: float) -> Floats:
    """How often each passage has to have a word for half of what the word counts."""
    import numpy as np

    mean = max(float(all_lengths.mean()), 1e-9) if len(all_lengths) else 1.0
    return (k1 * (1 - b + b * lengths / mean)).astype(np.float32)
