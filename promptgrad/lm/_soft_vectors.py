"""`SoftVectors`: a model with trained vectors before every prompt."""

from __future__ import annotations

import random
from typing import Any

import torch

from promptgrad.lm._adapted import Adapted
from promptgrad.lm._lora_rows import LoraRows

COMMONEST = 5000
"""Vectors begin as those of so many tokens with the lowest numbers, which most vocabularies give to common ones."""


class SoftVectors(Adapted):
    """A model, or one with a LoRA, with vectors before every prompt, which are its only parameters.

    They stand there as tokens from the size of the vocabulary on, so that prefixes, traces and batches count them as
    they count others. Source: Lester et al. 2021, arXiv 2104.08691.

    Args:
        rows: The switch of the base.
        vectors: The vectors. Shape: (tokens, size of an embedding).
        below: The LoRA that the rows go through as well, which stays as it is; None for the base alone.
    """

    def __init__(self, rows: LoraRows, vectors: torch.Tensor, below: Adapted | None = None) -> None:
        super().__init__(rows, {"soft_tokens": len(vectors)})
        self._below = (below,)  # no module of it, whose parameters would be its own
        given = isinstance(vectors, torch.nn.Parameter)
        self.vectors = vectors if given else torch.nn.Parameter(vectors, requires_grad=False)
        self.leading = tuple(range(rows.vocabulary, rows.vocabulary + len(vectors)))
        self.begin()

    def copy(self) -> SoftVectors:
        """Return another one with the same base and vectors of its own."""
        return SoftVectors(self.rows, self.vectors.detach().clone(), self.below)

    def onto(self, rows: LoraRows) -> SoftVectors:
        """Return another one with these very vectors, on another base of the same shape."""
        return SoftVectors(rows, self.vectors, None if self.below is None else self.below.onto(rows))

    @property
    def below(self) -> Adapted | None:
        """The LoRA that the rows go through as well; None for the base alone."""
        return self._below[0]

    def version(self) -> int:
        """Return a number that changes whenever a vector, or a matrix of the LoRA, is changed in place."""
        return super().version() + (0 if self.below is None else self.below.version())

    def delta(self, path: str, inputs: torch.Tensor) -> torch.Tensor | None:
        """Return what the LoRA adds to the output of a layer."""
        return None if self.below is None else self.below.delta(path, inputs)

    def embedded(self, ids: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of tokens, with the vectors in their places."""
        places = ids - self.leading[0]
        own = torch.nn.functional.embedding(places.clamp(0, len(self.vectors) - 1), self.vectors)
        return torch.where((places >= 0)[..., None], own.to(output), output)


def first_vectors(rows: LoraRows, tokenizer: Any, count: int, init: str | None, seed: int) -> torch.Tensor:
    """What the vectors of a soft prompt begin as: the embeddings of a text, over and over, or of tokens that are drawn.

    Raises:
        ValueError: The text has no token.
    """
    table = rows.table().float()
    if init is None:
        special = {*tokenizer.all_special_ids}
        known = [token for token in range(min(len(table), COMMONEST)) if token not in special]
        ids = random.Random(f"promptgrad soft prompt {seed}").choices(known, k=count)
    else:
        told = tokenizer(init, add_special_tokens=False)["input_ids"]
        if not told:
            raise ValueError(f"the text that a soft prompt begins with has no token: {init!r}")
        ids = [told[place % len(told)] for place in range(count)]
    return table[torch.tensor(ids, device=table.device)].clone()
