"""How a local model is loaded: onto which device, in which type of numbers, whole or in 4 bits."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgrad.errors import MissingExtraError

if TYPE_CHECKING:
    from promptgrad.lm._local import Local


def pick_device(torch: Any, asked: Any) -> Any:
    """The device for a model: the one that was asked for, or for "auto" the best there is."""
    if str(asked) != "auto":
        return asked
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def pick_dtype(torch: Any, asked: Any, device: Any) -> Any:
    """The type of a model's numbers: the one that was asked for, else float32 on the CPU, and as saved elsewhere."""
    return asked or (torch.float32 if str(device) == "cpu" else "auto")


def model_class(transformers: Any, config: Any) -> Any:
    """The class that makes a model of a configuration."""
    return transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM


def load_tokenizer(transformers: Any, lm: Local) -> Any:
    """Load the tokenizer of a local model.

    Raises:
        ValueError: It is not known where it is.
    """
    source = lm._tokenizer_source or getattr(lm._model, "name_or_path", "")
    if not source:
        raise ValueError("a model object without a folder needs a tokenizer: Local(model, tokenizer)")
    return transformers.AutoTokenizer.from_pretrained(source, local_files_only=Path(source).is_dir())


def load_model(torch: Any, transformers: Any, lm: Local) -> Any:
    """Load the frozen model of a local model from its folder or by its name.

    Raises:
        MissingExtraError: It shall be in 4 bits, and bitsandbytes is not installed.
    """
    source = lm._source
    device = pick_device(torch, lm.device)
    more: dict[str, Any] = {"local_files_only": Path(str(source)).is_dir()}
    config = transformers.AutoConfig.from_pretrained(source, **more)
    if lm.quantize:
        more |= _in_four_bits(torch, transformers, device)
    noisy = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        model = model_class(transformers, config).from_pretrained(
            source, dtype=pick_dtype(torch, lm.dtype, device), use_safetensors=True, **more
        )
    finally:
        if noisy:
            transformers.utils.logging.enable_progress_bar()
    return (model if lm.quantize else model.to(device)).requires_grad_(requires_grad=False)


def _in_four_bits(torch: Any, transformers: Any, device: Any) -> dict[str, Any]:
    for package in ("bitsandbytes", "accelerate"):
        if find_spec(package) is None:
            raise MissingExtraError(
                f"quantize='4bit' needs {package}, which is not installed: pip install bitsandbytes accelerate",
                extra="local",
                package=package,
            )
    config = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32 if str(device) == "cpu" else torch.bfloat16,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def peak_memory() -> int:
    """The most memory that this process had, in bytes; 0 where that is not known."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
