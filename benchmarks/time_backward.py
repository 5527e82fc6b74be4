"""How long one training step takes: forward, backward and step on an LM of 50 ms, for programs of several shapes.

Shapes: a chain of 3 calls; a tree of 4 calls, then 2 of their pairs, then 1; a loop of 6 calls of one module. By
default a critic is shown the failed samples side by side, eight in one call, all calls at once. So the critical path is
the depth of the program and, if anything failed, 1 for the critiques and 1 for the step, whose parameters are rewritten
side by side: 3 or 5 rounds for chain and tree, 8 for the loop, whatever the batch. `one call at a time` is the engine
"local", which goes back through the depth: 7 and 13 rounds. Each contestant has a server of its own, so the calls are
those of the blocks that were timed.

`one after the other` sends the same calls in turn, with http.client. Gated steps, which also measure the new text on
the batch, stand beside. TextGrad has programs of the same shapes; it goes backward through every sample, right or
wrong, so it has one row for each shape; its loss is a function of the output, as ours is.
"""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import ExitStack
from itertools import count
from typing import Any, NamedTuple

from _side_by_side import SERVER, Block, contest, header, options, report, say, serve_blocks

FIELDS = {"answer": "Paris", "critique": "It should be shorter.", "new_instruction": "Answer in one word."}
PLAIN = "<IMPROVED_VARIABLE>Answer in one word.</IMPROVED_VARIABLE>"
CHAIN, LEAVES, LOOP = 3, 4, 6
GROUP = 8
"""Failed samples in one call of the joint critic."""


LOCAL, GATED = "promptgrad, one call at a time", "promptgrad, gated"


class Shape(NamedTuple):
    """How a program looks: its depth in calls, its calls for one sample, and its instructions."""

    depth: int
    calls: int
    instructions: int


SHAPES = {"chain": Shape(CHAIN, CHAIN, CHAIN), "tree": Shape(3, LEAVES + 3, LEAVES + 3), "loop": Shape(LOOP, LOOP, 1)}


class Case(NamedTuple):
    """One row: a shape, and how many of how many samples fail."""

    shape: str
    batch: int
    failures: int

    def judged(self, *, local: bool) -> int:
        """Critic calls: with the engine "local" one for each call of a failed sample, else one for each group."""
        return self.failures * SHAPES[self.shape].calls if local else math.ceil(self.failures / GROUP)

    def rounds(self, *, local: bool = False) -> int:
        """Calls on the critical path: forward, backward (one round, or with the engine "local" the depth), step."""
        depth = SHAPES[self.shape].depth
        return depth + (depth if local else 1) + 1 if self.failures else depth

    def calls(self, *, local: bool = False) -> int:
        """Calls in all: those of the forwards, those of the critic, one a rewrite."""
        shape = SHAPES[self.shape]
        return self.batch * shape.calls + self.judged(local=local) + (shape.instructions if self.failures else 0)


CASES = [
    *(Case("chain", 8, failures) for failures in (0, 3, 8)),
    Case("tree", 8, 8),
    Case("loop", 8, 8),
    Case("chain", 64, 64),
]
QUICK = [Case("chain", 8, 3), Case("tree", 8, 8), Case("loop", 8, 8)]


def program(shape: str) -> Any:
    """Our program of that shape."""
    from promptgrad import nn

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Predict("question -> answer")
            self.two = nn.Predict("question, draft -> answer")
            self.three = nn.Predict("question, draft -> answer")

        def forward(self, question: str) -> Any:
            draft = self.one(question=question).answer
            draft = self.two(question=question, draft=draft).answer
            return self.three(question=question, draft=draft)

    class Tree(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.leaves = nn.ModuleList(nn.Predict("question -> answer") for _ in range(LEAVES))
            self.pairs = nn.ModuleList(nn.Predict("question, first, second -> answer") for _ in range(LEAVES // 2))
            self.root = nn.Predict("question, first, second -> answer")

        async def forward(self, question: str) -> Any:
            said = await asyncio.gather(*(leaf.acall(question=question) for leaf in self.leaves))
            a, b = await asyncio.gather(
                *(
                    pair.acall(question=question, first=first.answer, second=second.answer)
                    for pair, first, second in zip(self.pairs, said[::2], said[1::2], strict=True)
                )
            )
            return await self.root.acall(question=question, first=a.answer, second=b.answer)

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.improve = nn.Predict("question, draft -> answer")

        def forward(self, question: str) -> Any:
            result = self.improve(question=question, draft="none yet")
            for _ in range(LOOP - 1):
                result = self.improve(question=question, draft=result.answer)
            return result

    return {"chain": Chain, "tree": Tree, "loop": Loop}[shape]()


def ours(params: dict[str, Any], *, name: str = "promptgrad") -> Block:
    """The explicit loop: map, loss, backward, step."""
    import promptgrad as pg
    from promptgrad import nn, optim

    case = Case(*params["case"])
    url, gated, engine = params["urls"][name], name == GATED, "local" if name == LOCAL else None
    lm = pg.LM("openai/m", base_url=url, api_key="none", cache=False)
    model = program(case.shape).to(lm)
    criterion = nn.MetricLoss(pg.metrics.exact_match)
    numbers = count()

    def block() -> int:
        optimizer = optim.TGD(model.parameters(), lm=lm, proposals=1)
        batch = [
            pg.Example(
                question=f"Question {next(numbers)}: which city?", answer="Rome" if i < case.failures else "Paris"
            ).with_inputs("question")
            for i in range(case.batch)
        ]

        def closure() -> Any:
            loss = criterion(model.map(batch, concurrency=case.batch), batch)
            if pg.is_grad_enabled():  # the trial of a proposal is only measured
                optimizer.zero_grad()
                loss.backward(engine=engine)
            return loss

        if gated:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
        return 1

    return block


def one_after_the_other(params: dict[str, Any]) -> Block:
    """As many calls in turn, by hand: what a serial backward costs at least."""
    import http.client

    host, number = params["urls"]["one after the other"].split("/")[2], Case(*params["case"]).calls()
    client = http.client.HTTPConnection(host)
    system = "Reply with these fields\n\n[[ ## answer ## ]]\n{text}"

    def block() -> int:
        for i in range(number):
            messages = [{"role": "system", "content": system}, {"role": "user", "content": f"Question {i}"}]
            body = json.dumps({"model": "m", "messages": messages})
            client.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
            client.getresponse().read()
        return 1

    return block


def textgrad_step(params: dict[str, Any]) -> Block:
    """TextGrad: a program of the same shape, its trainable prompts in the system messages, and a function as loss."""
    import logging
    import os
    import tempfile

    folder = tempfile.mkdtemp(prefix="textgrad-bench-")
    os.environ.update(HOME=folder, LITELLM_LOCAL_MODEL_COST_MAP="True")
    os.chdir(folder)  # it writes ./logs
    import openai
    import textgrad as tg
    from textgrad.autograd import FormattedLLMCall
    from textgrad.engine.local_model_openai_api import ChatExternalClient

    logging.disable(logging.CRITICAL)
    case = Case(*params["case"])
    engine = ChatExternalClient(openai.OpenAI(base_url=params["urls"]["textgrad"], api_key="none"), "m")
    engine._check_cache = lambda prompt: None  # the replies are all alike, and so would most of the prompts be
    tg.set_backward_engine(engine, override=True)
    numbers = count()

    def check(output: Any) -> str:
        return f"The answer {output.value} is wrong: it should be shorter."

    loss_of = tg.autograd.StringBasedFunction(check, "compares the answer with the right one")

    def call(prompt: Any, **inputs: Any) -> Any:
        text = "\n".join(f"{name}: {{{name}}}" for name in inputs)
        return FormattedLLMCall(engine, text, dict.fromkeys(inputs, ""), system_prompt=prompt)(inputs)

    def chain(prompts: list[Any], question: Any) -> Any:
        draft = call(prompts[0], question=question)
        for prompt in prompts[1:]:
            draft = call(prompt, question=question, draft=draft)
        return draft

    def tree(prompts: list[Any], question: Any) -> Any:
        said = [call(prompt, question=question) for prompt in prompts[:LEAVES]]
        a = call(prompts[LEAVES], question=question, first=said[0], second=said[1])
        b = call(prompts[LEAVES + 1], question=question, first=said[2], second=said[3])
        return call(prompts[LEAVES + 2], question=question, first=a, second=b)

    def loop(prompts: list[Any], question: Any) -> Any:
        draft = call(prompts[0], question=question)
        for _ in range(LOOP - 1):
            draft = call(prompts[0], question=question, draft=draft)
        return draft

    forward = {"chain": chain, "tree": tree, "loop": loop}[case.shape]

    def block() -> int:
        prompts = [
            tg.Variable("Answer the question.", requires_grad=True, role_description=f"instruction {i}")
            for i in range(SHAPES[case.shape].instructions)
        ]
        optimizer = tg.TGD(parameters=prompts, engine=engine)
        losses = []
        for _ in range(case.batch):
            question = tg.Variable(f"Question {next(numbers)}?", requires_grad=False, role_description="question")
            output = forward(prompts, question)
            losses.append(loss_of(inputs={"output": output}, response_role_description="verdict"))
        tg.sum(losses).backward()
        optimizer.step()
        return 1

    return block


CONTESTANTS = {
    "promptgrad": ours,
    LOCAL: lambda params: ours(params, name=LOCAL),
    GATED: lambda params: ours(params, name=GATED),
    "one after the other": one_after_the_other,
    "textgrad": textgrad_step,
}


def present(case: Case, *, quick: bool) -> list[str]:
    """Who takes part in a row."""
    if quick:
        return ["promptgrad", LOCAL]
    if case.failures < case.batch:
        return [name for name in CONTESTANTS if name != "textgrad"]
    return list(CONTESTANTS) if case.shape == "chain" and case.batch == 8 else ["promptgrad", "textgrad"]


def main() -> None:
    """Measure each row, with the calls that its blocks sent."""
    chosen = options(__doc__ or "", blocks=9)
    if chosen.child:
        serve_blocks(CONTESTANTS, chosen.child, json.loads(chosen.params))
        return
    from promptgrad.testing import LoopbackProcess

    header("backward")
    latency = 0.005 if chosen.quick else 0.05
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(
                LoopbackProcess(PLAIN if name == "textgrad" else FIELDS, latency=latency, cpu=SERVER)
            )
            for name in (["promptgrad", LOCAL] if chosen.quick else CONTESTANTS)
        }
        for case in QUICK if chosen.quick else CASES:
            title = f"{case.shape}, {case.failures} of {case.batch} fail"
            for server in servers.values():
                server.reset()
            children = contest(
                __file__,
                present(case, quick=chosen.quick),
                {"urls": {name: server.url for name, server in servers.items()}, "case": case},
                chosen.blocks,
                chosen.only,
                most={"textgrad": 1} if case.batch == 64 else {},
            )
            rounds = {"promptgrad": case.rounds(), LOCAL: case.rounds(local=True)}
            report(
                "backward",
                title,
                children,
                what="wall",
                unit="s",
                targets={
                    name: (
                        f"<= 1.5 x {number} rounds x {latency:g} s",
                        lambda seconds, ratio, limit=1.5 * number * latency: seconds <= limit,
                    )
                    for name, number in rounds.items()
                    if name in children
                },
            )
            for name, child in children.items():
                if child.skipped:
                    continue
                stats = servers[name].stats()
                sent = stats["requests"] / (len(child.blocks) + 1)  # the first warms up
                line = {"bench": "backward", "case": title, "who": name, "calls": sent}
                line["in_flight"] = stats["in_flight_high_water"]
                if name in ("promptgrad", LOCAL):
                    calls = case.calls(local=name == LOCAL)
                    line["target"], line["meets"] = f"= {calls} calls", sent == calls
                say(**line)


if __name__ == "__main__":
    main()
