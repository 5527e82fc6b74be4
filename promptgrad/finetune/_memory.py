"""What makes a training fit into memory: activations computed twice, half precision; and what says that it did not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import wraps
from typing import Any

from promptgrad.errors import OutOfMemoryError

LEAST_TOKENS = 64
"""Parts of a batch are not made smaller than this."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: torch's own, that of its allocator for CPUs, or Python's."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        text in str(error) for text in ("can't allocate memory", "not enough memory", "out of memory")
    )


def no_room(step: int, limit: int, reason: str) -> OutOfMemoryError:
    """The error of a step that does not fit even in the smallest parts."""
    return OutOfMemoryError(
        f"the gradient of step {step + 1} does not fit into memory, also in parts of {limit} tokens ({reason}); the "
        f"weights are those of step {step}. What takes less: gradient_checkpointing=True, dtype='bfloat16', a LoRA "
        "(lora=) in place of all weights, a lower max_length, or a smaller model"
    )


@contextlib.contextmanager
def checkpointed(model: Any, *, wanted: bool) -> Iterator[None]:
    """Have each layer keep its input alone and compute the rest again in the backward pass, while the model trains.

    Raises:
        ValueError: The model has no such layers.
    """
    if not wanted:
        yield
        return
    how: dict[str, Any] = {"use_reentrant": False}
    with contextlib.ExitStack() as stack:
        base = model
        if hasattr(model, "apart"):  # what goes along with a pass is to go along with its repetition
            base, how["context_fn"] = model.get_base_model(), model.recomputing
        stack.enter_context(_no_hook_stays(base))
        word = "activation" if hasattr(base, "activation_checkpointing_enable") else "gradient"  # since 5.24
        getattr(base, f"{word}_checkpointing_enable")(how)
        stack.callback(getattr(base, f"{word}_checkpointing_disable"))
        if base is not model:  # its layers stay in evaluation mode
            stack.enter_context(checkpointed_in_eval(base))
        yield


@contextlib.contextmanager
def _no_hook_stays(model: Any) -> Iterator[None]:
    """Take off what transformers and peft hook onto a model that is checkpointed, which they leave there.

    What a prompt is embedded as would require a gradient for ever, and the model could not be pickled.
    """
    before = {module: set(module._forward_hooks) for module in model.modules()}
    try:
        yield
    finally:
        if hasattr(model, "disable_input_require_grads"):
            model.disable_input_require_grads()
        for module, known in before.items():
            for number in set(module._forward_hooks) - known:
                del module._forward_hooks[number]


def apart(model: Any, *, wanted: bool) -> Any:
    """A LoRA or soft prompt on layers of its own where these shall be checkpointed: those of the base answer meanwhile.

    Any other model as it is.
    """
    return model.apart() if wanted and hasattr(model, "apart") else model


@contextlib.contextmanager
def checkpointed_in_eval(model: Any) -> Iterator[None]:
    """Let layers that are checkpointed be so in a model in evaluation mode, where nothing is dropped out.

    transformers looks at the mode of the layer itself; what drops out are modules inside of it, whose mode stays.

    Raises:
        ValueError: A layer drops out on its own.
    """
    layers = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    for layer in layers:
        own = [name for name, value in vars(layer).items() if "drop" in name and isinstance(value, float) and value]
        if own:
            raise ValueError(
                f"gradient_checkpointing would drop out ({own[0]}={getattr(layer, own[0])} of "
                f"{type(layer).__name__}), and what was sampled was not: leave it out, or give a model with {own[0]}=0"
            )
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False


@contextlib.contextmanager
def autocast(model: Any, dtype: str | None) -> Iterator[None]:
    """Have the model's forward pass compute in another type where torch finds that safe, while its weights stay.

    Each forward pass is a block of its own: within one block torch keeps the weights that it has cast, and what was
    cast without a graph would be taken in a pass with one.
    """
    if dtype is None:
        yield
        return
    import torch

    device, forward = next(model.parameters()).device.type, model.forward

    @wraps(forward)
    def cast(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, dtype=getattr(torch, dtype)):
            return forward(*args, **kwargs)

    model.forward = cast
    try:
        yield
    finally:
        del model.forward


@contextlib.contextmanager
def masters(model: Any, *, wanted: bool) -> Iterator[None]:
    """Keep the weights that are trained in float32, and give them back their type."""
    import torch

    narrow = [weight for weight in model.parameters() if wanted and weight.requires_grad and weight.dtype.itemsize < 4]
    types = [weight.dtype for weight in narrow]
    for weight in narrow:
        weight.data = weight.data.to(torch.float32)
    try:
        yield
    finally:
        for weight, dtype in zip(narrow, types, strict=True):
            weight.data = weight.data.to(dtype)
