"""`LocalSoft`: a local model with a soft prompt, as an LM of its own; what `SoftTokens.on` returns."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgrad._files import whole_folder
from promptgrad.autograd import is_grad_enabled
from promptgrad.errors import LMError
from promptgrad.lm._local import Local
from promptgrad.lm._local_lora import LocalLora

if TYPE_CHECKING:
    import torch

    from promptgrad.lm._local_engine import LocalEngine
    from promptgrad.lm._soft_tokens import SoftTokens


class LocalSoft(LocalLora):
    """A local model with vectors before every prompt, as an LM of its own, on the weights and batches of its base.

    Args:
        under: The local LM, or one with a LoRA, whose matrices stay as they are.
        tokens: The vectors.
    """

    def __init__(self, under: Local, tokens: SoftTokens) -> None:
        super().__init__(under.base, "soft_prompt")
        self.name = f"{under.name}:soft_prompt"
        self.options = dict(under.options)
        self._under = under
        self.tokens = tokens
        if tokens.name:
            self.name = tokens.name

    @property
    def made_of(self) -> tuple[str | None, dict[str, Any]]:
        """What the vectors are; equal for two that are alike."""
        return f"{self.tokens.id} {self._under.title}", {}

    def requires_grad_(self, requires_grad: bool = True) -> Local:  # noqa: FBT001, FBT002 - as torch has it
        """Set whether the vectors require gradients."""
        self.tokens.requires_grad = requires_grad
        return self

    def named_weights(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Return the vectors and the matrices of a LoRA, as far as they require gradients, with their names.

        The model is loaded now if it is not yet, where the vectors do.
        """
        matrices = [] if self._under is self._base else self._under.named_weights()
        if not self.tokens.requires_grad:
            return matrices
        vectors = [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]
        return vectors + matrices

    def traces(self) -> bool:
        """True if a reply made here and now would carry a trace to the vectors, or to the matrices of a LoRA."""
        return is_grad_enabled() and (self.tokens.requires_grad or self._under.traces())

    def with_model(self, model: Any, name: str = "") -> Local:
        """Return the same LM with other vectors, or, of a model that has none, what the base returns."""
        from promptgrad.lm._soft_vectors import SoftVectors

        engine = self._load()
        if not isinstance(model, SoftVectors) or model.rows is not engine.decoder.loras:
            return self._base.with_model(model, name)
        made = type(self.tokens).of(model, self._base, name or self.name).on(self._under)
        assert isinstance(made, LocalSoft)  # noqa: S101 - the base has no layers
        made._engine, made._lora = engine, model
        return made

    def save_lora(self, folder: str | os.PathLike[str]) -> None:
        """Write the vectors as peft does its prompt tuning, as safetensors and JSON, for servers that know peft.

        `promptgrad.save(program, folder)` writes them with their program.
        """
        from safetensors.torch import save_file

        vectors = self.model.vectors.detach().float().cpu().contiguous()
        config = self.model.config
        told = {
            "peft_type": "PROMPT_TUNING",
            "task_type": "SEQ_2_SEQ_LM" if config.is_encoder_decoder else "CAUSAL_LM",
            "base_model_name_or_path": self._base._source or str(getattr(self._base.model, "name_or_path", "")),
            "inference_mode": True,
            "num_virtual_tokens": len(vectors),
            "token_dim": vectors.shape[1],
            "num_transformer_submodules": 1,
            "num_attention_heads": config.num_attention_heads,
            "num_layers": config.num_hidden_layers,
            "prompt_tuning_init": "RANDOM",
        }
        with whole_folder(Path(folder)) as place:
            save_file({"prompt_embeddings": vectors}, place / "adapter_model.safetensors", metadata={"format": "pt"})
            (place / "adapter_config.json").write_text(json.dumps(told, indent=2) + "\n")

    def _is_trained(self) -> bool:
        return False  # for files of weights: the vectors are in the program's state

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _again, (self.tokens, self._under)

    def _weights_fingerprint(self) -> str:
        known, text = self._fingerprint
        version = 0 if self.tokens.vectors is None else self.tokens.vectors._version
        if not text or known != version:
            text = self.tokens.id
            self._fingerprint = (version, text)
        return f"{self._under._weights_fingerprint()} soft prompt {text}"

    def _leading(self) -> tuple[int, ...]:
        self._load()
        return () if self._lora is None else self._lora.leading

    def _load(self) -> LocalEngine:
        with self._lock:
            if self._engine is None:
                engine = self._under._load()
                try:
                    self._lora = self.tokens.bind(self._base, engine, self._under._lora)
                except Exception as error:  # safetensors and torch have kinds of their own
                    raise LMError(
                        f"cannot put a soft prompt before the prompts of {self._base.name!r}: {error}"
                    ) from error
                engine.model.requires_grad_(requires_grad=False)
                self._engine = engine
            return self._engine

    def __repr__(self) -> str:
        return f"LocalSoft({self.tokens!r}, {self._under!r})"


def _again(tokens: SoftTokens, under: Local) -> Any:
    return tokens.on(under)
