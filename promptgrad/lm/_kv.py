"""Keys and values of the tokens seen so far: growing in place, joined, thinned out, and shared between requests."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

ROOM = 32
"""Number of free places in a new buffer."""

Pair = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, (heads, places, size) each."""


class GrowingLayer(DynamicLayer):  # type: ignore[misc] # transformers is not typed
    """Keys and values of one layer in buffers with room at the end, so that a step writes and copies nothing.

    Shape: (rows, heads, places, size), of which the first `used` places are in use.
    """

    def __init__(self, buffers: Pair | None = None, used: int = 0) -> None:
        super().__init__()
        self.used = used
        if buffers is not None:
            self._keep(*buffers)

    def _keep(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.buffers = (keys, values)
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True
        self.keys, self.values = keys[:, :, : self.used], values[:, :, : self.used]

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Make empty buffers for states like these."""
        places = key_states.shape[-2] + ROOM
        self._keep(_empty(key_states, places), _empty(value_states, places))

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new states behind those in use, and return all states in use."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.used = self.used, self.used + key_states.shape[-2]
        keys, values = self.buffers
        if self.used > keys.shape[-2]:
            places = self.used + max(ROOM, self.used // 2)
            old_keys, old_values, keys, values = keys, values, _empty(keys, places), _empty(values, places)
            keys[:, :, :start], values[:, :, :start] = old_keys[:, :, :start], old_values[:, :, :start]
        keys[:, :, start : self.used], values[:, :, start : self.used] = key_states, value_states
        self._keep(keys, values)
        return self.keys, self.values


def _empty(like: torch.Tensor, places: int, rows: int | None = None) -> torch.Tensor:
    return like.new_empty(like.shape[0] if rows is None else rows, like.shape[1], places, like.shape[3])


def growing_cache(config: Any) -> Cache | None:
    """Make an empty cache of growing layers; None for a model some of whose layers keep anything else.

    Sliding windows and recurrent states are such layers; they count to know their place.
    """
    layers = DynamicCache(config=config).layers
    if not layers or any(type(layer) is not DynamicLayer for layer in layers):
        return None
    return Cache(layers=[GrowingLayer() for _ in layers])


def kv_bytes(cache: Any) -> int:
    """Memory of a cache's keys and values, with the room at the end of growing layers."""
    parts = [getattr(cache, name, None) for name in ("self_attention_cache", "cross_attention_cache")]
    total = 0
    for part in [part for part in parts if part is not None] or [cache]:
        for layer in part.layers:
            sides = getattr(layer, "buffers", None) or (getattr(layer, "keys", None), getattr(layer, "values", None))
            total += sum(side.numel() * side.element_size() for side in sides if side is not None)
    return total


def select(cache: Cache, rows: torch.Tensor, first: int) -> None:
    """Keep some rows, and of them the places from `first` on."""
    for layer in cache.layers:
        keys, values = layer.buffers
        used = layer.used - first
        pair = []
        for buffer in (keys, values):
            kept = _empty(buffer, used + ROOM, len(rows))
            kept[:, :, :used] = buffer[rows, :, first : layer.used]
            pair.append(kept)
        layer.used = used
        layer._keep(*pair)


def join(one: Cache, other: Cache) -> Cache:
    """Put the rows of two caches under one another, aligned at their last places."""
    joined = []
    for upper, lower in zip(one.layers, other.layers, strict=True):
        used = max(upper.used, lower.used)
        pair = []
        for above, below in zip(upper.buffers, lower.buffers, strict=True):
            rows = above.shape[0]
            whole = _empty(above, used + ROOM, rows + below.shape[0])
            whole[:rows, :, : used - upper.used] = 0  # never seen, but nothing times NaN is NaN
            whole[rows:, :, : used - lower.used] = 0
            whole[:rows, :, used - upper.used : used] = above[:, :, : upper.used]
            whole[rows:, :, used - lower.used : used] = below[:, :, : lower.used]
            pair.append(whole)
        joined.append(GrowingLayer((pair[0], pair[1]), used))
    return Cache(layers=joined)


def stack(prefixes: Sequence[Sequence[Pair] | None], lengths: Sequence[int]) -> Cache:
    """Make a cache with one row for each prefix; row `i` has its first `lengths[i]` places.

    Rows are aligned at their last places; a row without a prefix is empty. At least one row has one.
    """
    used = max(lengths)
    some = next(prefix for prefix in prefixes if prefix is not None)
    layers = []
    for index in range(len(some)):
        pair = []
        for side in (0, 1):
            sample = some[index][side]
            whole = sample.new_zeros(len(prefixes), sample.shape[0], used + ROOM, sample.shape[2])
            for row, (prefix, length) in enumerate(zip(prefixes, lengths, strict=True)):
                if prefix is not None:
                    whole[row, :, used - length : used] = prefix[index][side][:, :length]
            pair.append(whole)
        layers.append(GrowingLayer((pair[0], pair[1]), used))
    return Cache(layers=layers)


class PrefixStore:
    """Keys and values of beginnings that several requests share; the least recently used is dropped first.

    Args:
        limit: Most bytes to hold.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._kept: OrderedDict[tuple[int, ...], list[Pair]] = OrderedDict()
        self._seen: OrderedDict[tuple[int, ...], int] = OrderedDict()

    def get(self, ids: tuple[int, ...]) -> list[Pair] | None:
        """Return the keys and values of a beginning; None if they are not kept."""
        found = self._kept.get(ids)
        if found is not None:
            self._kept.move_to_end(ids)
        return found

    def pays(self, ids: tuple[int, ...], times: int) -> bool:
        """True if a beginning, which occurs `times` times now, has occurred more than once so far."""
        count = self._seen.pop(ids, 0) + times
        self._seen[ids] = count
        if len(self._seen) > 4096:
            self._seen.popitem(last=False)
        return count > 1

    def put(self, ids: tuple[int, ...], cache: Cache) -> list[Pair]:
        """Keep the only row of a cache for a beginning, and return it."""
        pairs = [(layer.keys[0].clone(), layer.values[0].clone()) for layer in cache.layers]
        self._kept[ids] = pairs
        self.size += _bytes(pairs)
        while self.size > self.limit and len(self._kept) > 1:
            self.size -= _bytes(self._kept.popitem(last=False)[1])
        return pairs

    def clear(self) -> None:
        """Drop everything, because the weights have changed."""
        self._kept.clear()
        self.size = 0


def _bytes(pairs: Sequence[Pair]) -> int:
    return sum(side.numel() * side.element_size() for pair in pairs for side in pair)
