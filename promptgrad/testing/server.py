"""`python -m promptgrad.testing.server`: the loopback server as a process.

It prints one line of JSON with its `url`, then serves until its standard input closes or it is ended. `GET /v1/stats`
returns its counts, `GET /v1/reset` resets them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import threading
from collections.abc import Sequence

from promptgrad.testing._fields import Fields
from promptgrad.testing._protocol import ChatProtocol, Script


async def _serve(script: Script, port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: ChatProtocol(script, loop), "127.0.0.1", port, backlog=1024)
    bound = server.sockets[0].getsockname()[1]
    sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{bound}/v1", "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
    ended = asyncio.Event()

    def watch() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=watch, daemon=True).start()
    await ended.wait()
    server.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m promptgrad.testing.server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 for any free port")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that every answer takes")
    parser.add_argument("--reply", default="ok", help="the text of every reply")
    parser.add_argument(
        "--fields",
        type=json.loads,
        default=None,
        help='instead of --reply: answer chat prompts field by field; JSON such as {"answer": "Paris"}',
    )
    parser.add_argument("--cpu", type=int, default=None, help="the CPU to stay on")
    options = parser.parse_args(arguments)
    if options.cpu is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {options.cpu})
    respond = options.reply if options.fields is None else Fields(**options.fields)
    asyncio.run(_serve(Script(respond, latency=options.latency, record=False), options.port))


if __name__ == "__main__":
    main()
