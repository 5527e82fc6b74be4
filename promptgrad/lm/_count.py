"""Numbers of tokens as servers report them: `read_count` reads one, `counts_of` those of an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptgrad.errors import LMError
from promptgrad.lm._prices import Prices, cost

MOST = 10**9


def read_count(value: object) -> int | None:
    """Return the number of tokens; None where that cannot be one, so that it is estimated."""
    return value if type(value) is int and 0 <= value <= MOST else None


def counts_of(answer: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """The tokens that an answer says were read and written; None where it does not, or says what cannot be."""
    used = answer.get("usage")
    if not isinstance(used, dict):
        return None, None
    return read_count(used.get("prompt_tokens")), read_count(used.get("completion_tokens"))


def billed(error: LMError, answer: Mapping[str, Any], prices: Prices | None) -> LMError:
    """The error of an answer that is no reply, with the usage that it tells."""
    paid, got = counts_of(answer)
    if paid is not None or got is not None:
        paid, got = paid or 0, got or 0
        error.billed = {"input_tokens": paid, "output_tokens": got, "usd": cost(prices, paid, got)}
    return error


def read_cached(used: object, paid: int) -> int:
    """Return how many of the tokens sent the provider had in its cache; 0 where it does not tell.

    Args:
        used: What it reports of a reply: `usage` of OpenAI's dialect, or with DeepSeek's name for it.
        paid: Tokens sent, of which they are a part.
    """
    if not isinstance(used, (dict, Mapping)):  # a dict is known faster
        return 0
    details = used.get("prompt_tokens_details")
    found = details.get("cached_tokens") if details and isinstance(details, (dict, Mapping)) else None
    if found is None:
        found = used.get("prompt_cache_hit_tokens")
        if found is None:
            return 0
    count = read_count(found)
    return 0 if count is None else min(count, paid)
