"""`SoftPrompt`: vectors before the prompt of a module, a parameter that torch trains."""

from collections.abc import Callable
from typing import Any

from promptgrad.autograd import Kind, Parameter, register_kind
from promptgrad.lm import SoftTokens


class _Soft(Kind):
    __slots__ = ()

    trained = True
    is_weights = True
    place = "soft_prompt"

    def normal(self, value: Any, options: tuple[Any, ...] | None = None) -> SoftTokens:
        if not isinstance(value, SoftTokens):
            raise ValueError(f"it must be the data of another SoftPrompt, not {type(value).__name__}")
        return value

    def shape(self, value: SoftTokens) -> tuple[int, ...]:
        return (value.count,) if value.vectors is None else tuple(value.vectors.shape)

    def numel(self, value: SoftTokens) -> int:
        return value.count if value.vectors is None else value.vectors.numel()

    def show(self, value: SoftTokens) -> str:
        return repr(value)

    def to_json(self, value: SoftTokens, write: Callable[[Any], Any]) -> dict[str, Any]:
        return value.to_dict()

    def from_json(self, value: Any, read: Callable[[Any], Any]) -> SoftTokens:
        return SoftTokens.from_dict(value)


_KIND = register_kind(_Soft("soft_prompt"))


class SoftPrompt(Parameter):
    """Vectors before the prompt of a module on a local model, trained by gradients.

    ```
    model = nn.Predict("text -> label").to(pg.lm.Local("path"))
    model.soft_prompt = nn.SoftPrompt(20, init="Say which intent the text has.")
    optimizer = torch.optim.AdamW(model.weights(), lr=0.1)     # or finetune.sft(model, data)
    ```

    The module's calls, its traces and its trainings have the vectors before the first token of the prompt. The weights
    of the model are frozen when it is loaded for them. One soft prompt may stand in several modules. A call on a model
    that is not local is a `NoLMError`, and nothing is sent; below it may be a LoRA, which `finetune` leaves as it is.
    Its gradient is that of its tensor, `model.weights()[0].grad`; `grad` stays None, as critics say nothing of it.
    States hold the vectors, with the name of their model and the size of its embeddings.

    Shape: `(n_tokens,)`, and `(n_tokens, size of an embedding)` once the model is loaded.
    Cost: no LM call; each prompt is longer by `n_tokens`, which prompts of the module share.
    Source: Lester et al. 2021, arXiv 2104.08691.

    Args:
        n_tokens: How many vectors.
        init: A text whose embeddings they begin as, over and over, such as the labels or an instruction; None begins
            with the embeddings of common tokens, drawn by `seed`.
        seed: Seed of what is drawn.
        requires_grad: Whether it is trained.
        role: What it is for, in words.
        name: Its name while it is part of no program.

    Raises:
        ValueError: There is no token, or `init` is empty.
    """

    def __init__(
        self,
        n_tokens: int,
        init: str | None = None,
        *,
        seed: int = 0,
        requires_grad: bool = True,
        role: str = "",
        name: str = "",
    ) -> None:
        tokens = SoftTokens(n_tokens, init, seed=seed)
        super().__init__(tokens, _KIND, requires_grad=requires_grad, role=role, name=name)
        tokens.requires_grad = requires_grad

    @property
    def requires_grad(self) -> bool:
        """Whether the vectors are trained."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        self._requires_grad = bool(wanted)
        if "_data" in self.__dict__:
            self._data.requires_grad = wanted

    def validate(self, value: Any) -> Any:
        """The value as it would be stored: it is trained if this parameter is."""
        made: SoftTokens = super().validate(value)
        made.requires_grad = self.requires_grad
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_data": self._data.copy()}  # which an optimizer changes in place
