"""What a server that takes few requests at once, or fails half of them, costs in time, in refusals and in rows.

The base is the time that the server needs for the work alone. Rows: a server with 8 places and 300 calls, 64 at a time;
500 calls, 32 at a time, of which 53 % are answered by a fault.
"""

from __future__ import annotations

import random
import time
from functools import partial
from typing import Any

from _side_by_side import header, options, say

import promptgrad as pg
from promptgrad import aio
from promptgrad.errors import LMError
from promptgrad.testing import Cut, Delay, Drop, Garbage, LoopbackLM, Status

LATENCY = 0.1
FAULTS = (Status(429), Status(429, retry_after=0), Status(503), Status(500), Cut(), Drop(), Garbage(), Garbage(b"{}"))


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
    """Measure both servers once for each block."""
    chosen = options(__doc__ or "", blocks=1)
    header("load")
    some, share = (10, 0.1) if chosen.quick else (1, 0.53)
    for block in range(chosen.blocks):
        refused: list[int] = []

        def small(server: LoopbackLM, refused: list[int] = refused) -> Any:
            if server.in_flight > 8:
                refused.append(server.received)
                return Status(429)
            return Delay(LATENCY, "ok")

        chance = random.Random(1000 + block)

        def faulty(server: LoopbackLM, chance: random.Random = chance) -> Any:
            return chance.choice(FAULTS) if chance.random() < share else Delay(LATENCY, "ok")

        count = 300 // some
        row = measure("8 at once, 64 asking", small, count, 64, count / 8 * LATENCY, 5, "<= 2 x ideal")
        say(**row, turned_away_after_100=sum(at > 100 for at in refused))
        count = 500 // some
        target = "<= 3 x ideal, <= 1 % error rows"
        say(**measure(f"{share:.0%} faults, 32 asking", faulty, count, 32, count / 32 * LATENCY, 6, target))


if __name__ == "__main__":
    main()
