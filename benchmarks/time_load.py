"""What a server that takes few requests at once costs in time, in refusals and in rows.

The base is the time that the server needs for the work alone: 300 calls, 64 at a time, at a server with 8 places.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from _side_by_side import header, options, say

import promptgrad as pg
from promptgrad import aio
from promptgrad.errors import LMError
from promptgrad.testing import Delay, LoopbackLM, Status

LATENCY = 0.1


async def ask(lm: pg.LM, count: int, in_flight: int) -> list[Any]:
    """Ask so many questions, so many at a time, as `map` and `evaluate` do."""

    async def one(number: int) -> Any:
        try:
            return (await lm.acall(f"q{number}")).text
        except LMError as error:
            return error

    return await aio.gather([partial(one, number) for number in range(count)], limit=in_flight)


def measure(
    case: str, respond: Any, count: int, in_flight: int, ideal: float, attempts: int, target: str
) -> dict[str, Any]:
    """One row: seconds, and how often the server was asked and refused."""
    with LoopbackLM(lambda messages: respond(server)) as server:
        lm = pg.LM("openai/m", base_url=server.url, api_key="k", cache=False, attempts=attempts)
        started = time.perf_counter()
        outcomes = aio.run(ask(lm, count, in_flight))
        wall = time.perf_counter() - started
        stats = lm.stats()
        return {
            "bench": "load",
            "case": case,
            "who": "promptgrad",
            "seconds": round(wall, 3),
            "x_ideal": round(wall / ideal, 2),
            "target": target,
            "error_rows": sum(isinstance(outcome, LMError) for outcome in outcomes),
            "received": server.received,
            "counted": stats["requests"],
            "turned_away": stats["turned_away"],
            "cap": stats["cap"],
        }


def main() -> None:
    """Measure it once for each block."""
    chosen = options(__doc__ or "", blocks=1)
    header("load")
    for _ in range(chosen.blocks):
        refused: list[int] = []

        def small(server: LoopbackLM, refused: list[int] = refused) -> Any:
            if server.in_flight > 8:
                refused.append(server.received)
                return Status(429)
            return Delay(LATENCY, "ok")

        count = 30 if chosen.quick else 300
        row = measure("8 at once, 64 asking", small, count, 64, count / 8 * LATENCY, 5, "<= 2 x ideal")
        say(**row, turned_away_after_100=sum(at > 100 for at in refused))


if __name__ == "__main__":
    main()
