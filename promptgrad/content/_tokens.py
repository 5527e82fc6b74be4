"""Tokens of images, sounds and files: the rules that providers publish, as of December 2025.

OpenAI ("Images and vision"): 85 and 170 for each tile of 512 pixels, after scaling into 2048 and to 768 on the shorter
side; `gpt-4o-mini` and the like count 2833 and 5667. Anthropic ("Vision"): pixels / 750, after scaling to 1568 on the
longer side. Google ("Understand and count tokens"): 258 for an image of up to 384 pixels, else for each tile of 768.
"""

from __future__ import annotations

from math import ceil

IMAGE_TOKENS = 1_333
"""Tokens of an image whose size is not known, as of an address."""

_CLAUDE = ("claude", "anthropic")
_GEMINI = ("gemini", "vertex", "google")
_OPENAI = ("gpt", "openai", "o1", "o3", "o4", "azure")
_PAGE_TOKENS = 4_600
"""Tokens of a page of a PDF at most: 3,000 of text (Anthropic's upper figure) and an image of it."""
_SECOND_TOKENS = 32
"""Tokens of a second of sound at most: Google's; OpenAI's are 10."""
_LEAST_RATE = 2_000
"""Bytes that a second of compressed speech takes at least."""


def image_tokens(width: int, height: int, model: str = "", detail: str = "") -> int:
    """Estimate the tokens of an image of this size; without a known model, the most of the providers' rules."""
    name = model.lower()
    if any(word in name for word in _CLAUDE):
        return _claude(width, height)
    if any(word in name for word in _GEMINI):
        return _gemini(width, height)
    if any(word in name for word in _OPENAI):
        return _openai(width, height, detail, mini="4o-mini" in name)
    return max(_claude(width, height), _gemini(width, height), _openai(width, height, detail, mini=False))


def _claude(width: int, height: int) -> int:
    scale = min(1.0, 1568 / max(width, height))
    return min(1_600, ceil(width * scale * height * scale / 750)) + 4


def _gemini(width: int, height: int) -> int:
    return 258 if max(width, height) <= 384 else 258 * ceil(width / 768) * ceil(height / 768)


def _openai(width: int, height: int, detail: str, *, mini: bool) -> int:
    base, tile = (2_833, 5_667) if mini else (85, 170)
    if detail == "low":
        return base
    scale = min(1.0, 2048 / max(width, height))
    scale *= min(1.0, 768 / (min(width, height) * scale))
    return base + tile * ceil(width * scale / 512 - 1e-9) * ceil(height * scale / 512 - 1e-9)


def audio_tokens(seconds: float | None, size: int, model: str = "") -> int | None:
    """Estimate the tokens of a sound; None where there are no bytes. Of compressed sound, the most that it may be."""
    if not size:
        return None
    length = size / _LEAST_RATE if seconds is None else seconds
    rate = 10 if any(word in model.lower() for word in _OPENAI) else _SECOND_TOKENS
    return ceil(length * rate) + 1


def file_tokens(pages: int | None, size: int, media_type: str, model: str = "") -> int | None:
    """Estimate the tokens of a file; None where neither pages nor a size are known. Other files count as their text."""
    if pages is not None:
        return pages * (258 if any(word in model.lower() for word in _GEMINI) else _PAGE_TOKENS)
    if not size:
        return None
    return size if media_type.startswith("text/") else max(IMAGE_TOKENS, size // 24)
