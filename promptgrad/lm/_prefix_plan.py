"""Groups of rows that begin alike, and parts of bounded size, such that few tokens go through the model."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from promptgrad.lm._likelihood import Tokens

PART_TOKENS = 8192
"""Most places of one part, padding included; a shared place of a row counts an eighth, since only its keys are kept."""

PASS_TOKENS = 64
"""What one more forward and backward pass costs beside its tokens, in tokens."""

Rows: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """Some tokens that follow a prefix, or a segment before.

    Attributes:
        ids: The tokens.
        behind: The number of the segment whose tokens come before these; None where it is the prefix alone.
    """

    ids: tuple[int, ...]
    behind: int | None = None


@dataclass(frozen=True, slots=True)
class Shared:
    """Rows that share their first `prefix` tokens, in parts of bounded size.

    Attributes:
        prefix: How many tokens they share.
        parts: Parts whose rows are padded; the prefix is computed once for all of them.
        packs: Parts in whose stead the rows are one sequence; the prefix is a part of each.
    """

    prefix: int
    parts: tuple[Rows, ...] = ()
    packs: tuple[Rows, ...] = ()


def plan(
    batch: Sequence[Tokens], *, shared: bool = True, trees: bool = False, limit: int = PART_TOKENS
) -> list[Shared]:
    """Groups of rows and parts of groups such that few tokens go through the model.

    Neighbours in the order of their tokens share most, so groups are runs of that order; and parts are runs of the
    order of lengths. Both are cut where it costs least.

    Args:
        batch: Conversations in tokens.
        shared: Whether prefixes may be shared.
        trees: Whether rows may be one sequence, in which prompts that several of them have are once, too.
        limit: Most places of a part.
    """
    order = sorted(range(len(batch)), key=lambda row: batch[row].ids)
    if not shared:
        return [Shared(0, tuple(cut_by_length([len(row.ids) for row in batch], order, limit)))]
    common = [_common(batch[a], batch[b]) for a, b in itertools.pairwise(order)]
    best: list[tuple[float, int, int]] = [(0.0, 0, 0)]
    for end in range(1, len(order) + 1):
        choices = []
        prefix = len(batch[order[end - 1]].ids)
        whole = once = prompts = 0
        for start in range(end - 1, -1, -1):
            row, rows = batch[order[start]], end - start
            asked = max(row.start - 1, 0)
            prefix = min(prefix, asked, common[start] if rows > 1 else prefix)
            whole += len(row.ids)
            once += len(row.ids)
            if rows > 1 and common[start] >= asked and batch[order[start + 1]].start == row.start:
                once -= asked
            else:
                prompts += 1
            used = prefix if rows > 1 else 0
            if trees:
                choices.append((best[start][0] + once - used * (prompts - 1) + PASS_TOKENS, start, used))
                continue
            choices.append((best[start][0] + whole + PASS_TOKENS, start, 0))
            if used:
                choices.append((best[start][0] + whole - used * (rows - 1) + 2 * PASS_TOKENS, start, used))
        best.append(min(choices))
    groups: list[Shared] = []
    end = len(order)
    while end:
        _, start, prefix = best[end]
        groups.append(_group(batch, order[start:end], prefix, trees=trees, limit=limit))
        end = start
    return groups[::-1]


def segments(batch: Sequence[Tokens], rows: Rows, prefix: int) -> list[Segment]:
    """What follows a prefix: prompts that several rows have, each once, and then what is of each row alone."""
    asked = [batch[row].ids[prefix : max(batch[row].start - 1, prefix)] for row in rows]
    known = {ids: number for number, ids in enumerate(ids for ids, many in Counter(asked).items() if ids and many > 1)}
    behind = [known.get(ids) for ids in asked]
    own = [
        Segment(batch[row].ids[prefix + (0 if before is None else len(ids)) :], before)
        for row, ids, before in zip(rows, asked, behind, strict=True)
    ]
    return [Segment(ids) for ids in known] + own


def _group(batch: Sequence[Tokens], rows: Sequence[int], prefix: int, *, trees: bool, limit: int) -> Shared:
    lengths = [len(tokens.ids) - prefix for tokens in batch]
    parts = tuple(cut_by_length(lengths, rows, limit, prefix / 8))
    if not trees:
        return Shared(prefix, parts)
    packs = _packs(batch, rows, prefix, limit)
    packed = sum(prefix + PASS_TOKENS + sum(len(each.ids) for each in segments(batch, pack, prefix)) for pack in packs)
    padded = sum(len(part) * max(lengths[row] for row in part) + PASS_TOKENS for part in parts)
    padded += prefix + PASS_TOKENS if prefix else 0
    return Shared(prefix, packs=packs) if packed <= padded else Shared(prefix, parts)


def _packs(batch: Sequence[Tokens], rows: Sequence[int], prefix: int, limit: int) -> tuple[Rows, ...]:
    """Rows in parts, those of one prompt side by side, each within the limit with the prefix and what is kept of it."""
    first: dict[tuple[int, ...], int] = {}
    prompts = {row: batch[row].ids[: max(batch[row].start - 1, 0)] for row in rows}
    for row in sorted(rows, key=lambda row: (len(batch[row].ids), row)):
        first.setdefault(prompts[row], len(first))
    packs: list[list[int]] = []
    places: float = limit
    for row in sorted(rows, key=lambda row: (first[prompts[row]], len(batch[row].ids), row)):
        asked, whole = len(prompts[row]), len(batch[row].ids)
        again = bool(packs) and prompts[packs[-1][-1]] == prompts[row]
        more = whole - (asked if again else prefix) + (asked if again else prefix) / 8
        if not packs or places + more > limit:
            packs.append([])
            places, more = prefix, whole - prefix + prefix / 8
        packs[-1].append(row)
        places += more
    return tuple(map(tuple, packs))


def _common(one: Tokens, other: Tokens) -> int:
    same = 0
    for a, b in zip(one.ids, other.ids, strict=False):
        if a != b:
            break
        same += 1
    return same


def cut_by_length(lengths: Sequence[int], rows: Sequence[int], limit: float, held: float = 0.0) -> Iterator[Rows]:
    """Rows in parts of similar length, each within the limit, with the least padding that is worth its passes."""
    order = sorted(rows, key=lambda row: (lengths[row], row))
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(order) + 1):
        width = lengths[order[end - 1]]
        choices = []
        for start in range(end - 1, -1, -1):
            places = (end - start) * width
            if start < end - 1 and places + (end - start) * held > limit:
                break
            choices.append((best[start][0] + places + PASS_TOKENS, start))
        best.append(min(choices))
    cuts = [len(order)]
    while cuts[-1]:
        cuts.append(best[cuts[-1]][1])
    for start, end in zip(cuts[:0:-1], cuts[-2::-1], strict=True):
        yield tuple(order[start:end])
