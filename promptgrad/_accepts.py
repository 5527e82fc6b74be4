"""Which options the forward pass of a model takes, and by which names."""

from __future__ import annotations

import inspect
from typing import Any


class Accepts:
    """What the forward pass of a causal language model takes, whatever version of transformers it is from.

    Args:
        model: The model, wrapped by peft or not.
    """

    def __init__(self, model: Any) -> None:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        accepted = inspect.signature(base.forward).parameters
        self.positions = "position_ids" in accepted
        self._cache = "cache" if "cache" in accepted else "past_key_values"  # before transformers 5.24
        self._keep = "logits_to_keep" in accepted

    def cache(self, cache: Any) -> dict[str, Any]:
        """The option that reads and extends a cache."""
        return {self._cache: cache, "use_cache": True}

    def last(self, count: int) -> dict[str, Any]:
        """The option that spares the logits of all but the last places; empty for models without it."""
        return {"logits_to_keep": count} if self._keep else {}
