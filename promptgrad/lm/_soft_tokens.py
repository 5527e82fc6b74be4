"""`SoftTokens`: vectors before the prompts of a local model, the value of a soft prompt."""

from __future__ import annotations

import base64
import hashlib
import threading
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from promptgrad.errors import MissingExtraError, NoLMError
from promptgrad.lm._base import LM
from promptgrad.lm._codec import canonical_json
from promptgrad.lm._layer import layered
from promptgrad.lm._local import Local

if TYPE_CHECKING:
    import torch

    from promptgrad.lm._adapted import Adapted
    from promptgrad.lm._local_engine import LocalEngine
    from promptgrad.lm._local_soft import LocalSoft
    from promptgrad.lm._soft_vectors import SoftVectors

_NAME = "soft_prompt"
"""Name of the tensor in a state."""


class SoftTokens:
    """Vectors that stand before the prompts of a local model, as tokens that no text has.

    They are made when the model is loaded, and belong to it from then on. Of a program it is the value of an
    `nn.SoftPrompt`.

    Args:
        count: How many there are.
        init: A text, whose embeddings they begin as, over and over; None draws embeddings of common tokens.
        seed: Seed of what is drawn.

    Attributes:
        requires_grad: Whether they are trained.
        name: Name of an LM that has them; "" for one after its model.

    Raises:
        ValueError: `count` is below one, or `init` is empty.
    """

    def __init__(self, count: int, init: str | None = None, *, seed: int = 0) -> None:
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"a soft prompt has at least one token, not {count!r}")
        if init is not None and (not isinstance(init, str) or not init.strip()):
            raise ValueError(f"a soft prompt begins as a text, or with init=None as drawn tokens, not as {init!r}")
        self.count, self.init, self.seed = count, init, seed
        self.name = ""
        self._requires_grad = True
        self._given: bytes | None = None  # vectors of a state, as safetensors
        self._about: dict[str, Any] = {}  # name and size of the model that they are of
        self._vectors: torch.nn.Parameter | None = None
        self._first = 0  # version of vectors that were made of `init`; -1 for others
        self._made: WeakKeyDictionary[Local, LocalSoft] = WeakKeyDictionary()
        self._layers: dict[int, tuple[LM, LM]] = {}
        self._lock = threading.RLock()

    @property
    def requires_grad(self) -> bool:
        """Whether the vectors are trained."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        self._requires_grad = bool(wanted)
        if self._vectors is not None:
            self._vectors.requires_grad_(self._requires_grad)

    @property
    def vectors(self) -> torch.nn.Parameter | None:
        """The vectors, (tokens, size of an embedding); None until a model is loaded."""
        return self._vectors

    @property
    def is_trained(self) -> bool:
        """Whether the vectors are others than `init` makes."""
        return self._given is not None if self._vectors is None else self._vectors._version != self._first

    @property
    def id(self) -> str:
        """Digest of the vectors; before a training, of what they are made of."""
        told: Any = [self.count, self.init, self.seed]
        if self.is_trained:
            told = hashlib.blake2b(self._numbers(), digest_size=16).hexdigest()
        return hashlib.blake2b(canonical_json(told).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()

    def on(self, lm: LM) -> LM:
        """The same LM with these tokens before every prompt; layers around it stay, and share their caches.

        Raises:
            NoLMError: It is no local model, which alone has vectors, or one with another soft prompt.
        """
        with self._lock:
            known = self._layers.get(id(lm))
            if known is not None:
                return known[1]
            base = lm.transport
            from promptgrad.lm._local_soft import LocalSoft

            if not isinstance(base, Local) or isinstance(base, LocalSoft):
                what = "has another one" if isinstance(base, LocalSoft) else "is no local model"
                raise NoLMError(
                    f"a soft prompt is vectors of a local model, and {lm.name!r} {what}: move the module with "
                    ".to(promptgrad.lm.Local('folder or name')), or remove its soft prompt, module.soft_prompt = None"
                )
            made = self._made.get(base)
            if made is None:
                made = self._made[base] = LocalSoft(base, self)
            found = layered(lm, {id(base): made})
            if len(self._layers) > 64:
                self._layers.clear()
            self._layers[id(lm)] = (lm, found)
            return found

    def bind(self, base: Local, engine: LocalEngine, below: Adapted | None = None) -> SoftVectors:
        """The model, or a LoRA of it, with these vectors, which are made now where there are none.

        Raises:
            ValueError: They are those of a model with embeddings of another size.
        """
        import torch

        from promptgrad.lm._soft_vectors import SoftVectors, first_vectors

        rows = engine.decoder.loras
        with self._lock:
            if self._vectors is None:
                if self._given is None:
                    vectors = first_vectors(rows, engine.tokenizer, self.count, self.init, self.seed)
                else:
                    self._check(base, rows.width)
                    vectors = _read(self._given).to(engine.model.device)
                self._vectors = torch.nn.Parameter(vectors, requires_grad=self._requires_grad)
                self._first = self._vectors._version if self._given is None else -1
                self._about = {"model": base.name, "size": rows.width}
            else:
                self._check(base, rows.width)
            return SoftVectors(rows, self._vectors, below)

    def _check(self, base: Local, width: int) -> None:
        theirs = self._about
        if theirs["size"] != width:
            raise ValueError(
                f"its vectors have {theirs['size']} numbers, as the embeddings of {theirs['model']!r}, and those of "
                f"{base.name!r} have {width}: vectors belong to the model that they were trained with"
            )
        if theirs["model"] != base.name:
            warnings.warn(
                f"a soft prompt that was trained with {theirs['model']!r} is used with {base.name!r}: where that is "
                "another model, its vectors mean nothing",
                stacklevel=2,
            )

    @classmethod
    def of(cls, model: SoftVectors, base: Local, name: str) -> SoftTokens:
        """The tokens whose vectors a model has that was made of others."""
        made = cls(len(model.vectors))
        made.name, made._vectors, made._first = name, model.vectors, -1
        made._requires_grad = model.vectors.requires_grad
        made._about = {"model": base.name, "size": model.vectors.shape[1]}
        return made

    def copy(self) -> SoftTokens:
        """The same tokens with vectors of their own."""
        made = type(self)(self.count, self.init, seed=self.seed)
        made.name, made._requires_grad, made._given = self.name, self._requires_grad, self._given
        made._about = dict(self._about)
        if self._vectors is not None and self.is_trained:
            import torch

            made._vectors = torch.nn.Parameter(self._vectors.detach().clone(), requires_grad=self._requires_grad)
            made._first = -1
        return made

    def to_dict(self) -> dict[str, Any]:
        """The tokens in JSON types; trained vectors as safetensors in base64, with name and size of the model."""
        told: dict[str, Any] = {"tokens": self.count, "init": self.init, "seed": self.seed}
        if self.is_trained:
            vectors = base64.b64encode(self._numbers()).decode("ascii")
            told |= {"name": self.name, **self._about, "vectors": vectors}
        return told

    @classmethod
    def from_dict(cls, told: Any) -> SoftTokens:
        """Read what `to_dict` returned.

        Raises:
            ValueError: It is none of these, or the vectors are not those that it tells of.
        """
        if not isinstance(told, Mapping) or not isinstance(told.get("tokens"), int):
            raise ValueError(f"a soft prompt is an object with tokens, not {told!r:.80}")
        seed = told.get("seed", 0)
        if not isinstance(seed, int):
            raise ValueError(f"the seed of a soft prompt is a whole number, not {seed!r:.80}")
        made = cls(told["tokens"], told.get("init"), seed=seed)
        if "vectors" not in told:
            return made
        model, size, name = told.get("model"), told.get("size"), told.get("name", "")
        if not (isinstance(model, str) and isinstance(size, int) and isinstance(name, str)):
            raise ValueError("the vectors of a soft prompt have the name of a model and the size of its embeddings")
        made.name, made._about = name, {"model": model, "size": size}
        try:
            made._given = base64.b64decode(told["vectors"], validate=True)
        except (ValueError, TypeError) as error:
            raise ValueError(f"the vectors of a soft prompt are a base64 text: {error}") from None
        shape = _shape(made._given)
        if shape != (made.count, size):
            raise ValueError(f"the vectors of a soft prompt have the shape {shape}, not {(made.count, size)}")
        return made

    def _numbers(self) -> bytes:
        """The vectors as a file of safetensors."""
        if self._vectors is None:
            return self._given or b""
        from safetensors.torch import save

        made: bytes = save({_NAME: self._vectors.detach().float().cpu().contiguous()})
        return made

    def __reduce__(self) -> Any:
        return _again, (self.to_dict(), self._requires_grad)

    def __repr__(self) -> str:
        first = (
            "drawn tokens" if self.init is None else repr(self.init if len(self.init) <= 40 else self.init[:37] + "...")
        )
        model = f", {self._about['model']!r}" if self._about else ""
        return f"SoftTokens({self.count}, {'trained' if self.is_trained else first}{model})"


def _again(told: Mapping[str, Any], requires_grad: bool) -> SoftTokens:  # noqa: FBT001 - of a pickle
    made = SoftTokens.from_dict(told)
    made.requires_grad = requires_grad
    return made


def _shape(data: bytes) -> tuple[int, ...]:
    """The shape of the tensor in a file of safetensors.

    Raises:
        MissingExtraError: safetensors is not installed.
        ValueError: It is no such file.
    """
    try:
        from safetensors import SafetensorError, deserialize
    except ImportError as error:
        raise MissingExtraError(extra="local", package="safetensors") from error
    try:
        found = dict(deserialize(data))  # type: ignore[no-untyped-call]
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"the vectors of a soft prompt are no safetensors: {error}") from None
    if [*found] != [_NAME] or found[_NAME]["dtype"] != "F32":
        raise ValueError(f"the vectors of a soft prompt are one tensor of float32, {_NAME!r}, not {[*found]}")
    return tuple(found[_NAME]["shape"])


def _read(data: bytes) -> torch.Tensor:
    from safetensors.torch import load

    found: torch.Tensor = load(data)[_NAME]
    return found
