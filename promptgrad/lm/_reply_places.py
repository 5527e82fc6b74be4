"""Logits of the places alone that foretell a token of a reply."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class ReplyPlaces:
    """While it is entered, the last layer of a model makes logits of some places alone, in one row.

    Other threads that call the model meanwhile, as with a LoRA on a shared base, get what they ask for. A model that
    does not call its last layer as a module makes logits of all places, and `chosen` takes these.

    Args:
        model: A causal language model.
        places: The places, counted through all rows.
        shape: Rows, and places of each, that reach the last layer.
    """

    def __init__(self, model: Any, places: torch.Tensor, shape: tuple[int, int]) -> None:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._head = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
        self._places = places
        self._shape = shape
        self._thread = threading.get_ident()
        self._done = False
        self._hook: Any = None

    def __enter__(self) -> ReplyPlaces:
        if self._head is not None:
            self._hook = self._head.register_forward_pre_hook(self._choose)
        return self

    def __exit__(self, *error: object) -> None:
        if self._hook is not None:
            self._hook.remove()

    def chosen(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits of the places, one row for each, from those that the model gave."""
        return logits[0] if self._done else logits.flatten(0, 1).index_select(0, self._places)

    def _choose(self, layer: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._done or threading.get_ident() != self._thread or not args or tuple(args[0].shape[:-1]) != self._shape:
            return None
        self._done = True
        return (args[0].flatten(0, 1).index_select(0, self._places)[None], *args[1:])
