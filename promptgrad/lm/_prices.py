"""Prices of models, and what they take beside text: the table that comes with litellm, read without importing it."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

Prices = tuple[float, float] | tuple[float, float, float]
"""US dollars for a million input tokens, for a million output tokens, and, where it differs, for a million input tokens
that the provider has in its cache."""

FREE: Prices = (0.0, 0.0)

_TABLE = "model_prices_and_context_window_backup.json"


_SAID = {"supports_vision": "image", "supports_audio_input": "audio", "supports_pdf_input": "file"}


def _table() -> dict[str, Prices]:
    try:
        return _read_table()[0]
    except (OSError, ValueError):  # unreadable, perhaps for a moment: no price is known then
        return {}


@lru_cache(maxsize=1)
def _read_table() -> tuple[dict[str, Prices], dict[str, frozenset[str]]]:
    prices: dict[str, Prices] = {}
    media: dict[str, frozenset[str]] = {}
    spec = find_spec("litellm")
    if spec is None or not spec.submodule_search_locations:
        return prices, media
    path = Path(spec.submodule_search_locations[0]) / _TABLE
    if not path.exists():
        return prices, media
    for name, entry in json.loads(path.read_text(encoding="utf-8")).items():
        paid, got = entry.get("input_cost_per_token"), entry.get("output_cost_per_token")
        if isinstance(paid, (int, float)) and isinstance(got, (int, float)) and (paid or got):
            again = entry.get("cache_read_input_token_cost")
            cheaper = isinstance(again, (int, float)) and not isinstance(again, bool)
            prices[name] = (paid * 1e6, got * 1e6, again * 1e6) if cheaper else (paid * 1e6, got * 1e6)
            prices.setdefault(f"{entry.get('litellm_provider')}/{name}", prices[name])
        taken = frozenset(kind for key, kind in _SAID.items() if entry.get(key))
        if taken:
            media[name] = taken
            media.setdefault(f"{entry.get('litellm_provider')}/{name}", taken)
    return prices, media


def find_prices(model: str) -> Prices | None:
    """Return the prices of a model by its litellm name, such as `openai/gpt-4o-mini`; None where they are not known.

    The table is that of the installed litellm; nothing is fetched. The first call takes some 30 ms to read it. Prices
    of a table that cannot be read are not known.
    """
    return _table().get(model)


def find_media(model: str) -> frozenset[str] | None:
    """Return the kinds of media that a model takes, by its litellm name; None where the same table does not say."""
    try:
        return _read_table()[1].get(model)
    except (OSError, ValueError):
        return None


def cost(prices: Prices | None, input_tokens: int, output_tokens: int, cached: int = 0) -> float | None:
    """Return the price of the tokens in US dollars; None where prices are not known.

    Args:
        prices: The prices.
        input_tokens: Tokens sent.
        output_tokens: Tokens received.
        cached: How many of those sent the provider had in its cache.
    """
    if prices is None:
        return None
    usd = prices[0] * input_tokens + prices[1] * output_tokens
    if cached and len(prices) == 3:
        usd += (prices[2] - prices[0]) * cached
    return usd / 1e6
