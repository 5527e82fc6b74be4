"""`Lora`: a model with low-rank matrices beside its linear layers; several of them share one base.

The base stays as it is: its linear layers get a forward hook each, which adds what the matrices of a row's LoRA make of
the layer's input.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from promptgrad._files import whole_folder
from promptgrad.lm._adapted import Adapted
from promptgrad.lm._fingerprint import fingerprint_layers
from promptgrad.lm._local_load import check_weights, read_json
from promptgrad.lm._lora_rows import LoraRows

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


BASE = "promptgrad.base"
"""Key of the base's fingerprint in the metadata of a file of matrices."""

_PREFIX = "base_model.model."  # before the path of a layer, in peft's files
_UNKNOWN_START = ("pissa", "corda", "olora", "loftq", "lora_ga")  # their matrices belong to changed base weights

T = TypeVar("T")

Pairs = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""By the path of a layer: its matrices down, (r, inputs), and up, (outputs, r)."""


class Lora(Adapted):
    """A model with low-rank matrices beside its linear layers; only these are its parameters.

    It is called as its base is. In training mode it drops out inputs of the matrices, and leaves the base's mode alone.
    Source: Hu et al. 2021, arXiv 2106.09685.

    Args:
        rows: The switch of the base.
        pairs: The matrices.
        scales: By the path of a layer: the factor of what its matrices make.
        options: What it was made with: `r`, `alpha`, `dropout`, `target_modules`.
    """

    def __init__(self, rows: LoraRows, pairs: Pairs, scales: Mapping[str, float], options: Mapping[str, Any]) -> None:
        super().__init__(rows, dict(options))
        self.scales = dict(scales)
        self.dropout = float(options.get("dropout") or 0.0)
        self.matrices: dict[str, tuple[torch.nn.Parameter, torch.nn.Parameter]] = {}
        for path, (down, up) in pairs.items():
            pair = tuple(_parameter(side) for side in (down, up))
            for name, side in zip(("lora_A", "lora_B"), pair, strict=True):
                self.register_parameter(f"{path.replace('.', '/')}/{name}", side)
            self.matrices[path] = (pair[0], pair[1])
        self.begin()

    def copy(self) -> Lora:
        """Return another one with the same base and matrices of its own."""
        pairs = {path: (down.detach().clone(), up.detach().clone()) for path, (down, up) in self.matrices.items()}
        return Lora(self.rows, pairs, self.scales, self.options)

    def onto(self, rows: LoraRows) -> Lora:
        """Return another one with these very matrices, on another base of the same shape."""
        return Lora(rows, self.matrices, self.scales, self.options)

    def delta(self, path: str, inputs: torch.Tensor) -> torch.Tensor | None:
        """Return what is added to the output of a layer; None where it has no matrices."""
        pair = self.matrices.get(path)
        if pair is None:
            return None
        down, up = pair
        inputs = inputs.to(down.dtype)
        if self.training and self.dropout:
            inputs = torch.nn.functional.dropout(inputs, self.dropout)
        linear = torch.nn.functional.linear
        return linear(linear(inputs, down), up) * self.scales[path]

    def save(self, folder: Path, base: str) -> None:
        """Write the matrices and their options as peft does.

        Args:
            folder: Where to.
            base: Folder or name of the base.
        """
        tensors = {}
        for path, pair in self.matrices.items():
            for name, side in zip(("lora_A", "lora_B"), pair, strict=True):
                tensors[f"{_PREFIX}{path}.{name}.weight"] = side.detach().cpu().contiguous()
        ranks = {path: down.shape[0] for path, (down, _) in self.matrices.items()}
        alphas = {path: self.scales[path] * ranks[path] for path in self.matrices}
        r, alpha = _commonest(ranks.values()), _commonest(alphas.values())
        config = {
            "peft_type": "LORA",
            "task_type": "SEQ_2_SEQ_LM" if self.config.is_encoder_decoder else "CAUSAL_LM",
            "base_model_name_or_path": base,
            "inference_mode": True,
            "r": r,
            "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
            "rank_pattern": {re.escape(path): own for path, own in ranks.items() if own != r},
            "alpha_pattern": {re.escape(path): own for path, own in alphas.items() if own != alpha},
            "lora_dropout": self.dropout,
            "target_modules": _names(self.matrices, self.get_base_model()),
            "fan_in_fan_out": any(_is_transposed(self.rows.model.get_submodule(path)) for path in self.matrices),
            "bias": "none",
        }
        with whole_folder(folder) as place:
            save_file(tensors, str(place / WEIGHTS_FILE), metadata=about_base(self.rows.model, self.matrices))
            (place / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")


def about_base(model: Any, paths: Iterable[str]) -> dict[str, str]:
    """What a file of matrices says of their base, as metadata of safetensors, which peft leaves unread."""
    known = fingerprint_layers(model, paths)
    return {"format": "pt", **({BASE: known} if known else {})}


def _parameter(side: torch.Tensor) -> torch.nn.Parameter:
    return side if isinstance(side, torch.nn.Parameter) else torch.nn.Parameter(side, requires_grad=False)


def new_lora(rows: LoraRows, name: str, options: Mapping[str, Any]) -> Lora:
    """Make a LoRA that changes nothing yet: random matrices down, the same for the same name, and zeros up.

    Raises:
        ValueError: No layer has the names in `target_modules`, or the model has a LoRA of peft in it.
    """
    if hasattr(rows.model, "peft_config"):
        raise ValueError("the model has a LoRA of peft in it: merge it first, model.merge_and_unload()")
    paths = _targets(rows.model, options["target_modules"])
    pairs = {}
    for path in paths:
        layer = rows.model.get_submodule(path)
        (inputs, outputs), device = _size(layer), layer.weight.device
        seed = int.from_bytes(hashlib.blake2b(f"lora {name} {path}".encode(), digest_size=7).digest(), "big")
        bound = 1 / math.sqrt(inputs)
        down = torch.empty(options["r"], inputs)
        down.uniform_(-bound, bound, generator=torch.Generator().manual_seed(seed))
        pairs[path] = (down.to(device), torch.zeros(outputs, options["r"], device=device))
    return Lora(rows, pairs, dict.fromkeys(paths, options["alpha"] / options["r"]), options)


def load_lora(rows: LoraRows, folder: Path) -> Lora:
    """Read a LoRA that peft, or `Lora.save`, wrote.

    Raises:
        ValueError: There is none, it is of a kind that is not known here, or it is not one of this model.
    """
    config = read_config(folder)
    check_weights(folder)
    sides = _sides(folder, load_file(str(folder / WEIGHTS_FILE)))
    _check_fit(rows.model, folder, {path: _shapes(both) for path, both in sides.items()})
    _check_base(rows.model, folder, sides, str(config.get("base_model_name_or_path") or ""))
    pairs, scales = {}, {}
    for path, both in sides.items():
        device = rows.model.get_submodule(path).weight.device
        down, up = (both[name].to(device, torch.float32) for name in ("lora_A", "lora_B"))
        alpha = _by_pattern(config.get("alpha_pattern") or {}, path, config["lora_alpha"])
        rank = down.shape[0]
        scales[path] = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        pairs[path] = (down, up)
    options = {
        "r": config.get("r", 8),
        "alpha": config["lora_alpha"],
        "dropout": config.get("lora_dropout", 0.0),
        "target_modules": config.get("target_modules"),
    }
    return Lora(rows, pairs, scales, options)


def check_lora(model: Any, folder: Path) -> None:
    """Look whether a LoRA in a folder is one of this model; its numbers are not read.

    Raises:
        ValueError: There is none, it is of a kind that is not known here, or it is not one of this model.
    """
    read_config(folder)
    check_weights(folder)
    with safe_open(str(folder / WEIGHTS_FILE), framework="pt") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - it is no mapping
    _check_fit(model, folder, _sides(folder, shapes))


def _sides(folder: Path, weights: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """What is known of the two matrices of each layer, by its path."""
    sides: dict[str, dict[str, T]] = {}
    for key, weight in weights.items():
        found = re.fullmatch(rf"{re.escape(_PREFIX)}(.+)\.(lora_[AB])\.weight", key)
        if found is None:
            raise ValueError(f"{folder} has weights that are no LoRA of linear layers: {key}")
        sides.setdefault(found[1], {})[found[2]] = weight
    return sides


def _shapes(both: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(side.shape) for name, side in both.items()}


def _check_fit(model: Any, folder: Path, sides: Mapping[str, Mapping[str, tuple[int, ...]]]) -> None:
    misfits = [misfit for path, both in sides.items() if (misfit := _misfit(model, path, both))]
    if misfits or not sides:
        what = "; ".join(misfits[:3]) or "it has no weights"
        raise ValueError(f"the adapter in {folder} is not one of this model: {what}")


def _check_base(model: Any, folder: Path, paths: Iterable[str], named: str) -> None:
    """Look whether the layers hold the weights that the LoRA was trained on, as far as its files say which.

    Args:
        model: The base.
        folder: Where the LoRA is.
        paths: The layers.
        named: What the LoRA's settings call its base: a folder, or a name of the hub.
    """
    with safe_open(str(folder / WEIGHTS_FILE), framework="pt") as file:
        there = (file.metadata() or {}).get(BASE, "")
    here = fingerprint_layers(model, paths) if there else ""
    if there and there.split(" ")[0] == here.split(" ")[0]:
        if there != here:
            raise ValueError(
                f"the adapter in {folder} is not one of this model: it was trained on other weights of the same "
                f"shapes. Load its own base, or remove {BASE!r} from the metadata of {WEIGHTS_FILE} if this is meant"
            )
        return
    same = _has_weights_of(model, Path(named), paths) if named and Path(named).is_dir() else None
    if same is False:
        raise ValueError(
            f"the adapter in {folder} is not one of this model: it was trained on {named!r}, whose weights are others "
            f"of the same shapes. Load that, or take base_model_name_or_path out of {CONFIG_FILE} if this is meant"
        )
    own = str(getattr(model, "name_or_path", ""))
    if same is None and named and own and Path(named).name.lower() not in own.lower():
        warnings.warn(
            f"the adapter in {folder} says that it was trained on {named!r}, and this is {own!r}: if these are not the "
            "same weights, its replies are worth nothing",
            stacklevel=2,
        )


_LOOKED_AT = 8
"""Layers in which two bases are compared."""


def _has_weights_of(model: Any, folder: Path, paths: Iterable[str]) -> bool | None:
    """Whether some layers of a model are those in the files of a folder; None where they have other names there."""
    files = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(str(path), framework="pt") as file:
            files.update(dict.fromkeys(file.keys(), path))
    whole = sorted(paths)
    for layer in whole[:: max(1, len(whole) // _LOOKED_AT)]:
        here = model.get_submodule(layer).weight
        found = files.get(f"{layer}.weight")
        if found is None or not here.is_floating_point():
            return None
        with safe_open(str(found), framework="pt") as file:
            there = file.get_tensor(f"{layer}.weight")
        if there.shape != here.shape or not torch.equal(there.to(here.dtype), here.detach().cpu()):
            return False
    return True


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check the settings of a LoRA in a folder.

    Raises:
        ValueError: There is none, or it is of a kind that is not known here.
    """
    if not (folder / CONFIG_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
        raise ValueError(f"{folder} holds no adapter: there is no {CONFIG_FILE} with {WEIGHTS_FILE}")
    config = {"lora_alpha": 8, **read_json(folder / CONFIG_FILE)}
    alphas = [config["lora_alpha"], *(config.get("alpha_pattern") or {}).values()]
    if not all(isinstance(alpha, (int, float)) for alpha in alphas):
        raise ValueError(f"{str(folder / CONFIG_FILE)!r} has a lora_alpha that is no number")
    odd = [f"peft_type={config.get('peft_type')!r}"] if config.get("peft_type") != "LORA" else []
    odd += [name for name in ("use_dora", "use_qalora", "layer_replication", "lora_bias") if config.get(name)]
    odd += [f"bias={config['bias']!r}"] if config.get("bias", "none") != "none" else []
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_UNKNOWN_START):
        odd.append(f"init_lora_weights={start!r}")
    if odd:
        raise ValueError(
            f"the adapter in {folder} is no plain LoRA ({', '.join(odd)}): merge it into the model with peft, "
            "merge_and_unload(), and load that"
        )
    return config


def _misfit(model: Any, path: str, both: Mapping[str, tuple[int, ...]]) -> str:
    try:
        layer = model.get_submodule(path)
    except AttributeError:
        return f"the model has no layer {path}"
    if not _is_linear(layer):
        return f"layer {path} is no linear layer but a {type(layer).__name__}"
    if set(both) != {"lora_A", "lora_B"}:
        return f"layer {path} has one of its two matrices only"
    there = (both["lora_A"][1], both["lora_B"][0])
    here = _size(layer)
    if there != here:
        return f"layer {path} maps {there[0]} to {there[1]} numbers there, and {here[0]} to {here[1]} here"
    return ""


def _is_transposed(layer: Any) -> bool:
    return type(layer).__name__ == "Conv1D"


def _is_linear(layer: Any) -> bool:
    return isinstance(layer, torch.nn.Linear) or _is_transposed(layer)


def _size(layer: Any) -> tuple[int, int]:
    """Numbers of a layer's inputs and outputs."""
    if _is_transposed(layer):
        return layer.weight.shape[0], layer.weight.shape[1]
    return layer.in_features, layer.out_features


def _targets(model: Any, wanted: str | Iterable[str]) -> list[str]:
    """Paths of the linear layers that are meant, the output layer's excepted unless it is named."""
    linear = {path: layer for path, layer in model.named_modules() if _is_linear(layer)}
    if wanted == "all-linear":
        head = model.get_output_embeddings()
        return [path for path, layer in linear.items() if layer is not head]
    if isinstance(wanted, str):
        found = [path for path in linear if re.fullmatch(wanted, path)]
    else:
        names = tuple(wanted)
        found = [path for path in linear if any(path == name or path.endswith(f".{name}") for name in names)]
    if not found:
        ends = sorted({path.rpartition(".")[2] for path in linear})
        raise ValueError(f"no linear layer is one of target_modules={wanted!r}; there are {', '.join(ends)}")
    return found


def _names(paths: Iterable[str], model: Any) -> list[str]:
    """The last parts of paths where they mean the same layers, else the paths."""
    whole = sorted(paths)
    ends = sorted({path.rpartition(".")[2] for path in whole})
    return ends if sorted(_targets(model, ends)) == whole else whole


def _by_pattern(patterns: Mapping[str, Any], path: str, default: Any) -> Any:
    for pattern, value in patterns.items():
        if re.fullmatch(rf"(.*\.)?({pattern})", path):
            return value
    return default


def _commonest(values: Iterable[float]) -> Any:
    own = list(values)
    return max(own, key=own.count)
