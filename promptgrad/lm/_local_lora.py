"""`LocalLora`: a local model with a LoRA, as an LM of its own; what `Local.lora` returns."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgrad.autograd import is_grad_enabled
from promptgrad.errors import LMError
from promptgrad.lm._codec import canonical_json
from promptgrad.lm._fingerprint import fingerprint_files, fingerprint_weights
from promptgrad.lm._local import Local
from promptgrad.lm._local_load import shape_of

if TYPE_CHECKING:
    import torch

    from promptgrad.lm._local_engine import LocalEngine

DEFAULTS: dict[str, Any] = {"r": 8, "alpha": 16, "dropout": 0.0, "target_modules": "all-linear"}
"""Options of a LoRA, and their defaults."""


def lora_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a LoRA, checked and complete.

    Raises:
        ValueError: One is not known, or out of range.
    """
    unknown = sorted(set(options) - set(DEFAULTS))
    if unknown:
        raise ValueError(f"a LoRA has the options r, alpha, dropout and target_modules, not {unknown[0]!r}")
    whole = {**DEFAULTS, **options}
    if not (isinstance(whole["r"], int) and whole["r"] > 0 and whole["alpha"] > 0 and 0 <= whole["dropout"] < 1):
        raise ValueError(f"a LoRA has an r and alpha above 0 and a dropout from 0 to below 1, not {whole}")
    if not isinstance(whole["target_modules"], str):
        whole["target_modules"] = sorted(whole["target_modules"])
    return whole


class LocalLora(Local):
    """A local model with a LoRA, as an LM of its own: what `Local.lora` returns.

    Source: Hu et al. 2021, arXiv 2106.09685.

    Args:
        base: The local LM whose weights, thread and batches it uses.
        title: Name of the LoRA.
        folder: Where it was saved; None for a new one.
        options: Options of a new one.

    Raises:
        ValueError: The title is no name, or options are given for one that was saved.

    Attributes:
        folder: Where it was saved; None for a new one.
    """

    def __init__(self, base: Local, title: str, folder: str | None = None, **options: Any) -> None:
        if not isinstance(title, str) or not re.fullmatch(r"\w[\w.-]*", title):
            raise ValueError(f"a LoRA's name has letters, digits, '.', '_' and '-', not {title!r}")
        if folder is not None and options:
            raise ValueError(f"the LoRA in {folder!r} has options of its own: leave out {', '.join(sorted(options))}")
        self._title = title
        self.folder = None if folder is None else _folder_of(Path(folder))
        self._options = lora_options(options)
        model = base._source if base._source is not None else base._model
        tokenizer = base._tokenizer if base._tokenizer is not None else base._tokenizer_source
        quantize = base.quantize if base._source is not None else None
        super().__init__(model, tokenizer, name=f"{base.name}:{title}", quantize=quantize, **base._settings())
        self.options = dict(base.options)
        self._base = base

    @property
    def title(self) -> str:
        """Name of the LoRA."""
        return self._title

    @property
    def made_of(self) -> tuple[str | None, dict[str, Any]]:
        """Folder and options; equal for two that begin alike."""
        return self.folder, self._options

    @property
    def base(self) -> Local:
        """The local LM whose weights, thread and batches it uses."""
        return self._base

    @property
    def model(self) -> Any:
        """The base's model with the matrices, which are its only parameters; loaded now if it is not yet."""
        self._load()
        return self._lora

    def lora(
        self, name: str, source: str | os.PathLike[str] | Mapping[str, Any] | None = None, **options: Any
    ) -> LocalLora:
        """Return the base with another LoRA."""
        return self._base.lora(name, source, **options)

    def check(self) -> None:
        """Look whether the LoRA of a folder is one of the base, as far as that is known before anything is loaded.

        Raises:
            LMError: It is not.
        """
        if self.folder is None:
            return
        try:
            model = shape_of(self._base)
            if model is not None:
                from promptgrad.lm._lora import check_lora

                check_lora(model, Path(self.folder))
        except Exception as error:  # transformers, safetensors and json have kinds of their own
            raise self._cannot_load(error) from error

    def _cannot_load(self, error: Exception) -> LMError:
        return LMError(f"cannot load the LoRA {self.title!r} of {self._base.name!r}: {error}")

    def requires_grad_(self, requires_grad: bool = True) -> Local:  # noqa: FBT001, FBT002 - as torch has it
        """Set whether the matrices of the LoRA require gradients."""
        self.model.requires_grad_(requires_grad)
        return self

    def named_weights(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Return the matrices of the LoRA that require gradients, with their names."""
        named = [] if self._lora is None else self._lora.named_parameters()
        return [(name, side) for name, side in named if side.requires_grad]

    def traces(self) -> bool:
        """True if a reply made here and now would carry a trace to the matrices."""
        return is_grad_enabled() and bool(self.weights())

    def version(self) -> int:
        """Return a number that changes whenever a weight or a matrix is changed in place."""
        return self._base.version() + (0 if self._lora is None else self._lora.version())

    def with_model(self, model: Any, name: str = "") -> Local:
        """Return the same LM with other matrices, or, of a model that is no LoRA of the base, what the base returns."""
        engine = self._load()
        if getattr(model, "rows", None) is not engine.decoder.loras:
            return self._base.with_model(model, name)
        made = LocalLora(self._base, self.title)
        made.name, made._engine, made._lora = name or self.name, engine, model
        model.made_with = -1  # these are in no folder
        return made

    def save_lora(self, folder: str | os.PathLike[str]) -> None:
        """Write the LoRA as peft does, as safetensors and JSON; `lm.lora(name, folder)` loads it."""
        self._load()
        if self._lora is not None:
            source = self._base._source or str(getattr(self._base.model, "name_or_path", ""))
            self._lora.save(Path(folder), source)

    def _is_trained(self) -> bool:
        return self._lora is not None and self._lora.version() != self._lora.made_with

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self._is_trained():
            raise TypeError(
                f"{self!r} has matrices that are in no folder, and a pickle would lose them: save the program, "
                "promptgrad.save(model, 'folder'), and load it in the other process"
            )
        return _again, (self._base, self.title, self.folder, {} if self.folder else self._options)

    def _weights_fingerprint(self) -> str:
        known, text = self._fingerprint
        version = 0 if self._lora is None else self._lora.version()
        if not text or known != version:
            if self._is_trained():
                text = f"{fingerprint_weights(self._lora)} {canonical_json(sorted(set(self._lora_scales())))}"
            elif self.folder is not None:
                text = fingerprint_files(self.folder)
            else:
                text = canonical_json({"title": self.title, **self._options})
            self._fingerprint = (version, text)
        return f"{self._base._weights_fingerprint()} {text}"

    def _lora_scales(self) -> list[float]:
        return [] if self._lora is None else list(self._lora.scales.values())

    def _load(self) -> LocalEngine:
        with self._lock:
            if self._engine is None:
                engine = self._base._load()
                from promptgrad.lm._lora import load_lora, new_lora

                rows = engine.decoder.loras
                try:
                    if self.folder is not None:
                        self._lora = load_lora(rows, Path(self.folder))
                    else:
                        self._lora = new_lora(rows, self.title, self._options)
                except Exception as error:  # safetensors and json have kinds of their own
                    raise self._cannot_load(error) from error
                self._engine = engine
            return self._engine

    def __repr__(self) -> str:
        return f"{self._base!r}.lora({self.title!r}{'' if self.folder is None else f', {self.folder!r}'})"


def _again(base: Local, title: str, folder: str | None, options: dict[str, Any]) -> Local:
    return base.lora(title, folder, **options)


def _folder_of(folder: Path) -> str:
    """The folder of a LoRA: this one, or `lora/` in that of a tuned model."""
    for place in (folder, folder / "lora"):
        if (place / "adapter_config.json").is_file():
            return str(place)
    raise ValueError(f"there is no LoRA in {str(folder)!r}: a folder of one has an adapter_config.json")
