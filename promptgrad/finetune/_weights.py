"""A copy of a local model whose weights can be trained, and the ordinary model that it becomes."""

from __future__ import annotations

import copy
from typing import Any

from promptgrad import lm
from promptgrad.finetune._train import add_lora
from promptgrad.finetune._training import TuneSettings


def prepared(local: lm.Local, settings: TuneSettings) -> Any:
    """A copy of the model in which the weights that are trained require a gradient: all, or those of a new LoRA."""
    import torch

    if local.threads is not None:
        torch.set_num_threads(local.threads)
    model = copy.deepcopy(local.model)
    if local.base is not local:
        return model.requires_grad_(True)  # noqa: FBT003 - torch's own
    if next(model.parameters()).dtype == torch.float16:
        model.float()  # half precision cannot be trained without loss scaling
    model.requires_grad_(settings.lora is None)
    return model if settings.lora is None else add_lora(model, settings.lora)


def merged(local: lm.Local, model: Any, settings: TuneSettings) -> tuple[Any, Any]:
    """The trained model, frozen, its LoRA merged into its weights; and that LoRA: options, weights, base; or None."""
    lora = None
    if settings.lora is not None and hasattr(model, "peft_config"):
        from peft import get_peft_model_state_dict

        weights = {name: w.detach().cpu().clone() for name, w in get_peft_model_state_dict(model).items()}
        paths = {name.removeprefix("base_model.model.").partition(".lora_")[0] for name in weights}
        lora = (model.peft_config["default"], weights, local.adapter_metadata(paths))
        model = model.merge_and_unload()
    model.requires_grad_(False)  # noqa: FBT003 - torch's own
    return model, lora
