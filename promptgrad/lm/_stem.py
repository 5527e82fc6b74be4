"""What rows of a training batch begin with, computed once: keys and values with the graph that made them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from promptgrad._accepts import Accepts


class Stem:
    """The keys and values of a prefix, as leaves of the graphs behind it.

    Args:
        model: A causal language model in torch.
        ids: The prefix.

    Attributes:
        length: Its number of tokens.
    """

    def __init__(self, model: Any, ids: Sequence[int]) -> None:
        import torch
        from transformers.cache_utils import DynamicCache

        cache, accepts = DynamicCache(config=model.config), Accepts(model)
        model(input_ids=torch.tensor([ids], device=model.device), **accepts.cache(cache), **accepts.last(1))
        self.length = len(ids)
        self._cache = cache
        self._made = [state for layer in cache.layers for state in (layer.keys, layer.values)]
        self._leaves = [state.detach().requires_grad_(state.requires_grad) for state in self._made]

    def expanded(self, rows: int) -> Any:
        """A cache with the prefix in each of some rows."""
        cache = copy.copy(self._cache)
        cache.layers = [copy.copy(layer) for layer in self._cache.layers]
        for index, layer in enumerate(cache.layers):
            keys, values = self._leaves[2 * index : 2 * index + 2]
            layer.keys, layer.values = keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)
        return cache

    def backward(self) -> None:
        """Pass on to the weights what the parts have added to the gradient of the keys and values."""
        import torch

        pairs = [(made, leaf.grad) for made, leaf in zip(self._made, self._leaves, strict=True)]
        pairs = [(made, grad) for made, grad in pairs if grad is not None]
        if pairs:
            torch.autograd.backward([made for made, _ in pairs], [grad for _, grad in pairs])


def keeps_stems(model: Any) -> bool:
    """Whether keys and values of a prefix can be kept with their graph and expanded over rows."""
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if any(getattr(module, "gradient_checkpointing", False) for module in base.modules()):
        return False
    layers = DynamicCache(config=model.config).layers
    return bool(layers) and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
