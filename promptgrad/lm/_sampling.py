"""Choosing tokens: greedy or drawn, each row by its own random numbers, so that its neighbours do not matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch


@dataclass(frozen=True, slots=True)
class Sampling:
    """The settings by which the tokens of one reply are chosen.

    Args:
        temperature: 0 takes the likeliest token.
        top_p: Draw from the likeliest tokens that together have this much probability.
        top_k: Draw from this many likeliest tokens.
        seed: Seed of the reply's random numbers.
    """

    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    seed: int = 0

    def source(self) -> Random | None:
        """Return the generator of random numbers for one reply; None if the choice is greedy."""
        return Random(self.seed) if self.temperature > 0 else None


def choose(
    logits: torch.Tensor, rows: Sequence[Sampling], sources: Sequence[Random | None]
) -> tuple[torch.Tensor, torch.Tensor, bool]:
    """Choose a token for each row of logits.

    Shape: logits are (rows, vocabulary).

    Returns:
        The tokens, the logits as they were scaled by the temperature (unscaled where it is 0), and whether the highest
        logit of each row is a number.
    """
    tokens = logits.argmax(-1)  # that of the first NaN, where there is one
    sound = bool(logits.gather(-1, tokens[:, None]).isfinite().all())
    drawn = [index for index, source in enumerate(sources) if source is not None]
    if not drawn:
        return tokens, logits, sound
    heated = scaled(logits, rows, sources)
    chosen = heated if len(drawn) == len(rows) else heated[drawn]
    if chosen.device.type == "mps":
        chosen = chosen.cpu()  # it has no numbers of 64 bits
    mass = torch.softmax(chosen.double(), -1)
    if any(rows[index].top_p is not None or rows[index].top_k is not None for index in drawn):
        mass = _truncate(mass, [rows[index] for index in drawn])
    reached = mass.cumsum(-1)
    numbers = [source.random() for source in sources if source is not None]
    marks = torch.tensor(numbers, dtype=reached.dtype, device=reached.device)[:, None] * reached[:, -1:]
    picked = torch.searchsorted(reached, marks, right=True)[:, 0].clamp_(max=logits.shape[-1] - 1)
    tokens[drawn] = picked.to(tokens.device)
    return tokens, heated, sound


def scaled(logits: torch.Tensor, rows: Sequence[Sampling], sources: Sequence[Random | None]) -> torch.Tensor:
    """Return logits divided by the temperature of their row; as they are where no row is drawn."""
    if all(source is None for source in sources):
        return logits
    temperatures = [row.temperature or 1.0 for row in rows]
    return logits / torch.tensor(temperatures, dtype=logits.dtype, device=logits.device)[:, None]


def _truncate(mass: torch.Tensor, rows: Sequence[Sampling]) -> torch.Tensor:
    """Set to zero the mass outside of top_k and top_p; the rest need not sum to one."""
    ordered, order = mass.sort(dim=-1, descending=True, stable=True)
    size = mass.shape[-1]
    kept = torch.tensor([row.top_k or size for row in rows], device=mass.device)[:, None]
    share = torch.tensor([1.0 if row.top_p is None else row.top_p for row in rows], device=mass.device)[:, None]
    before = ordered.cumsum(-1) - ordered
    outside = (torch.arange(size, device=mass.device)[None] >= kept) | (before >= share)
    outside[:, 0] = False
    return mass.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), 0.0)
