"""`Adapted`: a model with a few weights of its own beside those of a base that it shares with others."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from promptgrad.lm._versions import Versions

if TYPE_CHECKING:
    from promptgrad.lm._lora_rows import LoraRows


class Adapted(torch.nn.Module):  # type: ignore[misc] # torch is not typed here
    """A model that is called as its base is; only what stands beside the base are its parameters.

    Args:
        rows: The switch of the base.
        options: What it was made with.

    Attributes:
        leading: Tokens before every prompt.
        number: A number that no other of the same base has.
        made_with: The version that it was made with.
    """

    leading: tuple[int, ...] = ()

    def __init__(self, rows: LoraRows, options: dict[str, Any]) -> None:
        super().__init__()
        self.rows = rows
        self.options = options
        self.number = self.made_with = 0
        self._versions = Versions(())

    def begin(self) -> None:
        """Watch the weights, which are all there now, and have the base know of them."""
        self._versions = Versions(self.parameters())
        self.number = self.rows.add(self)
        self.made_with = self.version()
        self.eval()

    def version(self) -> int:
        """Return a number that changes whenever one of its weights is changed in place."""
        return self._versions.total()

    def __deepcopy__(self, memo: dict[int, Any]) -> Adapted:
        return self.copy()

    def copy(self) -> Adapted:
        """Return another one with the same base and weights of its own."""
        raise NotImplementedError

    def onto(self, rows: LoraRows) -> Adapted:
        """Return another one with these very weights, on another base of the same shape."""
        raise NotImplementedError

    def apart(self) -> Adapted:
        """Return another one with these very weights, on layers of its own.

        The layers share the base's weights. So they can be set to compute activations twice, while the base answers.
        """
        from promptgrad.lm._lora_rows import LoraRows

        weights = {id(tensor): tensor for tensor in (*self.rows.model.parameters(), *self.rows.model.buffers())}
        return self.onto(LoraRows(copy.deepcopy(self.rows.model, weights)))

    def recomputing(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return what is around the first pass of a layer, and around the one that computes its activations again."""
        return nullcontext(), self.rows.through([self])

    @property
    def config(self) -> Any:
        """The base's configuration."""
        return self.get_base_model().config

    @property
    def generation_config(self) -> Any:
        """The base's settings for generation."""
        return self.get_base_model().generation_config

    @property
    def device(self) -> torch.device:
        """The base's device."""
        return next(self.get_base_model().parameters()).device

    def get_base_model(self) -> Any:
        """Return the base."""
        return self.rows.model

    def get_input_embeddings(self) -> Any:
        """Return the layer of the base that embeds its input."""
        return self.rows.model.get_input_embeddings()

    def get_encoder(self) -> Any:
        """Return the encoder of a sequence-to-sequence model, with these weights."""

        def read(*args: Any, **kwargs: Any) -> Any:
            with self.rows.through([self]):
                return self.rows.model.get_encoder()(*args, **kwargs)

        return read

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the base's forward pass with these weights."""
        with self.rows.through([self]):
            return self.rows.model(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Call the base's `generate` with these weights."""
        with self.rows.through([self]):
            return self.rows.model.generate(*args, **kwargs)

    def delta(self, path: str, inputs: torch.Tensor) -> torch.Tensor | None:
        """Return what is added to the output of a layer; None where nothing is."""
        return None

    def embedded(self, ids: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of tokens, those that it has itself in their places."""
        return output
