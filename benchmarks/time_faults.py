"""What faults cost in time and in rows: 500 rows, 32 in flight, at a server that answers some requests by a fault.

The server is a process of its own. Every answer takes the time of a reply, the faults too unless the case says that
they come at once; the ideal time is what 32 places need for the requests that it received. Beside `pg.evaluate` with
the defaults of `pg.LM`: a loop of aiohttp as it is usually written, 32 tasks that each send a row up to six times and
double their wait from half a second with full jitter, and DSPy, where it is installed, with `num_retries=5` and with
the retries that it has by default.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from _side_by_side import CLIENT, SERVER, header, say

import promptgrad as pg
from promptgrad import nn
from promptgrad.testing import Cut, Delay, Drop, Garbage, LoopbackLM, Status

ATTEMPTS = 6
IN_FLIGHT = 32
MIXES: dict[str, tuple[Any, ...]] = {
    "mixed": (
        Status(429),
        Status(429, retry_after=0),
        Status(503),
        Status(500),
        Cut(),
        Drop(),
        Garbage(),
        Garbage(b"{}"),
    ),
    "server errors": (Status(500), Status(502), Cut(), Drop()),
    "turned away": (Status(429), Status(429, retry_after=0), Status(503), Status(529)),
}
CASES = [  # mix, share of faults, seconds that a reply takes, whether faults take as long
    ("mixed", 0.53, 0.03, True),
    ("mixed", 0.53, 0.1, True),
    ("mixed", 0.53, 0.3, True),
    ("mixed", 0.53, 0.1, False),
    ("server errors", 0.3, 0.1, True),
    ("turned away", 0.3, 0.1, True),
    ("mixed", 0.0, 0.1, True),
]


def serve(mix: str, share: float, latency: float, fault_latency: float, seed: int) -> None:
    """Be the server: a line for its address, then for each line of standard input one with what it has counted."""
    if SERVER is not None:
        os.sched_setaffinity(0, {SERVER})
    chance = random.Random(seed)
    counts = {"received": 0, "answered": 0, "busy": 0.0}

    def respond(messages: Any) -> Any:
        counts["received"] += 1
        if chance.random() < share:
            counts["busy"] += fault_latency
            return Delay(fault_latency, chance.choice(MIXES[mix]))
        counts["answered"] += 1
        counts["busy"] += latency
        return Delay(latency, "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]")

    with LoopbackLM(respond, record=False) as server:
        print(json.dumps(server.url), flush=True)
        for _ in sys.stdin:
            print(json.dumps(counts), flush=True)


class Server:
    """A server as above, seen from the client."""

    def __init__(self, *case: Any) -> None:
        command = [sys.executable, __file__, "--serve", json.dumps(case)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self._read()

    def _read(self) -> Any:
        return json.loads(self.process.stdout.readline() if self.process.stdout else "")

    def counts(self) -> dict[str, Any]:
        """What it has received and answered, and the seconds that this takes one place."""
        if self.process.stdin is not None:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        return dict(self._read())

    def close(self) -> None:
        """End it."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(timeout=60)
        if self.process.stdout is not None:
            self.process.stdout.close()


Outcome = tuple[list[bool], int | None]
"""Whether each row has an answer, and how many requests the client says that it sent."""


def with_promptgrad(url: str, count: int) -> Outcome:
    """`pg.evaluate` with an LM made from a name."""
    lm = pg.LM("openai/m", base_url=url, api_key="k", cache=False, attempts=ATTEMPTS)
    rows = [pg.Example(question=f"q{number}", answer="Paris").with_inputs("question") for number in range(count)]
    program = nn.Predict("question -> answer").to(lm)
    report = pg.evaluate(program, rows, pg.metrics.exact_match, concurrency=IN_FLIGHT)
    return [row.error is None and row.score == 1 for row in report.rows], lm.stats()["requests"]


def with_aiohttp(url: str, count: int) -> Outcome:
    """The usual loop: a place is kept while a row waits to be sent again."""
    import aiohttp

    sent = 0

    async def one(session: aiohttp.ClientSession, places: asyncio.Semaphore, number: int) -> bool:
        nonlocal sent
        body = {"model": "m", "messages": [{"role": "user", "content": f"q{number}"}]}
        async with places:
            for attempt in range(ATTEMPTS):
                if attempt:
                    await asyncio.sleep(random.random() * min(30.0, 0.5 * 2 ** (attempt - 1)))
                sent += 1
                try:
                    async with session.post(f"{url}/chat/completions", json=body) as response:
                        reply = await response.json(content_type=None)
                        if response.status == 200:
                            return bool(reply["choices"][0]["message"]["content"])
                except (aiohttp.ClientError, ValueError, KeyError, TypeError):
                    continue
            return False

    async def all_of_them() -> list[bool]:
        places = asyncio.Semaphore(IN_FLIGHT)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            return list(await asyncio.gather(*[one(session, places, number) for number in range(count)]))

    return asyncio.run(all_of_them()), sent


def with_dspy(url: str, count: int, **options: Any) -> Outcome:
    """`dspy.Evaluate`, whose LM sends a row up to six times; what it sends is not counted by itself."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import logging

    import dspy

    logging.disable(logging.CRITICAL)
    lm = dspy.LM("openai/m", api_base=url, api_key="k", cache=False, **(options or {"num_retries": ATTEMPTS - 1}))
    rows = [dspy.Example(question=f"q{number}", answer="Paris").with_inputs("question") for number in range(count)]
    answers: list[bool] = []

    def metric(row: Any, answer: Any, trace: Any = None) -> float:
        answers.append(getattr(answer, "answer", "") == "Paris")
        return float(answers[-1])

    evaluate = dspy.Evaluate(
        devset=rows, metric=metric, num_threads=IN_FLIGHT, max_errors=count, display_progress=False
    )
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
        evaluate(dspy.Predict("question -> answer"))
    return answers, None


def with_dspy_as_it_is(url: str, count: int) -> Outcome:
    """The same with the retries that `dspy.LM` has by default."""
    import inspect

    import dspy

    default = inspect.signature(dspy.LM.__init__).parameters["num_retries"].default
    return with_dspy(url, count, num_retries=default)


WHO: dict[str, Callable[[str, int], Outcome]] = {
    "promptgrad": with_promptgrad,
    "aiohttp": with_aiohttp,
    "dspy": with_dspy,
    "dspy, its defaults": with_dspy_as_it_is,
}


def measure(who: str, case: tuple[str, float, float, bool], count: int, seed: int) -> None:
    """Run one case with one client, and print its line."""
    mix, share, latency, slow = case
    words = f"{share:.0%} {mix}, {1e3 * latency:.0f} ms" + ("" if slow else ", faults at once")
    calm = Server(mix, 0.0, 0.0, 0.0, seed)
    try:
        WHO[who](calm.url, 8)  # warms up
    except ImportError as error:
        say(bench="faults", case=words, who=who, skipped=f"not installed: {error}")
        return
    finally:
        calm.close()
    server = Server(mix, share, latency, latency if slow else 0.0, seed)
    try:
        started = time.perf_counter()
        answers, sent = WHO[who](server.url, count)
        wall = time.perf_counter() - started
        counts = server.counts()
    finally:
        server.close()
    ideal = counts["busy"] / IN_FLIGHT
    line: dict[str, Any] = {
        "bench": "faults",
        "case": words,
        "who": who,
        "seed": seed,
        "wall_s": round(wall, 3),
        "ideal_s": round(ideal, 3),
        "x_ideal": round(wall / ideal, 2),
        "rows": len(answers) if who == "promptgrad" else count,
        "error_rows": count - sum(answers),
        "received": counts["received"],
        "sent": sent,
    }
    if who == "promptgrad":
        kept = len(answers) == count and sent == counts["received"] and 100 * line["error_rows"] <= count
        line |= {"target": "<= 3 x ideal, <= 1 % error rows, sent = received", "meets": kept and wall <= 3 * ideal}
    say(**line)


def main() -> None:
    """Measure every case once for each block and client."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=1, help="how often each case is run, each time with other faults")
    parser.add_argument("--quick", action="store_true", help="a few rows of our own, to see that it runs")
    parser.add_argument("--only", default="", help="clients whose name contains this")
    parser.add_argument("--case", default="", help="cases whose mix or milliseconds this is")
    parser.add_argument("--serve", default="", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(*json.loads(chosen.serve))
        return
    if CLIENT is not None:
        os.sched_setaffinity(0, {CLIENT})
    header("faults")
    only, count = ("promptgrad", 40) if chosen.quick else (chosen.only, 500)
    for case in CASES[:1] if chosen.quick else CASES:
        if chosen.case not in ("", case[0], f"{1e3 * case[2]:.0f}"):
            continue
        for block in range(chosen.blocks):
            for who in WHO:
                if only in who:
                    measure(who, case, count, 1000 + block)


if __name__ == "__main__":
    main()
