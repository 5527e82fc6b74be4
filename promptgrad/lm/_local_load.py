"""How a local model is loaded: onto which device, in which type of numbers, whole or in 4 bits."""

from __future__ import annotations

import contextlib
import difflib
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgrad._patterns import late_pattern
from promptgrad.errors import LMError, MissingExtraError

if TYPE_CHECKING:
    from promptgrad.lm._local import Local


HUB_TIMEOUT = 10.0
"""Seconds that the hub may take to say whether it has a model."""


def is_here(source: str, *, endpoint: str | None = None) -> bool:
    """Whether a model is to be loaded from files of this machine alone: a folder, or what was downloaded before.

    The hub is asked once for what is no folder, because loading would ask it a dozen times, for 46 seconds.

    Args:
        source: A folder, or the name of a model of the hub.
        endpoint: Address of the hub; by default that of the environment.

    Raises:
        LMError: There is no such folder, and the hub has no such model, or cannot be reached while nothing of the model
            was downloaded before.
    """
    if Path(source).is_dir():
        return True
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        downloaded = isinstance(try_to_load_from_cache(source, "config.json"), str)
        if constants.HF_HUB_OFFLINE and downloaded:
            return True
        HfApi(endpoint=endpoint).model_info(source, timeout=HUB_TIMEOUT)
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise LMError(f"there is no folder {source!r}{near_folder(source)}, and the hub has no such model") from error
    except Exception as error:
        unreached = isinstance(error, (OSError, OfflineModeIsEnabled)) or _is_of_transport(error)
        if unreached and not downloaded:
            raise LMError(
                f"there is no folder {source!r}{near_folder(source)}, nothing of such a model was downloaded before, "
                f"and the hub cannot be reached: {error}"
            ) from error
        return unreached  # else it answered, but oddly: loading will say what it is
    return False


def _is_of_transport(error: Exception) -> bool:
    """Whether an error is one of the connection: the hub's client is httpx, under one of its names."""
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)


def near_folder(source: str) -> str:
    """What is said of a folder whose name is much like this one; empty where there is none."""
    path = Path(source)
    while not path.parent.is_dir():
        path = path.parent
    try:
        beside = sorted(entry.name for entry in path.parent.iterdir() if entry.is_dir())
    except OSError:  # a folder that may not be read
        return ""
    near = difflib.get_close_matches(path.name, beside, 1, 0.7)
    return f" (did you mean {str(path.parent / near[0])!r}?)" if near else ""


def pick_device(torch: Any, asked: Any) -> Any:
    """The device for a model: the one that was asked for, or for "auto" the best there is."""
    if str(asked) != "auto":
        return asked
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def pick_dtype(torch: Any, asked: Any, device: Any) -> Any:
    """The type of a model's numbers: the one that was asked for, else float32 on the CPU, and as saved elsewhere.

    Raises:
        LMError: It is no type of numbers that a model can have.
    """
    if asked is None:
        return torch.float32 if str(device) == "cpu" else "auto"
    found = getattr(torch, asked.removeprefix("torch."), None) if isinstance(asked, str) else asked
    if asked == "auto" or (isinstance(found, torch.dtype) and found.is_floating_point):
        return asked if asked == "auto" else found
    raise LMError(f"dtype is 'float32', 'bfloat16', 'float16', or 'auto' for that of the files, not {asked!r}")


_OF_ANOTHER_KIND = late_pattern(r"For(?:MaskedLM|\w*Classification|QuestionAnswering|MultipleChoice|NextSentence\w*)$")
"""Architectures whose weights a causal model may take, and which write no text."""


def config_of(transformers: Any, source: str, **more: Any) -> Any:
    """Read the configuration of a model that writes text. No code in its folder is run, and nobody is asked whether to.

    Raises:
        LMError: It is a model of another kind, or one that only code of its own can make.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False, **more)
    except ValueError as error:
        raise (_own_code(source) if _asks_for_code(error) else error) from error
    other = [name for name in getattr(config, "architectures", None) or () if _OF_ANOTHER_KIND.search(name)]
    if other:
        raise LMError(
            f"{source!r} holds a {other[0]}, which writes no text: take a causal or a sequence-to-sequence model"
        )
    return config


def _asks_for_code(error: Exception) -> bool:
    return "trust_remote_code" in str(error)


def _own_code(source: str) -> LMError:
    return LMError(
        f"{source!r} needs code of its own to be loaded, and code that comes with weights is not run here: take a "
        "model that transformers knows, or load it yourself and give the object, lm.Local(model, tokenizer)"
    )


def model_class(transformers: Any, config: Any) -> Any:
    """The class that makes a model of a configuration."""
    return transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM


def check_folder(source: str | None, *, weights: bool = True) -> None:
    """Say what is missing in a folder that shall hold a model; a name of the hub is not looked at.

    Args:
        source: The folder, or a name.
        weights: Whether its weights are needed too.

    Raises:
        LMError: It holds no model, or none with weights in safetensors files.
    """
    folder = Path(source or "")
    if not source or not folder.is_dir():
        return
    names = sorted(entry.name for entry in folder.iterdir())
    if "config.json" not in names:
        if "adapter_config.json" in names:
            raise LMError(
                f"there is an adapter in {source!r}, and no model: load its base, and put it beside that: "
                f"lm.Local(base).lora('name', {source!r})"
            )
        below = [str(folder / name) for name in names if (folder / name / "config.json").is_file()]
        near = f" (did you mean {', '.join(map(repr, below[:3]))}?)" if below else ""
        there = f"there are {', '.join(names[:5])}{', ...' * (len(names) > 5)}" if names else "it is empty"
        raise LMError(
            f"there is no model in {source!r}: a folder of one has config.json, *.safetensors and a tokenizer, and "
            f"{there}{near}"
        )
    read_json(folder / "config.json")
    if weights and not any(name.endswith(".safetensors") for name in names):
        pickled = [name for name in names if name.endswith((".bin", ".pt", ".pth"))]
        why = (
            f"{pickled[0]} is a pickle, which can run code when it is read; save_pretrained of transformers converts it"
            if pickled
            else "they were not saved, or not copied with config.json"
        )
        raise LMError(f"there are no weights in {source!r}, which are *.safetensors: {why}")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file that came with weights.

    Raises:
        LMError: It holds none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}, and no object")
    except (ValueError, OSError, RecursionError) as error:
        raise LMError(f"{str(path)!r} cannot be read: {error}{_pointer(path)}") from error
    return found


def check_weights(folder: Path) -> None:
    """Say which file of weights in a folder cannot be read.

    Raises:
        LMError: One is damaged.
    """
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(str(path), framework="pt"):
                pass
        except Exception as error:  # safetensors has kinds of its own
            raise LMError(
                f"{str(path)!r} cannot be read: {error}{_pointer(path) or '. It was cut or changed: copy it again'}"
            ) from error


def _pointer(path: Path) -> str:
    """What is said of a file that only tells where Git keeps the real one; "" of any other."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        if file.read(24).startswith(b"version https://git-lfs"):
            return ". It is a pointer of Git LFS, and not the file: git lfs pull fetches it"
    return ""


def load_tokenizer(transformers: Any, lm: Local) -> Any:
    """Load the tokenizer of a local model.

    Raises:
        ValueError: It is not known where it is.
        LMError: There is none in the folder.
    """
    source = lm._tokenizer_source or getattr(lm._model, "name_or_path", "")
    if not source:
        raise ValueError("a model object without a folder needs a tokenizer: Local(model, tokenizer)")
    here = is_here(source)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, local_files_only=here, trust_remote_code=False)
        special = set(tokenizer.all_special_ids)
        words = [token for token in tokenizer.get_vocab().values() if token not in special]
        texts = [tokenizer.decode([token]) for token in words[:: max(1, len(words) // 8)]]
        if not any(tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts):
            raise ValueError(
                "it makes no tokens of its own words"
            )  # an empty one, made of no files, or of another class
        return tokenizer
    except Exception as error:  # transformers and tokenizers each have kinds of their own
        if _asks_for_code(error):
            raise _own_code(source) from error
        if not Path(source).is_dir():
            raise
        reason = str(error).partition("\n")[0].rstrip(": ")
        raise LMError(
            f"there is no tokenizer in {source!r} that can be loaded ({reason}): copy it there "
            "(tokenizer.save_pretrained writes it), or give one, lm.Local(model, tokenizer)"
        ) from error


def load_model(torch: Any, transformers: Any, lm: Local) -> Any:
    """Load the frozen model of a local model from its folder or by its name.

    Raises:
        MissingExtraError: It shall be in 4 bits, and bitsandbytes is not installed.
        LMError: The weights in the folder are not those of its configuration.
    """
    source = lm._source
    device = pick_device(torch, lm.device)
    more: dict[str, Any] = {"local_files_only": is_here(str(source))}
    config = config_of(transformers, str(source), **more)
    if lm.quantize:
        more |= _in_four_bits(torch, transformers, device)
    noisy = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        model, found = model_class(transformers, config).from_pretrained(
            source,
            dtype=pick_dtype(torch, lm.dtype, device),
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are told below
            output_loading_info=True,
            trust_remote_code=False,
            **more,
        )
    except Exception:
        if Path(str(source)).is_dir():
            check_weights(Path(str(source)))
        raise
    finally:
        if noisy:
            transformers.utils.logging.enable_progress_bar()
    lacking = [*sorted(found["missing_keys"]), *sorted(key[0] for key in found["mismatched_keys"])]
    if lacking:
        raise LMError(
            f"the weights in {source!r} are not those of a {type(model).__name__}, which its config.json asks for: "
            f"{len(lacking)} of its weights are not there, or of another shape ({', '.join(lacking[:3])}"
            f"{', ...' * (len(lacking) > 3)})"
        )
    return (model if lm.quantize else model.to(device)).requires_grad_(requires_grad=False)


def shape_of(lm: Local) -> Any:
    """The model of a local model for a look at its layers; None where neither it nor a folder of it is here.

    It has no memory for its weights where it is not loaded.
    """
    if lm._engine is not None or lm._model is not None:
        return lm._model if lm._engine is None else lm._engine.model
    if lm._source is None or not (Path(lm._source) / "config.json").is_file():
        return None
    try:
        import torch
        import transformers
    except ImportError:
        return None  # the first use says so
    config = config_of(transformers, lm._source, local_files_only=True)
    with torch.device("meta"):
        return model_class(transformers, config).from_config(config)


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
