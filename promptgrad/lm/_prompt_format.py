"""`PromptFormat`: the name of a local model's adapter, which can be called, since peft calls a LoRA an adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptgrad.lm._local import Local
    from promptgrad.lm._local_lora import LocalLora


class PromptFormat(str):
    """The name of the adapter that writes prompts for a local LM. Called, it is `lm.lora`: peft says adapter too."""

    __slots__ = ("lm",)
    lm: Local

    def __call__(self, name: str, source: Any = None, **options: Any) -> LocalLora:
        """Return `lm.lora(...)`."""
        return self.lm.lora(name, source, **options)

    def __reduce__(self) -> Any:
        return str, (str(self),)
