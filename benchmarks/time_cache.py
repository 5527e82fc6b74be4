"""What a cache hit costs, from memory and from disk, and how much room an entry takes.

The exchange is about 0.3 kB, as a short question and answer are. The row with 8 demos has some 3 kB in front of it,
compiled once. Misses are answered in place, so that a put is measured without a network.
"""

from __future__ import annotations

import json
import tempfile
from itertools import cycle
from pathlib import Path
from typing import Any

from _side_by_side import Block, contest, header, options, report, say, serve_blocks

ENTRIES = 1000
REPLY = "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]] " + "and some more words of reply " * 3


def question(number: int) -> str:
    """About 0.2 kB of prompt."""
    return f"Question {number}: which city is it that the traveller of the second story saw first? " * 2


def shown() -> list[dict[str, str]]:
    """The messages of eight demos."""
    return [
        {"role": role, "content": text}
        for number in range(8)
        for role, text in (("user", question(-1 - number)), ("assistant", REPLY))
    ]


def ours(path: str | None = None, entries: int = 10_000) -> Any:
    """Our cache around an LM that answers at once."""
    import promptgrad as pg

    return pg.lm.Cache(pg.lm.FunctionLM(lambda messages: REPLY, name="instant"), path, max_entries=entries)


def hits(lm: Any, requests: list[Any], n: int) -> Block:
    """Put all requests, then ask for them again and again."""
    for request in requests:
        lm(request)
    lm.flush()
    turn = cycle(requests)

    def block() -> int:
        for _ in range(n):
            lm(next(turn))
        return n

    return block


def memory(params: dict[str, Any]) -> Block:
    """`lm(prompt)`, known in memory."""
    return hits(ours(), [question(i) for i in range(ENTRIES)], params["n"])


def memory_demos(params: dict[str, Any]) -> Block:
    """The same behind the compiled prefix of eight demos, whose digest is reused."""
    from promptgrad.lm import Message, Prefix, Request

    prefix = Prefix(tuple(Message(m["role"], m["content"]) for m in shown()))
    lm = ours()
    contents = [question(i) for i in range(ENTRIES)]
    for content in contents:
        lm(Request(prefix, (Message("user", content),)))
    turn, n = cycle(contents), params["n"]

    def block() -> int:
        for _ in range(n):
            lm(Request(prefix, (Message("user", next(turn)),)))
        return n

    return block


def disk(params: dict[str, Any]) -> Block:
    """`lm(prompt)`, known on disk only: memory holds a single entry."""
    folder = tempfile.mkdtemp(prefix="promptgrad-bench-")
    return hits(ours(folder, entries=1), [question(i) for i in range(ENTRIES)], params["n"])


def disk_put(params: dict[str, Any]) -> Block:
    """A miss: the call, and the reply written to disk."""
    lm = ours(tempfile.mkdtemp(prefix="promptgrad-bench-"))
    state = {"next": 0}

    def block() -> int:
        for _ in range(params["n"]):
            lm(question(state["next"]))
            state["next"] += 1
        lm.flush()
        return int(params["n"])

    return block


def _dspy(params: dict[str, Any], *, on_disk: bool) -> Any:
    import warnings
    from types import SimpleNamespace

    import dspy

    warnings.simplefilter("ignore")
    folder = tempfile.mkdtemp(prefix="dspy-bench-")
    dspy.configure_cache(enable_disk_cache=on_disk, enable_memory_cache=not on_disk, disk_cache_dir=folder)
    return dspy, folder, SimpleNamespace


def dspy_hits(params: dict[str, Any], *, on_disk: bool) -> Block:
    """`dspy.LM` whose cache knows the answers; the first ones come from a loopback server."""
    dspy, _, _ = _dspy(params, on_disk=on_disk)
    lm = dspy.LM("openai/m", api_base=params["url"], api_key="none", cache=True)
    prompts = [question(i) for i in range(100)]
    for prompt in prompts:
        lm(prompt)
    turn, n = cycle(prompts), params["n"] // 5

    def block() -> int:
        for _ in range(n):
            lm(next(turn))
        return n

    return block


def litellm_memory(params: dict[str, Any]) -> Block:
    """litellm's cache in memory."""
    import os

    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    litellm.cache = litellm.Cache(type="local")

    def ask(prompt: str) -> Any:
        asked = [{"role": "user", "content": prompt}]
        return litellm.completion("openai/m", asked, api_base=params["url"], api_key="none", caching=True)

    prompts = [question(i) for i in range(20)]
    for prompt in prompts:
        ask(prompt)
    turn, n = cycle(prompts), params["n"] // 20

    def block() -> int:
        for _ in range(n):
            ask(next(turn))
        return n

    return block


CONTESTANTS = {
    "promptgrad memory": memory,
    "promptgrad memory, 8 demos": memory_demos,
    "promptgrad disk": disk,
    "promptgrad disk put": disk_put,
    "dspy memory": lambda params: dspy_hits(params, on_disk=False),
    "dspy disk": lambda params: dspy_hits(params, on_disk=True),
    "litellm memory": litellm_memory,
}
TARGETS = {
    "promptgrad memory": ("<= 20 us", lambda us, ratio: us <= 20),
    "promptgrad memory, 8 demos": ("<= 20 us", lambda us, ratio: us <= 20),
    "promptgrad disk": ("<= 60 us", lambda us, ratio: us <= 60),
}


def size_of(folder: str) -> int:
    """Bytes of all files in it."""
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def sizes(url: str, *, quick: bool) -> None:
    """Print the bytes an entry on disk takes."""
    with tempfile.TemporaryDirectory(prefix="promptgrad-bench-") as folder:
        lm = ours(folder)
        for number in range(ENTRIES):
            lm(question(number))
        lm.flush()
        written = size_of(folder) / ENTRIES
        lm.close()
        closed = size_of(folder) / ENTRIES
    say(
        bench="cache",
        case="size",
        who="promptgrad",
        bytes_an_entry=round(written),
        after_close=round(closed),
        entries=ENTRIES,
        target="<= 3000 bytes",
        meets=written <= 3000,
    )
    if quick:
        return
    try:
        dspy, folder, _ = _dspy({}, on_disk=True)
    except ImportError as error:
        say(bench="cache", case="size", who="dspy", skipped=f"not installed: {error}")
        return
    empty = size_of(folder)
    lm = dspy.LM("openai/m", api_base=url, api_key="none", cache=True)
    for number in range(ENTRIES):
        lm(question(number))
    full = size_of(folder)
    say(
        bench="cache",
        case="size",
        who="dspy",
        bytes_an_entry=round((full - empty) / ENTRIES),
        with_empty=round(full / ENTRIES),
        entries=ENTRIES,
    )


def main() -> None:
    """Measure hits, puts and sizes."""
    chosen = options(__doc__ or "", blocks=9)
    if chosen.child:
        serve_blocks(CONTESTANTS, chosen.child, json.loads(chosen.params))
        return
    from promptgrad.testing import LoopbackProcess

    header("cache")
    names = [name for name in CONTESTANTS if not chosen.quick or name.startswith("promptgrad")]
    with LoopbackProcess(REPLY) as server:
        params = {"url": server.url, "n": 100 if chosen.quick else 1000}
        children = contest(__file__, names, params, chosen.blocks, chosen.only)
        report("cache", "hit", children, base="dspy memory", targets=TARGETS)
        if not chosen.only:
            sizes(server.url, quick=chosen.quick)


if __name__ == "__main__":
    main()
