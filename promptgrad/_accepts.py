"""Which options the forward pass of a model takes, and by which names."""

from __future__ import annotations

import inspect
from typing import Any


class Accepts:
    """What the forward pass of a language model takes, whatever version of transformers it is from.

    Args:
        model: The model, wrapped by peft or not.

    Attributes:
        positions: Whether it takes the tokens' positions.
        caches: Whether it keeps what it read in a cache of transformers, and in no form of its own.
        starts: Tokens that the decoder of a sequence-to-sequence model reads before a reply; () for a causal one.
    """

    def __init__(self, model: Any) -> None:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        accepted = inspect.signature(base.forward).parameters
        self.positions = "position_ids" in accepted
        self._cache = "cache" if "cache" in accepted else "past_key_values"  # before transformers 5.24
        self.caches = self._cache in accepted
        self._keep = "logits_to_keep" in accepted
        self.starts = _starts(base)

    def cache(self, cache: Any) -> dict[str, Any]:
        """The option that reads and extends a cache."""
        return {self._cache: cache, "use_cache": True}

    def last(self, count: int) -> dict[str, Any]:
        """The option that spares the logits of all but the last places; empty for models without it."""
        return {"logits_to_keep": count} if self._keep else {}


def is_seq2seq(model: Any) -> bool:
    """Whether a model has an encoder, which reads the prompt, and a decoder, which writes the reply."""
    return bool(getattr(model.config, "is_encoder_decoder", False))


def _starts(model: Any) -> tuple[int, ...]:
    if not is_seq2seq(model):
        return ()
    places = [place for place in (getattr(model, "generation_config", None), model.config) if place is not None]

    def told(*names: str) -> int | None:
        found = [getattr(place, name, None) for name in names for place in places]
        return next((token for token in found if token is not None), None)

    first = told("decoder_start_token_id", "bos_token_id", "pad_token_id")
    if first is None:
        raise ValueError("the model's config has no decoder_start_token_id, so its decoder cannot begin")
    forced = getattr(places[0], "forced_bos_token_id", None)
    return (first,) if forced is None else (first, forced)
