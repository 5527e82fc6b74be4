"""`Versions`: a number that tells whether weights have changed, by which what was computed with them is known as stale.

torch counts changes in place, for each tensor, and misses those of kernels that write to it on their own, as a fused
AdamW does in torch 2.13. So every step of an optimizer on weights that are watched here is counted too.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from torch.autograd.graph import increment_version
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.weak import WeakIdKeyDictionary


class Versions:
    """The versions of the weights of one model.

    Args:
        weights: The weights.
    """

    def __init__(self, weights: Iterable[torch.Tensor]) -> None:
        self.weights = list(weights)
        _watched().update(dict.fromkeys(self.weights))

    def total(self) -> int:
        """Return a number that rises whenever a weight is changed in place, or an optimizer took a step on it."""
        return sum(weight._version for weight in self.weights)


@lru_cache(maxsize=1)
def _watched() -> WeakIdKeyDictionary:
    """The weights whose steps are counted: those of others are left as torch has them.

    One hook for the life of the process, as torch has one list of them, which must not change while a step goes on in
    another thread.
    """
    watched = WeakIdKeyDictionary()

    def after_step(optimizer: Any, args: Any, kwargs: Any) -> None:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        increment_version([weight for weight in weights if weight in watched])

    register_optimizer_step_post_hook(after_step)
    return watched
