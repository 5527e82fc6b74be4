"""How far one text is from another, in tokens."""

from promptgrad.autograd import tokens


def edit_distance(old: str, new: str) -> int:
    """Fewest tokens to insert, delete or replace to turn `old` into `new`.

    Time is about one pass over the longer text with integers as wide as the shorter one: a millisecond for
    1,000 tokens against 1,000.

    Source: Hyyrö 2003, "A bit-vector algorithm for computing Levenshtein and Damerau edit distances".

    >>> edit_distance("answer in one word", "answer in exactly one word!")
    2
    """
    short, long = tokens(old), tokens(new)
    if len(short) > len(long):
        short, long = long, short
    if not short:
        return len(long)
    where: dict[str, int] = {}
    for position, token in enumerate(short):
        where[token] = where.get(token, 0) | 1 << position
    mask = (1 << len(short)) - 1
    last = 1 << (len(short) - 1)
    up, down, distance = mask, 0, len(short)
    for token in long:
        match = where.get(token, 0)
        diagonal = (((match & up) + up) ^ up) | match | down
        grows = (down | ~(diagonal | up)) & mask
        shrinks = up & diagonal
        if grows & last:
            distance += 1
        elif shrinks & last:
            distance -= 1
        grows = (grows << 1 | 1) & mask
        shrinks = (shrinks << 1) & mask
        up = (shrinks | ~(diagonal | grows)) & mask
        down = grows & diagonal
    return distance


def edit_ratio(old: str, new: str) -> float:
    """The edit distance as a share of the longer text: 0 for equal texts, 1 where nothing is kept.

    >>> edit_ratio("answer in one word", "answer in two words")
    0.5
    """
    longest = max(len(tokens(old)), len(tokens(new)))
    return edit_distance(old, new) / longest if longest else 0.0


def lost_ratio(old: str, new: str) -> float:
    """The share of the old text's tokens that are removed or replaced in the new one: what `max_edit` bounds.

    What is kept is the longest sequence of tokens that both have in the same order; additions are free.

    Source: Hyyrö 2004, "Bit-parallel LCS-length computation revisited".

    >>> lost_ratio("answer in one word", "answer in two words, without a mark")
    0.5
    >>> lost_ratio("answer in one word", "read it twice, then answer in one word only")
    0.0
    """
    first = tokens(old)
    where: dict[str, int] = {}
    for position, token in enumerate(first):
        where[token] = where.get(token, 0) | 1 << position
    mask = (1 << len(first)) - 1
    row = mask
    for token in tokens(new):
        match = row & where.get(token, 0)
        row = ((row + match) | (row - match)) & mask
    return row.bit_count() / len(first) if first else 0.0
