"""`LoraRows`: which weights beside a base each row of a forward pass goes through.

It is told for each forward pass, per thread, so that one batch may hold rows of several, and one thread may train one
while another answers with it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from promptgrad._accepts import is_seq2seq

if TYPE_CHECKING:
    from promptgrad.lm._adapted import Adapted


class LoraRows:
    """The switch of one model: which LoRA or soft prompt each row of a forward pass goes through.

    Tokens from `vocabulary` on are those of soft prompts: the layer that embeds the prompt is asked for others in their
    places, and they get the vectors of their row.

    Args:
        model: The base.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._made = 0
        self._hooked: set[str] = set()
        self._lock = threading.Lock()
        self._now = threading.local()

    @property
    def vocabulary(self) -> int:
        """How many tokens the model embeds."""
        return int(self._embedding().weight.shape[0])

    @property
    def width(self) -> int:
        """The numbers in the embedding of a token."""
        return int(self._embedding().weight.shape[1])

    def _embedding(self) -> Any:
        """The layer that embeds a prompt."""
        reads = self.model.get_encoder() if is_seq2seq(self.model) else self.model
        return reads.get_input_embeddings()

    def table(self) -> torch.Tensor:
        """The embeddings of all tokens, as the layers above get them."""
        layer = self._embedding()
        with torch.no_grad():
            found: torch.Tensor = layer(torch.arange(layer.weight.shape[0], device=layer.weight.device))
        return found

    def add(self, adapted: Adapted) -> int:
        """Hook the layers that it changes, and return its number, which no other has; the base has 0."""
        with self._lock:
            for path in getattr(adapted, "matrices", ()):
                if path not in self._hooked:
                    self._hooked.add(path)
                    self.model.get_submodule(path).register_forward_hook(_Hook(self, path))
            if adapted.leading and "" not in self._hooked:
                self._hooked.add("")
                embed = _EmbedHook(self)
                self._embedding().register_forward_pre_hook(embed.before)
                self._embedding().register_forward_hook(embed)
            self._made += 1
            return self._made

    @contextmanager
    def through(self, loras: Sequence[Adapted | None]) -> Iterator[None]:
        """Let the rows of forward passes in this thread go through these, one for each row, or one for all."""
        before = getattr(self._now, "parts", ())
        self._now.parts = self._parts(loras)
        try:
            yield
        finally:
            self._now.parts = before

    def _parts(self, loras: Sequence[Adapted | None]) -> tuple[tuple[Adapted, int, torch.Tensor | None], ...]:
        first = loras[0]
        if all(lora is first for lora in loras):
            return () if first is None else ((first, 0, None),)
        rows: dict[Adapted, list[int]] = {}
        for row, lora in enumerate(loras):
            if lora is not None:
                rows.setdefault(lora, []).append(row)
        device = next(self.model.parameters()).device
        return tuple((lora, len(loras), torch.tensor(own, device=device)) for lora, own in rows.items())

    def extended(self, path: str, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """Return the output of a layer with what the rows' LoRAs add to it."""
        for lora, count, rows in getattr(self._now, "parts", ()):
            if rows is None:
                delta = lora.delta(path, inputs)
                output = output if delta is None else output + delta.to(output.dtype)
                continue
            if inputs.shape[0] != count:
                raise RuntimeError(
                    f"layer {path} does not keep rows apart, so requests of several adapters cannot be in one batch; "
                    "leave it out of target_modules"
                )
            delta = lora.delta(path, inputs[rows])
            if delta is not None:
                output = output.index_add(0, rows, delta.to(output.dtype))
        return output

    def known(self, ids: torch.Tensor) -> torch.Tensor | None:
        """Tokens that the model embeds in place of those of soft prompts; None where the rows have none."""
        self._now.ids = None
        if not any(adapted.leading for adapted, _, _ in getattr(self._now, "parts", ())):
            return None
        self._now.ids = ids
        return ids.masked_fill(ids >= self.vocabulary, 0)

    def embedded(self, output: torch.Tensor) -> torch.Tensor | None:
        """The embeddings of what the model was asked for last, with the vectors of soft prompts in their places."""
        ids = getattr(self._now, "ids", None)
        if ids is None:
            return None
        self._now.ids = None
        for adapted, _, rows in self._now.parts:
            if rows is None:
                output = adapted.embedded(ids, output)
            elif adapted.leading:
                output = output.index_copy(0, rows, adapted.embedded(ids[rows], output[rows]))
        return output


class _EmbedHook:
    """Embeds the tokens of soft prompts; a copy of the model has hooks that do nothing."""

    def __init__(self, rows: LoraRows | None) -> None:
        self.rows = rows

    def before(self, layer: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        known = None if self.rows is None or not args else self.rows.known(args[0])
        return None if known is None else (known, *args[1:])

    def __call__(self, layer: Any, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
        return None if self.rows is None else self.rows.embedded(output)

    def __reduce__(self) -> Any:
        return _EmbedHook, (None,)


class _Hook:
    """Extends the output of one layer; a copy of the model has hooks that do nothing."""

    def __init__(self, rows: LoraRows | None, path: str) -> None:
        self.rows, self.path = rows, path

    def __call__(self, layer: Any, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
        return None if self.rows is None else self.rows.extended(self.path, args[0], output)

    def __reduce__(self) -> Any:
        return _Hook, (None, self.path)
