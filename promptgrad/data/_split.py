"""Seeded splits of a data set."""

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from promptgrad._seed import seed_or_default
from promptgrad.data._example import Example, content
from promptgrad.data._order import shuffled
from promptgrad.data._table import not_a_list
from promptgrad.errors import DataError


def split(
    data: Iterable[Any],
    sizes: float | Sequence[float],
    *,
    seed: int | None = None,
    stratify: str | Callable[[Any], object] | None = None,
) -> list[list[Any]]:
    """Split data at random into parts that have no row in common.

    The same data, sizes and seed always give the same parts. A warning reports rows of equal content that end up in
    different parts, since scores on a test set that was trained on mean nothing.

    Args:
        data: The rows.
        sizes: Sizes of the parts, either counts (rows beyond their sum are not used) or fractions of all. A single
            number stands for a first part of that size and a second with the rest.
        seed: Seed of the order; by default that of `promptgrad.manual_seed`.
        stratify: A field, or a function of a row: the parts then hold each of its values in equal shares.

    Returns:
        One list of rows for each size.

    Raises:
        DataError: There is no data, the sizes do not fit it, or a part would be empty.

    >>> train, val, test = split(range(10), [0.6, 0.2, 0.2], seed=0)
    >>> len(train), len(val), len(test)
    (6, 2, 2)
    """
    if fault := not_a_list("split takes", data, rows=False):
        raise DataError(fault)
    rows = list(data)
    if not rows:
        raise DataError("there is nothing to split: the data is empty")
    counts = _counts(sizes, len(rows))
    order = shuffled(range(len(rows)), seed_or_default(seed), "split")
    if stratify is not None:
        order = _spread(order, rows, stratify)
    parts: list[list[Any]] = []
    start = 0
    for number, count in enumerate(counts):
        block = order[start : start + count]
        if stratify is not None:
            block = shuffled(block, seed_or_default(seed), "part", number)
        parts.append([rows[index] for index in block])
        start += count
    _warn_of_duplicates(parts)
    return parts


def _counts(sizes: float | Sequence[float], total: int) -> list[int]:
    single = isinstance(sizes, (int, float))
    given = [sizes] if isinstance(sizes, (int, float)) else list(sizes)
    if not given or any(isinstance(size, bool) or not isinstance(size, (int, float)) or size <= 0 for size in given):
        raise DataError(f"sizes are counts or fractions above zero, not {sizes!r}")
    if all(isinstance(size, int) for size in given):
        counts = [int(size) for size in given]
        if single:
            counts.append(total - counts[0])
    elif all(isinstance(size, float) for size in given) and math.fsum(given) <= 1 + 1e-9:
        if single:
            given.append(1 - given[0])
        counts = _rounded([size * total for size in given])
    else:
        raise DataError(
            f"sizes are either counts (whole numbers) or fractions of at most 1 in sum (as 0.8), not {sizes!r}"
        )
    if sum(counts) > total or min(counts) < 1:
        raise DataError(f"{total} rows cannot be split into parts of {', '.join(map(str, counts))}")
    return counts


def _rounded(shares: list[float]) -> list[int]:
    """The whole numbers nearest to the shares, with the same sum (largest remainders are rounded up)."""
    counts = [math.floor(share + 1e-9) for share in shares]
    missing = round(math.fsum(shares) + 1e-9) - sum(counts)
    by_remainder = sorted(range(len(shares)), key=lambda place: counts[place] - shares[place])
    for place in by_remainder[:missing]:
        counts[place] += 1
    return counts


def _spread(order: list[int], rows: list[Any], stratify: str | Callable[[Any], object]) -> list[int]:
    """Reorder so that every stretch holds each class in the share that it has overall."""
    groups: dict[str, list[int]] = {}
    for index in order:
        groups.setdefault(_class_of(rows[index], stratify), []).append(index)
    places = []
    for name in sorted(groups):
        members = groups[name]
        places += [((rank + 0.5) / len(members), index) for rank, index in enumerate(members)]
    position = {index: place for place, index in enumerate(order)}
    places.sort(key=lambda pair: (pair[0], position[pair[1]]))
    return [index for _, index in places]


def _class_of(row: Any, stratify: str | Callable[[Any], object]) -> str:
    if callable(stratify):
        return repr(content(stratify(row)))
    try:
        return repr(content(row[stratify]))
    except (KeyError, TypeError, IndexError):
        raise DataError(f"stratify={stratify!r}: a row has no such field: {row!r:.200}") from None


def _warn_of_duplicates(parts: list[list[Any]]) -> None:
    seen: dict[str, int] = {}
    shared = 0
    for number, part in enumerate(parts):
        for row in part:
            try:
                key = row.id if isinstance(row, Example) else repr(content(row))
            except DataError:
                continue
            shared += seen.setdefault(key, number) != number
    if shared:
        warnings.warn(
            f"{shared} rows have the same content as a row in an earlier part of the split; "
            "drop duplicates first, or scores on the later parts will be too high",
            stacklevel=3,
        )
