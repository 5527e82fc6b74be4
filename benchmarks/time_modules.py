"""What modules cost beside their language model, which answers at once: in place, and on a server over HTTP.

A row a module: CPU of the client an LM call, with recording on and on the layers of a name, and how much of it is
overhead, beyond the bare call: that of a function in place, or of `http.client` over HTTP. DSPy's module of the same
name stands beside it, cache off, or what its users write where it has none (`Route`, `SelfConsistency`). Its modules
that run code do so in its `LocalInterpreter`, a process without a sandbox and cheaper than its default. Every call
asks something new, so that no cache answers it. The target is that over HTTP; `Retrieve` makes no call.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

from _side_by_side import SERVER, Block, contest, header, options, report, serve_blocks

QA = "question -> answer"
QUESTION = "What is the capital of the country whose largest city by area is number {}?"
ASKED = re.compile(r"\[\[ ## (\w+) ## \]\]\n\{")
TOWNS = ["Paris is in France.", "Rome is in Italy.", "Bern is in Switzerland."]


def look(name: str) -> str:
    """Look something up.

    Args:
        name: What to look up.
    """
    return f"Nothing is known of {name}."


def search(query: str, k: int) -> list[str]:
    """The same passages for every query."""
    return TOWNS[:k]


def reply(messages: Any) -> str:
    """A reply with a text for each field that the prompt asks for; an agent calls one tool and finishes."""
    first, last = messages[0]["content"], messages[-1]["content"]
    fields = dict.fromkeys(ASKED.findall(first)) or {"answer": None}
    texts = {"topic": "facts", "confidence": "1", "next_thought": "Look.", "finished": "True"}
    if "`advice` (dict" in first:
        texts["advice"] = '{"self": "Think again."}'
    done = "Nothing is known" in last
    texts["code"] = "submit('Paris')"
    if "SUBMIT" in first:
        texts["code"] = "SUBMIT(llm_query(question))"
    elif "- llm_query(" in last:
        texts["code"] = "submit(llm_query(question))"
    elif "- look(" in last:
        texts["code"] = "print(look('Paris'))"
    texts["generated_code"] = "print(look('Paris'))" if "look(" in first or "look," in first else "print('Paris')"
    texts["tool"] = texts["next_tool_name"] = "finish" if done else "look"
    texts["arguments"] = '{"answer": "Paris"}' if done else '{"name": "Paris"}'
    texts["next_tool_args"] = "{}" if done else texts["arguments"]
    return (
        "\n\n".join(f"[[ ## {name} ## ]]\n{texts.get(name, 'Paris')}" for name in fields) + "\n\n[[ ## completed ## ]]"
    )


def rewards(*arguments: Any) -> float:
    """A reward that no attempt but the last reaches, so that all are made."""
    return 0.0


def our_modules() -> dict[str, Callable[[], tuple[Any, int]]]:
    """Our modules, each with its LM calls."""
    from promptgrad import nn

    def branches() -> dict[str, Any]:
        return {"facts": nn.Predict(QA), "sums": nn.Predict(QA)}

    return {
        "Predict": lambda: (nn.Predict(QA), 1),
        "ChainOfThought": lambda: (nn.ChainOfThought(QA), 1),
        "Parallel": lambda: (nn.Parallel(nn.Predict(QA), nn.Predict(QA), nn.Predict(QA)), 3),
        "Ensemble": lambda: (nn.Ensemble([nn.Predict(QA), nn.Predict(QA), nn.Predict(QA)]), 3),
        "BestOfN": lambda: (nn.BestOfN(nn.Predict(QA), 3, rewards, threshold=1.0), 3),
        "Refine": lambda: (nn.Refine(nn.Predict(QA), 3, rewards, threshold=1.0), 5),
        "SelfConsistency": lambda: (nn.SelfConsistency(nn.Predict(QA), 3), 3),
        "MultiChainComparison": lambda: (nn.MultiChainComparison(QA, M=3), 4),
        "Route": lambda: (nn.Route(branches(), "question -> topic"), 2),
        "ReAct": lambda: (nn.ReAct(QA, [look]), 2),
        "ProgramOfThought": lambda: (nn.ProgramOfThought(QA), 1),
        "CodeAct": lambda: (nn.CodeAct(QA, [look]), 2),
        "RLM": lambda: (nn.RLM(QA), 2),
        "Retrieve": lambda: (nn.Retrieve(search), 1),
    }


def ours(params: dict[str, Any]) -> Block:
    """The module, recorded, on a function in place or on the server."""
    import promptgrad as pg

    def model_of() -> Any:
        if params.get("url"):
            return pg.LM("openai/m", base_url=params["url"], api_key="none")
        instant = pg.lm.FunctionLM(lambda messages: reply(messages), name="instant")
        return pg.lm.Cache(pg.lm.Retry(pg.lm.Limit(instant, 256)))

    made = [(name, *our_modules()[name]()) for name in params["modules"]]
    lm = model_of()
    for _, model, _ in made:
        model.to(lm)
    numbers, n = count(), params["n"]

    def block() -> int:
        calls = 0
        for name, model, cost in made:
            for _ in range(n):
                question = QUESTION.format(next(numbers))
                model(question) if name == "Retrieve" else model(question=question)
            calls += n * cost
        return calls

    return block


def dspy_programs() -> dict[str, Callable[[], Callable[[str], Any]]]:
    """DSPy's modules, as functions of a question."""
    import dspy

    def asked(module: Any) -> Callable[[str], Any]:
        return lambda question: module(question=question)

    def parallel() -> Callable[[str], Any]:
        predict, module = dspy.Predict(QA), dspy.Parallel(num_threads=3, disable_progress_bar=True)
        return lambda question: module([(predict, dspy.Example(question=question).with_inputs("question"))] * 3)

    def ensemble() -> Callable[[str], Any]:
        members = [dspy.Predict(QA) for _ in range(3)]
        return asked(dspy.teleprompt.Ensemble(reduce_fn=dspy.majority).compile(members))

    def self_consistency() -> Callable[[str], Any]:
        predict = dspy.Predict(QA)

        def call(question: str) -> Any:
            warm = [{"rollout_id": number, "temperature": 1.0} for number in range(3)]
            return dspy.majority([predict(question=question, config=config) for config in warm])

        return call

    def comparison() -> Callable[[str], Any]:
        draft, module = dspy.ChainOfThought(QA), dspy.MultiChainComparison(QA, M=3)

        def call(question: str) -> Any:
            return module([draft(question=f"{question} {number}") for number in range(3)], question=question)

        return call

    def route() -> Callable[[str], Any]:
        router = dspy.Predict("question -> topic")
        branches = {"facts": dspy.Predict(QA), "sums": dspy.Predict(QA)}
        return lambda question: branches[router(question=question).topic](question=question)

    def retrieve() -> Callable[[str], Any]:
        from types import SimpleNamespace

        dspy.configure(
            rm=lambda query, k, **kwargs: [SimpleNamespace(long_text=text) for text in search(query, k)],
        )
        return dspy.Retrieve(k=3)  # type: ignore[no-any-return]

    local = {"interpreter_factory": dspy.LocalInterpreter}
    return {
        "Predict": lambda: asked(dspy.Predict(QA)),
        "ChainOfThought": lambda: asked(dspy.ChainOfThought(QA)),
        "Parallel": parallel,
        "Ensemble": ensemble,
        "BestOfN": lambda: asked(dspy.BestOfN(dspy.Predict(QA), N=3, reward_fn=rewards, threshold=1.0)),
        "Refine": lambda: asked(dspy.Refine(dspy.Predict(QA), N=3, reward_fn=rewards, threshold=1.0)),
        "SelfConsistency": self_consistency,
        "MultiChainComparison": comparison,
        "Route": route,
        "ReAct": lambda: asked(dspy.ReAct(QA, tools=[look])),
        "ProgramOfThought": lambda: asked(dspy.ProgramOfThought(QA, **local)),
        "CodeAct": lambda: asked(dspy.CodeAct(QA, tools=[look], **local)),
        "RLM": lambda: asked(dspy.RLM(QA, **local)),
        "Retrieve": retrieve,
    }


def dspy_modules(params: dict[str, Any]) -> Block:
    """DSPy's module of the same name, cache off."""
    import logging
    import warnings
    from types import SimpleNamespace

    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else the import waits for a download
    import dspy

    warnings.simplefilter("ignore")
    logging.getLogger("dspy").setLevel(logging.ERROR)
    made = 0

    class Instant(dspy.BaseLM):
        def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
            nonlocal made
            made += 1
            asked = messages or [{"role": "user", "content": prompt}]
            message = SimpleNamespace(content=reply(asked), role="assistant", tool_calls=None)
            choice = SimpleNamespace(message=message, finish_reason="stop", logprobs=None)
            return SimpleNamespace(choices=[choice], usage={}, model="instant")

        def copy(self, **kwargs: Any) -> Any:  # attempts copy the model with another temperature
            return self

    class Served(dspy.LM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            nonlocal made
            made += 1
            return super().forward(*args, **kwargs)

    url = params.get("url")
    lm = Served("openai/m", api_base=url, api_key="none", cache=False) if url else Instant("instant", cache=False)
    dspy.configure(lm=lm, disable_history=True)
    (name,) = params["modules"]
    call = dspy_programs()[name]()
    numbers, n = count(), params["n"] // 10 + 1

    def block() -> int:
        before = made
        for _ in range(n):
            call(QUESTION.format(next(numbers)))
        return made - before or n

    return block


def bare(params: dict[str, Any]) -> Block:
    """The call alone, with the prompt of a `Predict`: the function in place, or the server by `http.client`."""
    import promptgrad as pg

    prompt = pg.nn.Predict(QA).render(question=QUESTION.format(1))
    n = params["n"] * 3
    if params["modules"] == ["Retrieve"]:

        def found() -> int:
            for number in range(n):
                search(QUESTION.format(number), 3)
            return n

        return found
    if not params.get("url"):

        def answered() -> int:
            for _ in range(n):
                reply(prompt)
            return n

        return answered
    connection = http.client.HTTPConnection(params["url"].split("/")[2])
    headers = {"Content-Type": "application/json", "Authorization": "Bearer none"}

    def block() -> int:
        for _ in range(n):
            connection.request("POST", "/v1/chat/completions", json.dumps({"model": "m", "messages": prompt}), headers)
            json.loads(connection.getresponse().read())["choices"][0]["message"]["content"]
        return n

    return block


CONTESTANTS = {"promptgrad": ours, "dspy": dspy_modules, "bare": bare}


def serve() -> None:
    """Be the server, on a CPU of its own, until standard input ends."""
    from promptgrad.testing import LoopbackLM

    if SERVER is not None:
        os.sched_setaffinity(0, {SERVER})
    with LoopbackLM(reply, record=False) as server:
        print(server.url, flush=True)
        sys.stdin.read()


class Server:
    """The server's process."""

    def __enter__(self) -> str:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--child", "server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self.process.stdout.readline().strip() if self.process.stdout else ""

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=60)


def main() -> None:
    """Measure a module after the other."""
    chosen = options(__doc__ or "", blocks=5)
    if chosen.child == "server":
        serve()
        return
    if chosen.child:
        serve_blocks(CONTESTANTS, chosen.child, json.loads(chosen.params))
        return
    header("modules")
    targets = {"promptgrad": ("overhead <= .2 x dspy", lambda us, ratio: ratio <= 0.2)}
    names = list(our_modules())
    with Server() as url:
        for where, place in (("in place", ""), ("over HTTP", url)):
            if chosen.quick:
                params = {"modules": names, "n": 5, "url": place}
                children = contest(__file__, ["promptgrad", "bare"], params, 1, chosen.only)
                aims = targets if place else None
                report("modules", f"all, {where}", children, base="dspy", less="bare", targets=aims)
                continue
            for name in names:
                if place and name == "Retrieve":  # it makes no call
                    continue
                params = {"modules": [name], "n": 100 if place else 300, "url": place}
                children = contest(__file__, list(CONTESTANTS), params, chosen.blocks, chosen.only)
                aims = targets if place and "dspy" in children and not children["dspy"].skipped else None
                report("modules", f"{name}, {where}", children, base="dspy", less="bare", targets=aims)


if __name__ == "__main__":
    main()
