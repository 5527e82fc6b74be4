"""Whether a budget holds at the server, with 64 calls in flight, prompts of several scripts, replies of any length.

The server counts the tokens of prompts with a tokenizer of tiktoken, whose files litellm brings; both come with the
environment of the benchmarks. Replies have `max_tokens` tokens where a request sets it, else 20 to 2,000, drawn. A row
is a script with a kind of budget: the shares of it that were spent over `--blocks` runs, as the server counts, the
largest overshoot, and the same in longest replies.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import os
import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from _side_by_side import header, say

from promptgrad import aio, lm, run
from promptgrad.errors import BudgetExceeded
from promptgrad.testing import Delay, LoopbackLM, Reply

IN_FLIGHT = 64
CALLS = 200
PRICES = (0.5, 2.0)
BOUND = 60

ENGLISH = ["the budget of a run", "is kept", "whatever script", "its prompts", "are written in", "at the server"]


def prompts(script: str, seed: int) -> list[str]:
    """Prompts of 20 to 600 letters or signs."""
    chance = random.Random(f"{script} {seed}")

    def one() -> str:
        size = chance.randint(20, 600)
        if script == "English":
            return " ".join(chance.choices(ENGLISH, k=size // 12))
        if script == "base64":
            return base64.b64encode(chance.randbytes(size)).decode()
        first, last = {"Chinese": (0x4E00, 0x9FA5), "emoji": (0x1F300, 0x1F5FF)}[script]
        return "".join(map(chr, chance.choices(range(first, last), k=size)))

    return [one() for _ in range(CALLS)]


def counter(tokenizer: str) -> Callable[[str], int]:
    """What counts the tokens of a text."""
    found = importlib.util.find_spec("litellm")
    if found is not None and found.origin is not None:
        os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(found.origin).parent / "litellm_core_utils" / "tokenizers")
    import tiktoken

    encoding = tiktoken.get_encoding(tokenizer)
    return lambda text: len(encoding.encode(text, disallowed_special=()))


def spend(
    budget: run.Budget, texts: list[str], count: Callable[[str], int], seed: int, **options: Any
) -> dict[str, float]:
    """Ask all of them, as many at a time; what the server saw."""
    chance = random.Random(seed)
    seen: dict[str, float] = {"calls": 0, "tokens": 0, "usd": 0.0, "longest": 0}

    def respond(messages: Any) -> Any:
        paid = count(messages[-1]["content"]) + 4
        got = options.get("max_tokens") or chance.randint(20, 2_000)
        seen["calls"] += 1
        seen["tokens"] += paid + got
        seen["usd"] += (paid * PRICES[0] + got * PRICES[1]) / 1e6
        seen["longest"] = max(seen["longest"], got)
        return Delay(0.02, Reply("ok", usage=(paid, got)))

    with LoopbackLM(respond, record=False) as server:
        model = lm.HTTP("m", server.url, prices=PRICES, **options)

        async def one(text: str) -> None:
            with suppress(BudgetExceeded):
                await model.acall(text)

        with run.active(ledger=run.Ledger(budget)):
            aio.run(aio.gather([partial(one, text) for text in texts], limit=IN_FLIGHT))
    return seen


def main() -> None:
    """Measure every script with every kind of budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=10, help="runs of each row, with other prompts")
    parser.add_argument("--tokenizer", default="p50k_base", help="o200k_base, cl100k_base or p50k_base")
    chosen = parser.parse_args()
    header("budgets", tokenizer=chosen.tokenizer)
    count = counter(chosen.tokenizer)
    for script in ("English", "Chinese", "emoji", "base64"):
        for bound in (BOUND, None):
            for kind, limit in (("calls", 100), ("tokens", 20_000), ("usd", 0.02)):
                most, share, replies = 0.0, [], 0.0
                for seed in range(1000, 1000 + chosen.blocks):
                    options = {} if bound is None else {"max_tokens": bound}
                    seen = spend(run.Budget(**{kind: limit}), prompts(script, seed), count, seed, **options)
                    over = max(0.0, seen[kind] - limit)
                    worth = {"calls": 1.0, "tokens": seen["longest"], "usd": seen["longest"] * PRICES[1] / 1e6}[kind]
                    most, replies = max(most, over), max(replies, over / worth)
                    share.append(seen[kind] / limit)
                allowed = 0.0 if bound is not None or kind == "calls" else 1.0
                say(
                    bench="budgets",
                    case=f"{script}, {kind}",
                    who="promptgrad",
                    replies="60 tokens, max_tokens=60" if bound is not None else "20 to 2,000 tokens, no max_tokens",
                    runs=chosen.blocks,
                    spent=[round(min(share), 3), round(max(share), 3)],
                    overshoot=round(most, 6),
                    overshoot_in_replies=round(replies, 2),
                    target="0" if allowed == 0 else "at most one reply",
                    meets=replies <= allowed,
                )


if __name__ == "__main__":
    main()
