"""`LocalEmbedding`: an embedding model of transformers in this process, from a folder."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgrad import aio
from promptgrad.errors import MissingExtraError
from promptgrad.lm._cache import MemoryStore
from promptgrad.lm._embedding import EmbeddingTransport
from promptgrad.lm._local_load import pick_device, pick_dtype

if TYPE_CHECKING:
    from promptgrad.lm._embedding import Vectors

AT_ONCE = 32
"""Texts that go through the model at once."""

_MODES = {
    "cls_token": "cls",
    "max_tokens": "max",
    "mean_tokens": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean_tokens": "weightedmean",
    "lasttoken": "lasttoken",
}
"""How sentence-transformers names the ways of pooling in a folder, in the order in which several are joined."""


class LocalEmbedding(EmbeddingTransport):
    """A model of transformers whose last hidden states are pooled as its folder says.

    A folder of sentence-transformers says it in `modules.json`; any other one has the mean over its tokens.

    Args:
        folder: The folder with model and tokenizer.
        name: Name of the model.
        memory: Where vectors are remembered.
        device: As for `Local`.

    Raises:
        ValueError: The folder has a module or a way of pooling that is not known here.
    """

    def __init__(self, folder: Path, name: str, memory: MemoryStore | None, device: str = "auto") -> None:
        super().__init__(name, f"embedding folder {_fingerprint(folder)}", memory)
        self.folder = folder
        self.device = device
        self._lock = threading.Lock()
        self._plan = _Plan(folder)
        self._loaded: tuple[Any, Any, list[Callable[[Any], Any]]] | None = None

    async def embed(self, texts: Sequence[str], key: str) -> tuple[Vectors, int | None, str]:
        """Compute the vectors in a thread."""
        vectors, tokens = await aio.in_thread(self._compute, texts)
        return vectors, tokens, self.name

    def _compute(self, texts: Sequence[str]) -> tuple[Vectors, int]:
        import numpy as np

        with self._lock:  # one computation at a time uses all cores
            if self._loaded is None:
                self._loaded = self._load()
            tokenizer, model, after = self._loaded
            import torch

            prompt, lower = self._plan.prompt, self._plan.lower
            sent = [f"{prompt}{text.lower() if lower else text}" for text in texts]
            order = sorted(range(len(sent)), key=lambda place: -len(sent[place]))
            rows: list[Any] = [None] * len(sent)
            tokens = 0
            for start in range(0, len(order), AT_ONCE):
                places = order[start : start + AT_ONCE]
                batch = tokenizer(
                    [sent[place] for place in places],
                    padding=True,
                    truncation=True,
                    max_length=self._longest(tokenizer, model),
                    return_tensors="pt",
                ).to(model.device)
                with torch.inference_mode():
                    hidden = model(**batch).last_hidden_state.float()
                    vectors = torch.cat([_pool(mode, hidden, batch["attention_mask"]) for mode in self._plan.modes], 1)
                    for step in after:
                        vectors = step(vectors)
                tokens += int(batch["attention_mask"].sum())
                for place, row in zip(places, vectors.cpu().numpy(), strict=True):
                    rows[place] = row
        return np.stack(rows).astype(np.float32, copy=False), tokens

    def _longest(self, tokenizer: Any, model: Any) -> int:
        known: list[int | None] = [
            self._plan.longest,
            tokenizer.model_max_length,
            getattr(model.config, "max_position_embeddings", None),
        ]
        return min([length for length in known if length] or [512])

    def _load(self) -> tuple[Any, Any, list[Callable[[Any], Any]]]:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise MissingExtraError(extra="local", package="torch and transformers") from error
        folder = self._plan.model
        device = pick_device(torch, self.device)
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        kind = transformers.AutoModelForTextEncoding if config.is_encoder_decoder else transformers.AutoModel
        noisy = transformers.utils.logging.is_progress_bar_enabled()
        transformers.utils.logging.disable_progress_bar()
        try:
            model = kind.from_pretrained(
                folder, dtype=pick_dtype(torch, None, device), use_safetensors=True, local_files_only=True
            )
        finally:
            if noisy:
                transformers.utils.logging.enable_progress_bar()
        model = model.to(device).eval().requires_grad_(requires_grad=False)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return tokenizer, model, [_step(torch, kind, place, device) for kind, place in self._plan.after]

    def __repr__(self) -> str:
        return f"LocalEmbedding({str(self.folder)!r})"


class _Plan:
    """What a folder says of its vectors.

    Attributes:
        model: The folder of model and tokenizer.
        modes: The ways of pooling, whose results are joined.
        after: What is done to the pooled vectors: "Dense" or "Normalize", and the folder of each.
        longest: Most tokens of a text; None where the folder does not say.
        lower: Whether texts are made lower case.
        prompt: What every text begins with.
    """

    def __init__(self, folder: Path) -> None:
        self.model, self.modes = folder, ["mean"]
        self.after: list[tuple[str, Path]] = []
        for module in _read(folder / "modules.json") or ():
            kind, place = str(module["type"]).rpartition(".")[2], folder / module.get("path", "")
            if kind == "Transformer":
                self.model = place
            elif kind == "Pooling":
                self.modes = _modes(_read(place / "config.json") or {}, place)
            elif kind in ("Dense", "Normalize"):
                self.after.append((kind, place))
            else:
                raise ValueError(f"{folder} has a module {kind!r}, which is not known here: give a function of texts")
        settings = _read(self.model / "sentence_bert_config.json") or {}
        self.longest: int | None = settings.get("max_seq_length")
        self.lower = bool(settings.get("do_lower_case"))
        own = _read(folder / "config_sentence_transformers.json") or {}
        self.prompt = str((own.get("prompts") or {}).get(own.get("default_prompt_name") or "", ""))


def _modes(config: dict[str, Any], place: Path) -> list[str]:
    named = config.get("pooling_mode")
    if named is not None:
        modes = [named] if isinstance(named, str) else list(named)
    else:
        modes = [mode for name, mode in _MODES.items() if config.get(f"pooling_mode_{name}")]
    strange = [mode for mode in modes if mode not in _MODES.values()]
    if strange or not modes:
        raise ValueError(f"{place} pools by {strange or 'nothing'}; known are {', '.join(_MODES.values())}")
    return modes


def _pool(mode: str, hidden: Any, mask: Any) -> Any:
    """One vector of each row of hidden states. Shape: (texts, tokens, size) -> (texts, size)."""
    import torch

    counts = mask.unsqueeze(-1).to(hidden.dtype)
    if mode == "cls":
        first = mask.argmax(1)
        return hidden[torch.arange(len(hidden), device=hidden.device), first]
    if mode == "lasttoken":
        last = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    if mode == "max":
        return hidden.masked_fill(counts == 0, float("-inf")).max(1).values
    if mode == "weightedmean":
        counts = counts * counts.cumsum(1)
    total = counts.sum(1).clamp(min=1e-9)
    return (hidden * counts).sum(1) / (total.sqrt() if mode == "mean_sqrt_len_tokens" else total)


def _step(torch: Any, kind: str, place: Path, device: Any) -> Callable[[Any], Any]:
    if kind == "Normalize":
        return lambda vectors: torch.nn.functional.normalize(vectors, dim=1)
    from safetensors.torch import load_file

    weights = load_file(place / "model.safetensors", device=str(device))
    named = str((_read(place / "config.json") or {}).get("activation_function", "Tanh")).rpartition(".")[2]
    if named not in ("Tanh", "Identity"):
        raise ValueError(f"{place} has the activation {named!r}; known are Tanh and Identity")
    weight, bias = weights["linear.weight"].float(), weights.get("linear.bias")

    def dense(vectors: Any) -> Any:
        made = torch.nn.functional.linear(vectors, weight, None if bias is None else bias.float())
        return made.tanh() if named == "Tanh" else made

    return dense


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _fingerprint(folder: Path) -> str:
    """A digest of the files of a folder: of small ones in full, of large ones their size, beginning and end."""
    digest = hashlib.blake2b(digest_size=12)
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".json", ".safetensors", ".txt", ".model") or not path.is_file():
            continue
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()} {size} ".encode())
        with path.open("rb") as file:
            digest.update(file.read(2**20))
            if size > 2**21:
                file.seek(-(2**20), 2)
            digest.update(file.read(2**20))
    return digest.hexdigest()
