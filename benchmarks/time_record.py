"""What recording costs: a forward of 100, 1,000 and 10,000 calls in a loop, on an LM that answers at once, in place.

Rows: the same forward with and without recording, and the difference, which is the cost of a node. Then what backward
makes of the nodes: the edges, where the answer is passed on as it is (exact) or in an f-string (content), and the whole
of `backward()`, whose critic answers at once as well. Last, what a forward leaves in memory: under `no_grad` no node.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tracemalloc
from collections.abc import Mapping
from functools import partial
from itertools import count
from typing import Any

from _side_by_side import Block, Child, Fed, contest, header, median, options, say, serve_blocks

SIZES = (100, 1_000, 10_000)
QUICK = ("recorded", "no_grad", "backward")
PARTS = tuple(os.path.join("autograd", name) for name in ("_node.py", "_tape.py"))


def program(*, plain: bool = False) -> Any:
    """A loop of calls, each of which reads the answer before; `plain` passes it on in an f-string."""
    import promptgrad as pg
    from promptgrad import nn

    numbers = count()

    def answer(messages: Any) -> str:
        return f"[[ ## answer ## ]]\nCity number {next(numbers)} lies to the north.\n\n[[ ## completed ## ]]"

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.improve = nn.Predict("question, draft -> answer")

        def forward(self, question: str, steps: int) -> Any:
            result = self.improve(question=question, draft="none yet")
            for _ in range(steps - 1):
                draft = f"So far: {result.answer}" if plain else result.answer
                result = self.improve(question=question, draft=draft)
            return result

    return Loop().to(pg.lm.FunctionLM(answer, name="instant"))


def forwards(params: dict[str, Any], *, size: int, grad: bool) -> Block:
    """Forwards of `size` calls, `params["calls"]` calls in all."""
    import promptgrad as pg

    model, times = program(), max(1, params["calls"] // size)

    def block() -> int:
        with pg.enable_grad() if grad else pg.no_grad():
            for number in range(times):
                model(question=f"Question {number}: which city?", steps=size)
        return times * size

    return block


def recorded_edges(params: dict[str, Any], *, size: int, plain: bool) -> Block:
    """The edges of forwards that were recorded before."""
    from promptgrad.autograd import edges

    model, times = program(plain=plain), max(1, params["calls"] // size)

    def feed() -> list[Any]:
        return [model(question=f"Question {i}: which city?", steps=size).grad_fn.tape for i in range(times)]

    def work(tapes: list[Any]) -> int:
        found = sum(len(edges(tape)) for tape in tapes)
        if found != times * size:
            raise AssertionError(f"{found} edges, not {times * size}")
        return times * size

    return Fed(feed, work)


def backward(params: dict[str, Any], *, size: int) -> Block:
    """`loss.backward()` of forwards that were recorded before: one critic call a node."""
    import promptgrad as pg
    from promptgrad import nn

    class Blame:
        async def critique(self, failure: Any) -> Mapping[str, str]:
            return {target.name: "It should be a city in the south." for target in failure.targets}

    model, times = program(), max(1, params["calls"] // size)
    criterion = nn.MetricLoss(pg.metrics.exact_match)
    example = pg.Example(question="which city?", steps=size, answer="Rome").with_inputs("question", "steps")

    def feed() -> list[Any]:
        return [criterion([model(question=f"Question {i}: which city?", steps=size)], [example]) for i in range(times)]

    def work(losses: list[Any]) -> int:
        model.zero_grad()
        made = sum(loss.backward(critic=Blame()).calls for loss in losses)
        if made != times * size:
            raise AssertionError(f"{made} critic calls, not {times * size}")
        return times * size

    return Fed(feed, work)


PREPARE: dict[str, Any] = {
    "recorded": partial(forwards, grad=True),
    "no_grad": partial(forwards, grad=False),
    "edges, exact": partial(recorded_edges, plain=False),
    "edges, content": partial(recorded_edges, plain=True),
    "backward": backward,
}
CONTESTANTS = {
    f"promptgrad {row}, {size}": partial(prepare, size=size) for row, prepare in PREPARE.items() for size in SIZES
}


def left_in_memory(size: int, *, grad: bool) -> dict[str, int]:
    """What a forward of `size` calls leaves while its predictions live, and how many nodes and tapes it ever made."""
    import promptgrad as pg
    from promptgrad import nn
    from promptgrad.autograd import GradFn, Tape

    class Keep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loop = program()

        def forward(self, question: str) -> list[Any]:
            return [self.loop.improve(question=question, draft=f"draft {number}") for number in range(size)]

    model = Keep()
    made = 0

    def watch(frame: Any, event: str, _: Any) -> None:
        nonlocal made
        code = frame.f_code
        made += event == "call" and code.co_name == "__init__" and code.co_filename.endswith(PARTS)

    with pg.enable_grad() if grad else pg.no_grad():
        model(question="warms up")
        gc.collect()
        sys.setprofile(watch)
        try:
            model(question="which city?")
        finally:
            sys.setprofile(None)
        gc.collect()
        before = sum(issubclass(type(thing), (GradFn, Tape)) for thing in gc.get_objects())
        tracemalloc.start()
        try:
            kept = model(question="which city?")
            gc.collect()
            taken = tracemalloc.take_snapshot()
        finally:
            tracemalloc.stop()
        alive = sum(issubclass(type(thing), (GradFn, Tape)) for thing in gc.get_objects()) - before
    if len(kept) != size:
        raise AssertionError("does not happen")
    blocks = taken.filter_traces([tracemalloc.Filter(True, f"*{part}") for part in PARTS])  # noqa: FBT003
    return {"made": made, "alive": alive, "bytes": sum(trace.size for trace in blocks.traces)}


def each(children: Mapping[str, Child], row: str, size: int) -> list[float]:
    """Microseconds of CPU a call in each block; empty where the row was left out."""
    child = children.get(f"promptgrad {row}, {size}")
    return [] if child is None or child.skipped else [1e6 * seconds for seconds in child.per_operation("cpu")]


def differences(more: list[float], less: list[float]) -> list[float]:
    """Block by block."""
    return [a - b for a, b in zip(more, less, strict=False)]


def told(size: int, who: str, values: list[float], smallest: list[float]) -> dict[str, Any]:
    """A line with median, fastest and slowest block, and the ratio to the row of the smallest size, block by block."""
    line: dict[str, Any] = {"bench": "record", "case": f"{size} calls", "who": f"promptgrad {who}"}
    line |= {"cpu_us": round(median(values), 2), "low": round(min(values), 2), "high": round(max(values), 2)}
    line["x_smallest"] = round(median([a / b for a, b in zip(values, smallest, strict=False)]), 2)
    return line | {"blocks": len(values)}


def main() -> None:
    """Measure all sizes in turn, then the memory."""
    chosen = options(__doc__ or "", blocks=9)
    if chosen.child:
        serve_blocks(CONTESTANTS, chosen.child, json.loads(chosen.params))
        return
    header("record")
    sizes = SIZES[:2] if chosen.quick else SIZES
    rows = QUICK if chosen.quick else tuple(PREPARE)
    names = [f"promptgrad {row}, {size}" for row in rows for size in sizes]
    children = contest(__file__, names, {"calls": max(sizes)}, chosen.blocks, chosen.only)
    for name, child in children.items():
        if child.skipped:
            say(bench="record", case=name, who=name, skipped=child.skipped)
    for row in rows:
        smallest = each(children, row, sizes[0])
        for size in sizes:
            values = each(children, row, size)
            if not values or not smallest:
                continue
            line = told(size, row, values, smallest)
            if row not in ("recorded", "no_grad"):
                line["target"], line["meets"] = f"<= 2 x that of {sizes[0]} calls", line["x_smallest"] <= 2
            say(**line)
    nodes = {size: differences(each(children, "recorded", size), each(children, "no_grad", size)) for size in sizes}
    for size, values in nodes.items():
        if not values or not nodes[sizes[0]]:
            continue
        line = told(size, "node", values, nodes[sizes[0]])
        line["target"] = f"<= 30 us, <= 1.3 x that of {sizes[0]} calls"
        line["meets"] = line["cpu_us"] <= 30 and line["x_smallest"] <= 1.3
        say(**line)
    size = 100 if chosen.quick else 1_000
    for grad in (True, False):
        found = left_in_memory(size, grad=grad)
        who = f"promptgrad memory, {'recorded' if grad else 'no_grad'}"
        line = {"bench": "record", "case": f"{size} calls", "who": who, **found}
        if not grad:
            line["target"], line["meets"] = "no node, no tape, no byte of theirs", not any(found.values())
        say(**line)


if __name__ == "__main__":
    main()
