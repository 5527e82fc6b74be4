"""What one call over HTTP costs the client: CPU of its process, server elsewhere, latency zero.

Rows: 1 and 32 in flight, coroutines and threads. The base is aiohttp with nothing around it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

from _side_by_side import SERVER, Block, contest, header, options, report, serve_blocks

REPLY = "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"
QUESTION = "What is the capital of the country whose largest city by area is number {}? Answer in one word."


def with_coroutines(params: dict[str, Any], call: Callable[[str], Awaitable[Any]], loop: Any, share: int = 1) -> Block:
    """A block of `n` calls by as many coroutines as are to be in flight."""
    numbers, n = count(), params["n"] // share

    async def worker(calls: list[int]) -> None:
        while calls:
            calls.pop()
            await call(QUESTION.format(next(numbers)))

    async def some() -> int:
        calls = list(range(n))
        await asyncio.gather(*(worker(calls) for _ in range(params["flight"])))
        return n

    return lambda: loop.run_until_complete(some())


def with_threads(params: dict[str, Any], call: Callable[[str], Any], share: int = 1) -> Block:
    """The same by threads."""
    numbers, n = count(), params["n"] // share
    if params["flight"] == 1:

        def alone() -> int:
            for _ in range(n):
                call(QUESTION.format(next(numbers)))
            return n

        return alone
    pool = ThreadPoolExecutor(params["flight"])

    def block() -> int:
        list(pool.map(call, [QUESTION.format(next(numbers)) for _ in range(n)]))
        return n

    return block


def bare_aiohttp(params: dict[str, Any]) -> Block:
    """aiohttp as one would write it by hand."""
    import aiohttp

    loop = asyncio.new_event_loop()
    url, headers = params["url"] + "/chat/completions", {"Authorization": "Bearer none"}

    async def session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    client = loop.run_until_complete(session())

    async def call(question: str) -> str:
        body = {"model": "m", "messages": [{"role": "user", "content": question}]}
        async with client.post(url, json=body, headers=headers) as response:
            reply = await response.json()
        return str(reply["choices"][0]["message"]["content"])

    return with_coroutines(params, call, loop)


def http(params: dict[str, Any]) -> Any:
    """Our transport alone."""
    import promptgrad as pg

    return pg.lm.HTTP("m", params["url"], "none")


def layered(params: dict[str, Any]) -> Any:
    """Our transport as a name resolves to it: cache, retry and cap around it."""
    import promptgrad as pg

    return pg.LM("openai/m", base_url=params["url"], api_key="none")


def awaited(params: dict[str, Any]) -> Block:
    """`await lm.acall(...)`."""
    return with_coroutines(params, layered(params).acall, asyncio.new_event_loop())


def awaited_bare(params: dict[str, Any]) -> Block:
    """`await lm.acall(...)` of the transport alone."""
    return with_coroutines(params, http(params).acall, asyncio.new_event_loop())


def called(params: dict[str, Any]) -> Block:
    """`lm(...)` in threads."""
    return with_threads(params, layered(params))


def called_bare(params: dict[str, Any]) -> Block:
    """`lm(...)` of the transport alone in threads."""
    return with_threads(params, http(params))


def predict_awaited(params: dict[str, Any]) -> Block:
    """`await predict.acall(...)`: signature, prompt, graph, transport, parser."""
    from promptgrad import nn

    model = nn.Predict("question -> answer").to(layered(params))
    return with_coroutines(params, lambda question: model.acall(question=question), asyncio.new_event_loop())


def bare_http_client(params: dict[str, Any]) -> Block:
    """The standard library's blocking client, one connection a thread."""
    import http.client
    import threading

    local = threading.local()
    host = params["url"].split("/")[2]

    def call(question: str) -> str:
        if not hasattr(local, "client"):
            local.client = http.client.HTTPConnection(host)
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": question}]})
        local.client.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        reply = json.loads(local.client.getresponse().read())
        return str(reply["choices"][0]["message"]["content"])

    return with_threads(params, call)


def httpx_async(params: dict[str, Any]) -> Block:
    """httpx, which the SDKs of the providers use."""
    import httpx

    loop = asyncio.new_event_loop()
    client = httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=60)

    async def call(question: str) -> str:
        body = {"model": "m", "messages": [{"role": "user", "content": question}]}
        reply = (await client.post(params["url"] + "/chat/completions", json=body)).json()
        return str(reply["choices"][0]["message"]["content"])

    return with_coroutines(params, call, loop, share=4)


def openai_async(params: dict[str, Any]) -> Block:
    """OpenAI's own client."""
    import openai

    loop = asyncio.new_event_loop()
    client = openai.AsyncOpenAI(base_url=params["url"], api_key="none")

    async def call(question: str) -> Any:
        return await client.chat.completions.create(model="m", messages=[{"role": "user", "content": question}])

    return with_coroutines(params, call, loop, share=8)


def litellm_async(params: dict[str, Any]) -> Block:
    """`litellm.acompletion`."""
    import os

    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    litellm.suppress_debug_info = True

    async def call(question: str) -> Any:
        asked = [{"role": "user", "content": question}]
        return await litellm.acompletion("openai/m", asked, api_base=params["url"], api_key="none")

    return with_coroutines(params, call, asyncio.new_event_loop(), share=8)


def _dspy_lm(params: dict[str, Any]) -> Any:
    import warnings

    import dspy

    warnings.simplefilter("ignore")
    return dspy.LM("openai/m", api_base=params["url"], api_key="none", cache=False)


def dspy_async(params: dict[str, Any]) -> Block:
    """`dspy.LM.acall`."""
    return with_coroutines(params, _dspy_lm(params).acall, asyncio.new_event_loop(), share=8)


def dspy_threads(params: dict[str, Any]) -> Block:
    """`dspy.LM` in threads."""
    return with_threads(params, _dspy_lm(params), share=8)


CONTESTANTS = {
    "aiohttp": bare_aiohttp,
    "http.client": bare_http_client,
    "promptgrad async": awaited,
    "promptgrad sync": called,
    "promptgrad async, no layers": awaited_bare,
    "promptgrad sync, no layers": called_bare,
    "promptgrad Predict async": predict_awaited,
    "httpx async": httpx_async,
    "openai async": openai_async,
    "dspy async": dspy_async,
    "dspy sync": dspy_threads,
    "litellm async": litellm_async,
}
TARGETS = {
    "promptgrad async": ("<= 1.6 x aiohttp", lambda us, ratio: ratio <= 1.6),
    "promptgrad sync": ("<= 2.5 x aiohttp", lambda us, ratio: ratio <= 2.5),
}


def main() -> None:
    """Measure with 32 in flight and with 1."""
    chosen = options(__doc__ or "", blocks=9)
    if chosen.child:
        serve_blocks(CONTESTANTS, chosen.child, json.loads(chosen.params))
        return
    from promptgrad.testing import LoopbackProcess

    header("transport")
    names = [name for name in CONTESTANTS if not chosen.quick or name in ("aiohttp", *TARGETS)]
    with LoopbackProcess(REPLY, cpu=SERVER) as server:
        for flight in (32,) if chosen.quick else (32, 1):
            params = {"url": server.url, "flight": flight, "n": 64 if chosen.quick else 800}
            children = contest(__file__, names, params, chosen.blocks, chosen.only)
            targets = TARGETS if flight == 32 else None
            report("transport", f"{flight} in flight", children, base="aiohttp", targets=targets)


if __name__ == "__main__":
    main()
