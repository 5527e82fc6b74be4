"""Fingerprints of a local model, by which answers are kept: of its files, or of its weights once they are trained."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

_SAMPLED_FROM = 64 * 2**20  # bytes of weights from which on a fingerprint looks at samples only


def fingerprint_files(source: str) -> str:
    """Digest the files of a model's folder: all of small ones, samples of large ones."""
    folder = Path(source)
    if not folder.is_dir():
        return source
    digest = blake2b(digest_size=8)
    for path in sorted(folder.iterdir()):
        if path.suffix not in {".json", ".jinja", ".safetensors", ".model", ".txt"} or not path.is_file():
            continue
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            if size <= _SAMPLED_FROM:
                digest.update(file.read())
            else:
                for part in range(256):
                    file.seek(part * (size - 4096) // 255)
                    digest.update(file.read(4096))
    return digest.hexdigest()


def fingerprint_weights(model: Any) -> str:
    """Digest a model's weights: all of small ones, samples of large ones."""
    return _fingerprint(list(model.named_parameters()))


def fingerprint_layers(model: Any, paths: Iterable[str]) -> str:
    """The type of the numbers in some layers and a digest of these, as an adapter knows its base.

    It is "" where a layer has no matrix of floating numbers: packed ones, or the experts of a mixture in one parameter.
    """
    layers = dict(model.named_modules())
    weights: list[tuple[str, Any]] = [(path, getattr(layers.get(path), "weight", None)) for path in sorted(paths)]
    if any(weight is None for _, weight in weights) or not all(weight.is_floating_point() for _, weight in weights):
        return ""
    kinds = ",".join(sorted({str(weight.dtype).removeprefix("torch.") for _, weight in weights}))
    return f"{kinds} {_fingerprint(weights)}"


def _fingerprint(weights: Sequence[tuple[str, Any]]) -> str:
    import torch

    digest = blake2b(digest_size=8)
    size = sum(weight.numel() * weight.element_size() for _, weight in weights)
    stride = 1 if size <= _SAMPLED_FROM else max(1, size // _SAMPLED_FROM)
    for name, weight in weights:
        digest.update(name.encode())
        sampled = weight.detach().reshape(-1)[::stride].contiguous().cpu()
        digest.update(sampled.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
