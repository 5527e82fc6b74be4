"""Weights that the processes of a group hold in shares (FSDP), by torch's `fully_shard`."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from promptgrad._accepts import Accepts, is_seq2seq
from promptgrad.finetune._ranks import full_tensor, rank_and_ranks
from promptgrad.finetune._training import Share
from promptgrad.lm import Scored, Tokens, passes, reply_logprobs

T = TypeVar("T")

KINDS = ("full_shard", "shard_grad_op")
"""What is held in shares, in torch's words: everything at all times, or weights and gradients between steps alone."""


class Sharding:
    """A model whose weights, gradients and moments lie in shares over the processes of a group.

    With `full_shard` the weights of a layer are gathered for its passes and let go behind them, and gradients are added
    up in each backward pass, so every process has to make as many passes (`parts`), and prefixes are not shared: the
    graph of a prefix would need weights that are gone. With `shard_grad_op` weights are gathered once a step, passes
    are free, and gradients are added up in one last pass over a token.

    Source: Zhao et al. 2023, arXiv 2304.11277; Rajbhandari et al. 2020, arXiv 1910.02054.

    Args:
        model: The model, whole, before anything is put around it.
        kind: One of `KINDS`.

    Raises:
        ValueError: There is no group of processes.
    """

    def __init__(self, model: Any, kind: str) -> None:
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()):
            raise ValueError(
                "fsdp= holds weights in shares over the processes of a group, and there is none: start with torchrun "
                "(python -m promptgrad.finetune does the rest), or call torch.distributed.init_process_group"
            )
        self._ranks = rank_and_ranks()[1]
        self.full = kind == "full_shard"
        self._skeleton = _without_weights(model)
        self._layers = {*(getattr(model, "_no_split_modules", None) or ())}
        self._model: Any = None

    def shard(self, model: Any) -> None:
        """Put the weights of a model into shares, layer by layer; the model is the same object."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(next(model.parameters()).device.type, (self._ranks,))
        layers = [module for module in model.modules() if type(module).__name__ in self._layers]
        for layer in (*layers, model):
            fully_shard(layer, mesh=mesh, reshard_after_forward=self.full)
        self._model = model

    @contextlib.contextmanager
    def gradient(self) -> Iterator[None]:
        """Around the passes of one step, at whose end each process has its share of the gradients of all."""
        model = self._model
        if not self.full:
            model.set_requires_gradient_sync(False)
            model.set_reshard_after_backward(False)
            for part in model.modules():
                if hasattr(part, "unshard"):
                    part.unshard()
        yield
        if not self.full:
            model.set_requires_gradient_sync(True)
            model.set_reshard_after_backward(True)
            idle(model)
        for weight in model.parameters():
            if weight.grad is not None:
                weight.grad.mul_(self._ranks)  # torch took the mean, and each process has its part of the whole loss

    def whole(self, options: Callable[[Any], Any]) -> Any:
        """The trained model with all its weights, in every process.

        Args:
            options: Puts around a model what the trained one has around it, such as a LoRA.
        """
        made = options(self._skeleton)
        known = made.state_dict()
        told = {}
        for name, weight in self._model.state_dict().items():
            told[name] = full_tensor(weight).detach().to(known[name].dtype, copy=True)
        made.load_state_dict(told, assign=True)
        (made.get_base_model() if hasattr(made, "get_base_model") else made).tie_weights()
        return made


def parts(
    model: Any, batch: Sequence[T], share: Share, rows: Callable[[Sequence[T]], list[Tokens]]
) -> Iterator[Scored]:
    """The rows of a process's share of a batch, part by part, as `lm.reply_logprobs` gives them.

    Where the weights lie in shares, each process makes as many passes as the one that has most.

    Args:
        model: The model.
        batch: The samples of all processes.
        share: Which of them are this one's.
        rows: Samples in tokens.
    """
    yield from reply_logprobs(model, rows(share.of(batch)), shared=not share.apart, limit=share.limit)
    if share.apart:
        counts = [passes(rows(batch[rank :: share.ranks]), limit=share.limit) for rank in range(share.ranks)]
        for _ in range(max(counts) - counts[share.rank]):
            idle(model)


def idle(model: Any) -> None:
    """A pass over one token that adds nothing, for the others in the group."""
    import torch

    ids = torch.zeros((1, 1), dtype=torch.long, device=model.device)
    if is_seq2seq(model):
        out = model(input_ids=ids, decoder_input_ids=ids[:, :1], use_cache=False)
    else:
        out = model(input_ids=ids, use_cache=False, **Accepts(model).last(1))
    if torch.is_grad_enabled():
        (out.logits.float().sum() * 0).backward()


def _without_weights(model: Any) -> Any:
    """A copy of a model with weights that take no memory."""
    import torch

    memo: dict[int, Any] = {
        id(weight): torch.nn.Parameter(torch.empty_like(weight, device="meta"), weight.requires_grad)
        for weight in model.parameters()
    }
    return copy.deepcopy(model, memo)
