"""A page that shows an answer while the program writes it: FastAPI, server-sent events, and `program.stream`.

    pip install fastapi uvicorn                                 # the extra `serve`
    python examples/stream_chat.py                              # offline: a SIMULATED language model, see below
    python examples/stream_chat.py --lm openai/gpt-4o-mini
    python examples/stream_chat.py --lm my-model --base-url http://localhost:8000/v1

It prints an address of this machine. The page there sends a question and shows the steps and the answer word by word,
as the language model writes them. If the page is closed or asks anew, the request at the language model ends, too.

Without ``--lm`` a simulated language model answers: it repeats the question, slowly.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI, Query
from fastapi.responses import HTMLResponse, StreamingResponse

import promptgrad as pg
from promptgrad import nn
from promptgrad.lm import Message

PAGE = """<!doctype html>
<meta charset="utf-8"><title>promptgrad: a stream</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }
  form { display: flex; gap: .5rem } input { flex: 1; font: inherit; padding: .4rem }
  #reasoning { color: #777; white-space: pre-wrap } #answer { white-space: pre-wrap; font-size: 1.2rem }
  #state { color: #999; font-size: .8rem }
</style>
<form><input name="question" placeholder="A question" autofocus required maxlength="2000"><button>Ask</button></form>
<p id="reasoning"></p><p id="answer"></p><p id="state">ready</p>
<script>
  const show = (id, text) => { document.getElementById(id).textContent = text };
  const clear = () => { show("reasoning", ""); show("answer", "") };
  let source = null;
  function ask(question) {
    if (source) source.close();                       // which ends the request at the language model
    clear(); show("state", "asked");
    source = new EventSource("/ask?question=" + encodeURIComponent(question));
    source.addEventListener("delta", event => {
      const { field, text } = JSON.parse(event.data);
      document.getElementById(field).textContent += text;
      show("state", "writing");
    });
    source.addEventListener("void", clear);           // that reply did not count: the fields come anew
    source.addEventListener("end", event => { source.close(); show("state", "done: " + event.data) });
    source.addEventListener("failed", event => { source.close(); show("state", "failed: " + JSON.parse(event.data)) });
    source.onerror = () => { source.close(); show("state", "the connection is lost") };
  }
  document.querySelector("form").onsubmit = event => { event.preventDefault(); ask(event.target.question.value) };
  const first = new URLSearchParams(location.search).get("question");
  if (first) ask(first);
</script>
"""


def sse(event: str, data: Any) -> str:
    """One server-sent event."""
    return f"event: {event}\ndata: {json.dumps(data)}\n\n"


async def answer(program: nn.Module, question: str) -> AsyncIterator[str]:
    """The events of one question. Whoever stops reading ends the program, and with it the request."""
    async with program.stream(question=question) as events:
        try:
            async for event in events:
                match event:
                    case nn.FieldDelta(field=field, delta=delta):
                        yield sse("delta", {"field": field, "text": delta})
                    case nn.Voided():
                        yield sse("void", {})
                    case nn.Prediction():
                        yield sse("end", {"calls": event.usage.calls, "tokens": event.usage.tokens})
        except pg.errors.PromptgradError as error:
            yield sse("failed", type(error).__name__)


def make_app(program: nn.Module) -> FastAPI:
    """The page, and the events behind it."""
    app = FastAPI()

    @app.get("/")
    async def page() -> HTMLResponse:
        return HTMLResponse(PAGE)

    @app.get("/ask")
    async def ask(question: str = Query(min_length=1, max_length=2000)) -> StreamingResponse:
        head = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # a proxy passes on each event at once
        return StreamingResponse(answer(program, question), media_type="text/event-stream", headers=head)

    return app


async def simulated(messages: tuple[Message, ...]) -> AsyncIterator[str]:
    """A reply of the simulated language model, word by word."""
    question = messages[-1].text.split("## ]]\n", 1)[1].split("\n\n", 1)[0]
    reply = f"[[ ## reasoning ## ]]\nI am simulated, so I repeat.\n\n[[ ## answer ## ]]\nYou asked: {question}\n"
    for word in f"{reply}\n[[ ## completed ## ]]".replace(" ", " \0").split("\0"):
        await asyncio.sleep(0.05)
        yield word


def main() -> None:
    """Serve the page on this machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lm", help="a language model, such as openai/gpt-4o-mini; without one, a simulated one")
    parser.add_argument(
        "--base-url", help="the address of a server with OpenAI's API; --lm is then a model's name there"
    )
    parser.add_argument("--port", type=int, default=8765, help="0 for any free one")
    chosen = parser.parse_args()
    if chosen.base_url and not chosen.lm:
        parser.error("--base-url needs --lm")
    if chosen.lm is None:
        print("The answers come from a SIMULATED language model: pass --lm for a real one.")
        lm: pg.LM = pg.lm.FunctionLM(simulated, name="simulated")
    else:
        lm = pg.LM(chosen.lm, **({"base_url": chosen.base_url} if chosen.base_url else {}))
    program = nn.ChainOfThought("question -> answer").to(lm)
    with socket.create_server(("127.0.0.1", chosen.port)) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}/", flush=True)
        uvicorn.Server(uvicorn.Config(make_app(program), log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
