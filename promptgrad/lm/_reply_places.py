"""Logits of the places alone that foretell a token of a reply, and before them no more than these need."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_loops: set[type] = set()  # models that go through their last block several times


class ReplyPlaces:
    """While it is entered, the last layer of a model makes logits of some places alone, in one row.

    What stands between the last attention and the logits looks at one place at a time. So in the last block the `mlp`
    and the attention's `o_proj`, where there are such, also see these places alone, and give zeros for the others;
    unless they are computed again in the backward pass. A model that goes through that block several times, and needs
    all places before the last time, is found out in its first pass, which is `void` then.

    Other threads that call the model meanwhile, as with a LoRA on a shared base, get what they ask for. A model that
    does not call its last layer as a module makes logits of all places, and `chosen` takes these.

    Args:
        model: A causal language model.
        places: The places, counted through all rows.
        shape: Rows, and places of each, that reach the last layer.

    Attributes:
        void: Whether what the model gave is wrong, and the pass has to be made again, under another `ReplyPlaces`.
    """

    def __init__(self, model: Any, places: torch.Tensor, shape: tuple[int, int]) -> None:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.void = False
        self._type = type(base)
        self._head = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
        self._places = places
        self._shape = shape
        self._thread: int | None = None  # hooks that Ctrl-C leaves behind, as it comes at any moment, do nothing
        self._done = False
        self._thinned = set[Any]()
        self._last = [] if self._type in _loops else _of_last_block(base)
        self._hooks: list[Any] = []

    def __enter__(self) -> ReplyPlaces:
        if self._head is not None:
            self._hooks.append(self._head.register_forward_pre_hook(self._choose))
        for module in self._last:
            self._hooks.append(module.register_forward_pre_hook(self._thin, with_kwargs=True))
            self._hooks.append(module.register_forward_hook(self._fill))
        self._thread = threading.get_ident()
        return self

    def __exit__(self, *error: object) -> None:
        self._thread = None
        for hook in self._hooks:
            hook.remove()

    def chosen(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits of the places, one row for each, from those that the model gave."""
        return logits[0] if self._done else logits.flatten(0, 1).index_select(0, self._places)

    def _is_meant(self, args: tuple[Any, ...]) -> bool:
        return threading.get_ident() == self._thread and bool(args) and tuple(args[0].shape[:-1]) == self._shape

    def _some(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0].flatten(0, 1).index_select(0, self._places)[None], *args[1:])

    def _choose(self, layer: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._done or not self._is_meant(args):
            return None
        self._done = True
        return self._some(args)

    def _thin(self, layer: Any, args: tuple[Any, ...], more: dict[str, Any]) -> tuple[tuple[Any, ...], Any] | None:
        if len(args) != 1 or more or not self._is_meant(args):
            return None  # some take what they are added to
        if layer in self._thinned:
            self.void = True
            _loops.add(self._type)
            return None
        self._thinned.add(layer)
        return self._some(args), more

    def _fill(self, layer: Any, args: tuple[Any, ...], made: Any) -> Any:
        """Its output, with zeros in the other places; `args` are those that `_thin` made."""
        if layer not in self._thinned or threading.get_ident() != self._thread or args[0].shape[1] != len(self._places):
            return None
        parts = made if isinstance(made, tuple) else (made,)
        whole = [
            each.new_zeros(self._shape[0] * self._shape[1], each.shape[-1]).index_copy(
                0, self._places, each.flatten(0, -2)
            )
            for each in parts
        ]
        shaped = [
            each.unflatten(0, self._shape) if part.dim() > 2 else each for each, part in zip(whole, parts, strict=True)
        ]
        return tuple(shaped) if isinstance(made, tuple) else shaped[0]


def _of_last_block(model: Any) -> list[Any]:
    """What of the last block looks at one place at a time and is its own; nothing where blocks are computed twice."""
    import torch

    count = getattr(model.config, "num_hidden_layers", None)
    for blocks in model.modules():
        if isinstance(blocks, torch.nn.ModuleList) and len(blocks) == count:
            if any(getattr(each, "gradient_checkpointing", False) for each in (blocks[-1], model)):
                return []
            found = [[_within(each, name) for each in reversed(blocks)] for name in ("self_attn.o_proj", "mlp")]
            return [last for last, *others in found if last is not None and all(each is not last for each in others)]
    return []


def _within(block: Any, name: str) -> Any:
    """A module of a block by its path, or None."""
    for part in name.split("."):
        block = getattr(block, part, None)
    return block
