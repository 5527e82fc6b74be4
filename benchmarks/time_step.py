"""How long one training step takes: forward, backward and step of a chain of 3 calls, batch 8, an LM of 50 ms.

Rows: 0, 3 and 8 of the 8 samples fail. The critical path is 3 calls forward and, if anything failed, 3 backward and 1
for the step, whose parameters are rewritten side by side. The row `one after the other` sends the same calls in turn,
with http.client. Gated steps, which also measure the new text on the batch, stand beside. TextGrad goes backward
through every sample, right or wrong, so it has one figure; its loss is a function of the output, as ours is.
"""

from __future__ import annotations

import json
from itertools import count
from typing import Any

from _side_by_side import SERVER, Block, contest, header, options, report, say, serve_blocks

FIELDS = {"answer": "Paris", "critique": "It should be shorter.", "new_instruction": "Answer in one word."}
PLAIN = "<IMPROVED_VARIABLE>Answer in one word.</IMPROVED_VARIABLE>"
BATCH, DEPTH = 8, 3
CALLS = {0: 24, 3: 36, 8: 51}


def ours(params: dict[str, Any], *, gated: bool) -> Block:
    """The explicit loop: map, loss, backward, step."""
    import promptgrad as pg
    from promptgrad import nn, optim

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

    lm = pg.LM("openai/m", base_url=params["url"], api_key="none", cache=False)
    model = Chain().to(lm)
    criterion = nn.MetricLoss(pg.metrics.exact_match)
    numbers = count()

    def block() -> int:
        optimizer = optim.TGD(model.parameters(), lm=lm, proposals=1)
        batch = [
            pg.Example(
                question=f"Question {next(numbers)}: which city?", answer="Rome" if i < params["failures"] else "Paris"
            ).with_inputs("question")
            for i in range(BATCH)
        ]

        def closure() -> Any:
            loss = criterion(model.map(batch), batch)
            if pg.is_grad_enabled():  # the trial of a proposal is only measured
                optimizer.zero_grad()
                loss.backward()
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

    host, number = params["url"].split("/")[2], CALLS[params["failures"]]
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
    """TextGrad: the same chain, its trainable prompts in the system messages, and a function as loss."""
    import logging
    import os
    import tempfile

    folder = tempfile.mkdtemp(prefix="textgrad-bench-")
    os.environ.update(HOME=folder, LITELLM_LOCAL_MODEL_COST_MAP="True")
    os.chdir(folder)  # it writes ./logs
    import openai
    import textgrad as tg
    from textgrad.engine.local_model_openai_api import ChatExternalClient

    logging.disable(logging.CRITICAL)
    engine = ChatExternalClient(openai.OpenAI(base_url=params["plain_url"], api_key="none"), "m")
    engine._check_cache = lambda prompt: None  # the replies are all alike, and so would most of the prompts be
    tg.set_backward_engine(engine, override=True)
    numbers = count()

    def check(output: Any) -> str:
        return f"The answer {output.value} is wrong: it should be shorter."

    loss_of = tg.autograd.StringBasedFunction(check, "compares the answer with the right one")

    def block() -> int:
        prompts = [
            tg.Variable("Answer the question.", requires_grad=True, role_description=f"instruction {i}")
            for i in range(DEPTH)
        ]
        chain = [tg.BlackboxLLM(engine, system_prompt=prompt) for prompt in prompts]
        optimizer = tg.TGD(parameters=prompts, engine=engine)
        losses = []
        for _ in range(BATCH):
            value = tg.Variable(f"Question {next(numbers)}?", requires_grad=False, role_description="question")
            for module in chain:
                value = module(value)
            losses.append(loss_of(inputs={"output": value}, response_role_description="verdict"))
        tg.sum(losses).backward()
        optimizer.step()
        return 1

    return block


CONTESTANTS = {
    "promptgrad": lambda params: ours(params, gated=False),
    "promptgrad, gated": lambda params: ours(params, gated=True),
    "one after the other": one_after_the_other,
    "textgrad": textgrad_step,
}


def main() -> None:
    """Measure with 0, 3 and 8 failures, and count the calls of one step."""
    chosen = options(__doc__ or "", blocks=9)
    if chosen.child:
        serve_blocks(CONTESTANTS, chosen.child, json.loads(chosen.params))
        return
    from promptgrad.testing import LoopbackProcess

    header("step")
    latency = 0.005 if chosen.quick else 0.05
    names = ["promptgrad"] if chosen.quick else list(CONTESTANTS)
    for failures in (3,) if chosen.quick else (0, 3, 8):
        path = (DEPTH if failures == 0 else 2 * DEPTH + 1) * latency
        case = f"{failures} of {BATCH} fail"
        with (
            LoopbackProcess(FIELDS, latency=latency, cpu=SERVER) as server,
            LoopbackProcess(PLAIN, latency=latency, cpu=SERVER) as plain,
        ):
            params = {"url": server.url, "plain_url": plain.url, "failures": failures}
            present = [name for name in names if name != "textgrad" or failures == BATCH]
            children = contest(__file__, present, params, chosen.blocks, chosen.only)
            peer = children.get("textgrad")
            if peer is not None and not peer.skipped:
                sent = round(plain.stats()["requests"] / (chosen.blocks + 1))
                say(bench="step", case=case, who="textgrad", calls=sent)
            limit = f"<= 1.5 x the critical path of {path:g} s"
            report(
                "step",
                case,
                children,
                what="wall",
                unit="s",
                targets={"promptgrad": (limit, lambda seconds, ratio, path=path: seconds <= 1.5 * path)},
            )
        with LoopbackProcess(FIELDS, cpu=SERVER) as server:
            for name in names[:2]:
                block = CONTESTANTS[name]({"url": server.url, "failures": failures})
                server.reset()
                block()
                sent = server.stats()["requests"]
                line: dict[str, Any] = {"bench": "step", "case": case, "who": name, "calls": sent}
                if name == "promptgrad":
                    line["target"], line["meets"] = f"<= {CALLS[failures]} calls", sent <= CALLS[failures]
                say(**line)


if __name__ == "__main__":
    main()
