"""Prices of models: the table that comes with litellm, read without importing litellm."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

Prices = tuple[float, float]
"""US dollars for a million input tokens, and for a million output tokens."""

FREE: Prices = (0.0, 0.0)

_TABLE = "model_prices_and_context_window_backup.json"


def _table() -> dict[str, Prices]:
    try:
        return _read_table()
    except (OSError, ValueError):  # unreadable, perhaps for a moment: no price is known then
        return {}


@lru_cache(maxsize=1)
def _read_table() -> dict[str, Prices]:
    spec = find_spec("litellm")
    if spec is None or not spec.submodule_search_locations:
        return {}
    path = Path(spec.submodule_search_locations[0]) / _TABLE
    if not path.exists():
        return {}
    prices: dict[str, Prices] = {}
    for name, entry in json.loads(path.read_text(encoding="utf-8")).items():
        paid, got = entry.get("input_cost_per_token"), entry.get("output_cost_per_token")
        if isinstance(paid, (int, float)) and isinstance(got, (int, float)) and (paid or got):
            prices[name] = (paid * 1e6, got * 1e6)
            prices.setdefault(f"{entry.get('litellm_provider')}/{name}", prices[name])
    return prices


def find_prices(model: str) -> Prices | None:
    """Return the prices of a model by its litellm name, such as `openai/gpt-4o-mini`; None where they are not known.

    The table is that of the installed litellm; nothing is fetched. The first call takes some 30 ms to read it. Prices
    of a table that cannot be read are not known.
    """
    return _table().get(model)


def cost(prices: Prices | None, input_tokens: int, output_tokens: int) -> float | None:
    """Return the price of the tokens in US dollars; None where prices are not known."""
    return None if prices is None else (prices[0] * input_tokens + prices[1] * output_tokens) / 1e6
