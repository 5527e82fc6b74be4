"""How long an evaluation takes: 500 examples, an LM that answers after 50 ms, 64 and 256 in flight.

Rows: `aevaluate` and `evaluate` of a built-in module, `evaluate` of a program whose `forward` is a plain function,
and the peers. The base is aiohttp with nothing around it. Every block asks new questions, so no cache helps.
"""

from __future__ import annotations

import asyncio
import json
from itertools import count
from typing import Any

from _side_by_side import SERVER, Block, Fed, contest, header, options, report, say, serve_blocks

REPLY = "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"
QUESTION = "What is the capital of the country whose largest city by area is number {}? Answer in one word."


def bare_aiohttp(params: dict[str, Any]) -> Block:
    """aiohttp as one would write it by hand: as many workers as may be in flight."""
    import aiohttp

    loop = asyncio.new_event_loop()
    url, numbers = params["url"] + "/chat/completions", count()

    async def session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    client = loop.run_until_complete(session())

    async def call(question: str) -> bool:
        body = {"model": "m", "messages": [{"role": "user", "content": question}]}
        async with client.post(url, json=body, headers={"Authorization": "Bearer none"}) as response:
            reply = await response.json()
        return "Paris" in str(reply["choices"][0]["message"]["content"])

    async def worker(questions: list[str], right: list[bool]) -> None:
        while questions:
            right.append(await call(questions.pop()))

    async def evaluate(questions: list[str]) -> int:
        right: list[bool] = []
        await asyncio.gather(*(worker(questions, right) for _ in range(params["flight"])))
        return 1

    return Fed(
        lambda: [QUESTION.format(next(numbers)) for _ in range(params["examples"])],
        lambda questions: loop.run_until_complete(evaluate(questions)),
    )


def _ours(params: dict[str, Any]) -> tuple[Any, Any]:
    import promptgrad as pg

    numbers = count()

    def examples() -> list[Any]:
        made = [
            pg.Example(question=QUESTION.format(next(numbers)), answer="Paris").with_inputs("question")
            for _ in range(params["examples"])
        ]
        return made

    return pg.LM("openai/m", base_url=params["url"], api_key="none", concurrency=1024), examples


def _check(score: float) -> int:
    if score != 1.0:
        raise AssertionError(f"the score is {score}")
    return 1


def aevaluate(params: dict[str, Any]) -> Block:
    """`await pg.aevaluate(...)` of a `Predict`, on a loop of the caller's."""
    import promptgrad as pg
    from promptgrad import nn

    lm, examples = _ours(params)
    model, loop = nn.Predict("question -> answer").to(lm), asyncio.new_event_loop()
    metric = pg.metrics.exact_match

    async def run(data: list[Any]) -> Any:
        return await pg.aevaluate(model, data, metric, concurrency=params["flight"])

    return Fed(examples, lambda data: _check(loop.run_until_complete(run(data)).score))


def evaluate(params: dict[str, Any]) -> Block:
    """`pg.evaluate(...)` of a `Predict`, from a script."""
    import promptgrad as pg
    from promptgrad import nn

    lm, examples = _ours(params)
    model, metric = nn.Predict("question -> answer").to(lm), pg.metrics.exact_match
    return Fed(examples, lambda data: _check(pg.evaluate(model, data, metric, concurrency=params["flight"]).score))


def evaluate_plain_forward(params: dict[str, Any]) -> Block:
    """`pg.evaluate(...)` of a program whose `forward` is a plain function: one thread for each in flight."""
    import promptgrad as pg
    from promptgrad import nn

    class Program(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.answer = nn.Predict("question -> answer")

        def forward(self, question: str) -> Any:
            return self.answer(question=question)

    lm, examples = _ours(params)
    model, metric = Program().to(lm), pg.metrics.exact_match
    return Fed(examples, lambda data: _check(pg.evaluate(model, data, metric, concurrency=params["flight"]).score))


def dspy_evaluate(params: dict[str, Any]) -> Block:
    """`dspy.Evaluate` with as many threads."""
    import warnings

    import dspy

    warnings.simplefilter("ignore")
    dspy.configure(lm=dspy.LM("openai/m", api_base=params["url"], api_key="none", cache=False))
    model, numbers = dspy.Predict("question -> answer"), count()

    def examples() -> list[Any]:
        return [
            dspy.Example(question=QUESTION.format(next(numbers)), answer="Paris").with_inputs("question")
            for _ in range(params["examples"])
        ]

    def work(data: list[Any]) -> int:
        run = dspy.Evaluate(
            devset=data,
            metric=lambda example, output, trace=None: example.answer == output.answer,
            num_threads=params["flight"],
        )
        return _check(run(model).score / 100)

    return Fed(examples, work)


def litellm_gather(params: dict[str, Any]) -> Block:
    """`litellm.acompletion` in as many workers."""
    import os

    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    litellm.suppress_debug_info = True
    loop, numbers = asyncio.new_event_loop(), count()

    async def worker(questions: list[str]) -> None:
        while questions:
            asked = [{"role": "user", "content": questions.pop()}]
            await litellm.acompletion("openai/m", asked, api_base=params["url"], api_key="none")

    async def run(questions: list[str]) -> int:
        await asyncio.gather(*(worker(questions) for _ in range(params["flight"])))
        return 1

    return Fed(
        lambda: [QUESTION.format(next(numbers)) for _ in range(params["examples"])],
        lambda questions: loop.run_until_complete(run(questions)),
    )


CONTESTANTS = {
    "aiohttp": bare_aiohttp,
    "promptgrad async": aevaluate,
    "promptgrad sync": evaluate,
    "promptgrad sync, plain forward": evaluate_plain_forward,
    "dspy": dspy_evaluate,
    "litellm async": litellm_gather,
}


def at_most(limit: float) -> Any:
    """A target as a ratio to aiohttp."""
    return f"<= {limit} x aiohttp", lambda seconds, ratio: ratio <= limit


TARGETS = {
    64: dict.fromkeys(("promptgrad async", "promptgrad sync", "promptgrad sync, plain forward"), at_most(1.25)),
    256: {
        "promptgrad async": at_most(1.25),
        "promptgrad sync": at_most(1.5),
        "promptgrad sync, plain forward": at_most(1.5),
    },
}


def main() -> None:
    """Measure at 64 and 256 in flight."""
    chosen = options(__doc__ or "", blocks=9)
    if chosen.child:
        serve_blocks(CONTESTANTS, chosen.child, json.loads(chosen.params))
        return
    from promptgrad.testing import LoopbackProcess

    header("evaluate")
    names = [name for name in CONTESTANTS if not chosen.quick or name.startswith(("promptgrad", "aiohttp"))]
    latency, examples = (0.005, 50) if chosen.quick else (0.05, 500)
    for flight in (64,) if chosen.quick else (64, 256):
        with LoopbackProcess(REPLY, latency=latency, cpu=SERVER) as server:
            params = {"url": server.url, "flight": flight, "examples": examples}
            children = contest(__file__, names, params, chosen.blocks, chosen.only)
            report(
                "evaluate",
                f"{flight} in flight",
                children,
                what="wall",
                unit="s",
                base="aiohttp",
                targets=TARGETS[flight],
            )
            ideal = -(-examples // flight) * latency
            say(bench="evaluate", case=f"{flight} in flight", who="ideal", wall_s=ideal)


if __name__ == "__main__":
    main()
