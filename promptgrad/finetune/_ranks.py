"""Data-parallel training: each process of a group takes its share of every batch, and their gradients are added."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any


def rank_and_ranks() -> tuple[int, int]:
    """The number of this process in torch's process group, and how many it has; (0, 1) where there is none."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def add_up(weights: Iterable[Any], loss: float, device: Any = None) -> float:
    """Replace the gradients of the weights by the sums over all processes; returns the sum of the losses.

    Each process has computed its part of the loss of the whole batch, so that sums are all there is to do.
    """
    import torch
    import torch.distributed as dist

    waiting = []
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        waiting.append(dist.all_reduce(weight.grad, async_op=True))
        device = weight.device if device is None else device
    total = torch.tensor([loss], dtype=torch.float64, device=device)
    waiting.append(dist.all_reduce(total, async_op=True))
    for work in waiting:
        work.wait()
    return float(total)


def full_tensor(tensor: Any) -> Any:
    """A tensor with all its shares; all processes have to ask for it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def like(tensor: Any, model: Any) -> Any:
    """A whole tensor in the shares of another one."""
    if not hasattr(model, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements)


def seed_of(seed: int, step: int, rank: int) -> int:
    """The seed of the dropout of a process in a step, so that processes draw apart, and again what they drew."""
    return random.Random(f"promptgrad dropout {seed} {step} {rank}").getrandbits(63)
