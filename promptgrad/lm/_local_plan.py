"""`LocalPlan`: what a local model will take of memory, known from its configuration alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptgrad._accepts import Accepts, is_seq2seq
from promptgrad.errors import LMError, MissingExtraError

if TYPE_CHECKING:
    from promptgrad.lm._local import Local

CONTEXT = 2048
"""Tokens of a prompt with its reply where neither the caller nor the model says how many there are."""

FOUR_BITS = 0.5 + 1 / 64 + 4 / 256 / 64
"""Bytes of a weight in 4 bits: the number, its block's scale in one byte, and the scale of 256 such scales."""


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """What a local model takes of memory while it answers, in bytes, without what a forward pass needs in between.

    Attributes:
        name: The LM.
        device: Where it computes.
        dtype: Type of its numbers.
        weights: Its weights.
        kv_token: Keys and values of one token of one reply in progress.
        rows: Replies in progress.
        context: Tokens of a prompt with its reply.
        kv: Keys and values of so many replies of so many tokens; layers with a sliding window keep no more than it.
        prefixes: Most that is kept of prompts' beginnings.
        free: What is free on the device now; 0 if it is not known.
    """

    name: str
    device: str
    dtype: str
    weights: int
    kv_token: int
    rows: int
    context: int
    kv: int
    prefixes: int
    free: int

    @property
    def total(self) -> int:
        """Weights, keys and values, and kept beginnings."""
        return self.weights + self.kv + self.prefixes

    @property
    def fits(self) -> bool | None:
        """Whether that is free on the device now; None if it is not known."""
        return None if not self.free else self.total <= self.free

    def __str__(self) -> str:
        fits = {None: "", True: f", of {_size(self.free)} free", False: f", and only {_size(self.free)} are free"}
        return (
            f"{self.name} on {self.device} in {self.dtype}: {_size(self.total)}{fits[self.fits]}\n"
            f"  weights           {_size(self.weights)}\n"
            f"  keys and values   {_size(self.kv)}: {self.rows} replies of {self.context} tokens, "
            f"{_size(self.kv_token)} each\n"
            f"  kept beginnings   {_size(self.prefixes)} at most"
        )


def plan_of(lm: Local, context: int | None, rows: int | None, prefixes: int) -> LocalPlan:
    """Make the plan of a local model. Its weights are not loaded: the model is built without memory for them.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        LMError: The configuration cannot be read.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingExtraError(extra="local", package="torch") from error
    from promptgrad.lm._local_load import check_folder, config_of, is_here, model_class, pick_device, pick_dtype

    loaded = lm._model if lm._engine is None else lm._engine.model
    if loaded is None:
        check_folder(lm._source, weights=False)
        device = str(pick_device(torch, lm.device))
        try:
            config = config_of(transformers, str(lm._source), local_files_only=is_here(str(lm._source)))
            asked = pick_dtype(torch, lm.dtype, device)
            dtype = (config.dtype or torch.float32) if asked == "auto" else asked
            dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
            with torch.device("meta"):
                model = model_class(transformers, config).from_config(config, dtype=dtype)
        except LMError:
            raise
        except Exception as error:  # transformers has kinds of its own
            raise LMError(f"cannot plan local model {lm.name!r}: {error}") from error
        weights = _weights(torch, model, quantize=lm.quantize)
    else:
        model, device = loaded, str(loaded.device)
        dtype = next(weight.dtype for weight in model.parameters() if weight.is_floating_point())
        weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    try:
        layers = _kv_layers(torch, model)
    except RuntimeError:  # it looks into its numbers, and there are none
        layers = _kv_of_config(model.config)
    longest = context or getattr(model.config, "max_position_embeddings", None) or CONTEXT
    most = rows or lm.max_batch
    itemsize = dtype.itemsize
    kept = [(size * itemsize, window or longest) for size, window in layers]
    return LocalPlan(
        name=lm.name,
        device=device,
        dtype=f"{lm.quantize} and " * bool(lm.quantize) + str(dtype).removeprefix("torch."),
        weights=weights,
        kv_token=sum(size for size, _ in kept),
        rows=most,
        context=longest,
        kv=most * sum(size * min(longest, window) for size, window in kept),
        prefixes=0 if is_seq2seq(model) else prefixes,
        free=_free(torch, device),
    )


def _weights(torch: Any, model: Any, *, quantize: str | None) -> int:
    """Bytes of weights; in 4 bits those of all linear layers but the last."""
    packed: set[int] = set()
    if quantize:
        head = model.get_output_embeddings()
        for layer in model.modules():
            if isinstance(layer, torch.nn.Linear) and layer is not head:
                packed.add(id(layer.weight))
    own = list(model.parameters())
    sizes = [one.numel() * (FOUR_BITS if id(one) in packed else one.element_size()) for one in own]
    return int(sum(sizes))


def _kv_layers(torch: Any, model: Any) -> list[tuple[int, int]]:
    """For each layer the numbers that it keeps of a token, and its window, 0 without one.

    Layers with a recurrent state keep nothing of a token. They are found by a forward pass that computes nothing.
    """
    import copy

    from transformers.cache_utils import DynamicCache, EncoderDecoderCache

    if not any(weight.is_meta for weight in model.parameters()):
        with torch.device("meta"):
            model = type(model)._from_config(copy.deepcopy(model.config))
    accepts, ids = Accepts(model), torch.ones((1, 1), dtype=torch.long, device="meta")
    with torch.no_grad():
        if is_seq2seq(model):
            both = EncoderDecoderCache(DynamicCache(), DynamicCache())
            model(input_ids=ids, decoder_input_ids=ids, **accepts.cache(both))
            cache = both.self_attention_cache
        else:
            cache = DynamicCache(config=model.config)
            model(input_ids=ids, **accepts.cache(cache))
    found = []
    for layer in cache.layers:
        sides = [side for side in (getattr(layer, "keys", None), getattr(layer, "values", None)) if side is not None]
        found.append((sum(side.numel() for side in sides), int(getattr(layer, "sliding_window", 0) or 0)))
    return found


def _kv_of_config(config: Any) -> list[tuple[int, int]]:
    """The same from the configuration, for models whose layers keep a key and a value for each head."""
    own = config.get_text_config(decoder=True)
    heads = getattr(own, "num_key_value_heads", None) or own.num_attention_heads
    size = getattr(own, "head_dim", None) or own.hidden_size // own.num_attention_heads
    layers = getattr(own, "decoder_layers", None) or own.num_hidden_layers
    return [(2 * heads * size, 0)] * layers


def _free(torch: Any, device: str) -> int:
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return int(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) if device == "cpu" else 0
    except (ValueError, OSError, AttributeError):
        return 0


def _size(count: int) -> str:
    for unit, step in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count} bytes"
