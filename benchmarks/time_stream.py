"""What streaming costs the client beside bare aiohttp: until the first word of an answer, and for each word after it.

The server is another process, on another CPU, sends each word as an event and waits for nothing. `first word` is the
wall time of a call whose answer is one word, one call at a time: from the question to that word, and the end of the
stream. `200 words` is CPU of the client for a reply of 200 words, 16 in flight. The base reads the same events with
nothing around it: it decodes each, and looks for the marker of the answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Any

from _side_by_side import SERVER, Block, contest, header, options, report, serve_blocks

MARKER = "[[ ## answer ## ]]\n"
CASES = {
    "first word": (f"{MARKER}Paris\n\n[[ ## completed ## ]]", 1, "wall"),
    "200 words": (f"{MARKER}{'word ' * 200}\n\n[[ ## completed ## ]]", 16, "cpu"),
}
"""The reply of the server, the calls in flight, and what is compared."""
QUESTION = "What is the capital of the country whose largest city by area is number {}?"

Pieces = Callable[[str], AsyncIterator[str]]
"""A contestant: the pieces of the answer to a question, as they come."""


def block_of(params: dict[str, Any], pieces: Pieces, loop: asyncio.AbstractEventLoop) -> Block:
    """A block of streams that are read to their ends, so many side by side."""
    numbers = count()

    async def one() -> None:
        text = "".join([piece async for piece in pieces(QUESTION.format(next(numbers)))])
        assert params["word"] in text, text  # noqa: S101

    async def some() -> int:
        for _ in range(params["n"] // params["flight"]):
            await asyncio.gather(*(one() for _ in range(params["flight"])))
        return int(params["n"])

    return lambda: loop.run_until_complete(some())


def aiohttp_pieces(params: dict[str, Any], loop: asyncio.AbstractEventLoop) -> Pieces:
    """aiohttp as one would write it by hand."""
    import aiohttp

    url, headers = params["url"] + "/chat/completions", {"Authorization": "Bearer none"}

    async def session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    client = loop.run_until_complete(session())

    async def pieces(question: str) -> AsyncIterator[str]:
        body = {"model": "m", "messages": [{"role": "user", "content": question}], "stream": True}
        text, found = "", False
        async with client.post(url, json=body, headers=headers) as response:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    delta = json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
                    text += delta
                    if found:
                        yield delta
                    elif MARKER in text:
                        found = True

    return pieces


def lm_pieces(params: dict[str, Any], loop: asyncio.AbstractEventLoop) -> Pieces:
    """`lm.stream`: the transport and its layers, no program."""
    import promptgrad as pg

    lm = pg.LM("openai/m", base_url=params["url"], api_key="none")

    async def pieces(question: str) -> AsyncIterator[str]:
        async for event in lm.stream(question):
            if isinstance(event, pg.lm.TextDelta):
                yield event.text

    return pieces


def program_pieces(params: dict[str, Any], loop: asyncio.AbstractEventLoop) -> Pieces:
    """`program.stream`: signature, prompt, graph, layers, transport, and the reader of fields."""
    import promptgrad as pg
    from promptgrad import nn

    model = nn.Predict("question -> answer").to(pg.LM("openai/m", base_url=params["url"], api_key="none"))

    async def pieces(question: str) -> AsyncIterator[str]:
        async for event in model.stream(question=question):
            if isinstance(event, nn.FieldDelta):
                yield event.delta

    return pieces


def openai_pieces(params: dict[str, Any], loop: asyncio.AbstractEventLoop) -> Pieces:
    """OpenAI's own client."""
    import openai

    client = openai.AsyncOpenAI(base_url=params["url"], api_key="none")

    async def pieces(question: str) -> AsyncIterator[str]:
        asked: Any = [{"role": "user", "content": question}]
        async for chunk in await client.chat.completions.create(model="m", messages=asked, stream=True):
            yield chunk.choices[0].delta.content or "" if chunk.choices else ""

    return pieces


MAKERS: dict[str, Callable[[dict[str, Any], asyncio.AbstractEventLoop], Pieces]] = {
    "aiohttp": aiohttp_pieces,
    "promptgrad lm.stream": lm_pieces,
    "promptgrad program.stream": program_pieces,
    "openai": openai_pieces,
}


def contestant(
    make: Callable[[dict[str, Any], asyncio.AbstractEventLoop], Pieces],
) -> Callable[[dict[str, Any]], Block]:
    """Prepare a block of the case in `params`."""

    def prepare(params: dict[str, Any]) -> Block:
        loop = asyncio.new_event_loop()
        return block_of(params, make(params, loop), loop)

    return prepare


CONTESTANTS = {name: contestant(make) for name, make in MAKERS.items()}
TARGETS = {
    "first word": {"promptgrad program.stream": ("<= 2 x aiohttp", lambda each, ratio: ratio <= 2)},
    "200 words": {"promptgrad program.stream": ("<= 2 x aiohttp", lambda each, ratio: ratio <= 2)},
}


def main() -> None:
    """Measure both cases."""
    chosen = options(__doc__ or "", blocks=9)
    if chosen.child:
        serve_blocks(CONTESTANTS, chosen.child, json.loads(chosen.params))
        return
    from promptgrad.testing import LoopbackProcess

    header("stream")
    names = ["aiohttp", "promptgrad program.stream"] if chosen.quick else list(CONTESTANTS)
    for case in list(CASES)[: 1 if chosen.quick else None]:
        reply, flight, what = CASES[case]
        with LoopbackProcess(reply, cpu=SERVER) as server:
            n = 16 if chosen.quick else 160
            params = {"url": server.url, "flight": flight, "n": n, "word": "Paris" if flight == 1 else "word"}
            children = contest(__file__, names, params, chosen.blocks, chosen.only)
            report("stream", case, children, what=what, base="aiohttp", targets=TARGETS[case])


if __name__ == "__main__":
    main()
