"""What a server that takes few requests at once, or fails half of them, costs in time, in refusals and in rows.

The base is the time that the server needs for the work alone. Rows: a server with 8 places and 300 calls, 64 at a time;
500 calls, 32 at a time, of which 53 % are answered by a fault.
"""

from __future__ import annotations

import argparse
import random
import time
from functools import partial
from typing import Any

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


def measure(name: str, respond: Any, count: int, in_flight: int, ideal: float, attempts: int) -> None:
    """Print one row."""
    with LoopbackLM(lambda messages: respond(server)) as server:
        lm = pg.LM("openai/m", base_url=server.url, api_key="k", cache=False, attempts=attempts)
        started = time.perf_counter()
        outcomes = aio.run(ask(lm, count, in_flight))
        wall = time.perf_counter() - started
        stats = lm.stats()
        failed = sum(isinstance(outcome, LMError) for outcome in outcomes)
        print(
            f"{name:24} wall {wall:6.2f} s  x ideal {wall / ideal:5.2f}  error rows {failed:3}  "
            f"requests {server.received}  counted {stats['requests']}  turned away {stats['turned_away']}  "
            f"cap {stats['cap']}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1000)
    seed = parser.parse_args().seed

    refused: list[int] = []

    def small(server: LoopbackLM) -> Any:
        if server.in_flight > 8:
            refused.append(server.received)
            return Status(429)
        return Delay(LATENCY, "ok")

    measure("8 at once, 64 asking", small, 300, 64, 300 / 8 * LATENCY, 5)
    print(f"{'':24} of them after the first 100 requests: {sum(at > 100 for at in refused)}")
    chance = random.Random(seed)

    def faulty(server: LoopbackLM) -> Any:
        return chance.choice(FAULTS) if chance.random() < 0.53 else Delay(LATENCY, "ok")

    measure("53 % faults, 32 asking", faulty, 500, 32, 500 / 32 * LATENCY, 6)


if __name__ == "__main__":
    main()
