"""What the modules of attempts, votes and branches cost beside their language model, which answers at once.

A row a module: CPU a call of the LM, with recording on and on the layers of a name. DSPy's module of the same name
stands beside it, where it is installed and has one. Every call asks something new, so that no cache answers it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import count
from typing import Any

from _side_by_side import Block, contest, header, options, report, serve_blocks

QA = "question -> answer"
QUESTION = "What is the capital of the country whose largest city by area is number {}?"
ASKED = re.compile(r"\[\[ ## (\w+) ## \]\]\n\{")


def look(name: str) -> str:
    """Look something up.

    Args:
        name: What to look up.
    """
    return f"Nothing is known of {name}."


def reply(messages: Any) -> str:
    """A reply with a text for each field that the prompt asks for; an agent calls one tool and finishes."""
    fields = dict.fromkeys(ASKED.findall(messages[0]["content"]))
    texts = {"topic": "facts", "confidence": "1", "next_thought": "Look."}
    if "`advice` (dict" in messages[0]["content"]:
        texts["advice"] = '{"self": "Think again."}'
    done = "Nothing is known" in messages[-1]["content"]
    texts["code"] = "submit('Paris')"
    if "- llm_query(" in messages[-1]["content"]:
        texts["code"] = "submit(llm_query(question))"
    elif "- look(" in messages[-1]["content"]:
        texts["code"] = "print(look('Paris'))"
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
        "Parallel": lambda: (nn.Parallel(nn.Predict(QA), nn.Predict(QA), nn.Predict(QA)), 3),
        "BestOfN": lambda: (nn.BestOfN(nn.Predict(QA), 3, rewards, threshold=1.0), 3),
        "Refine": lambda: (nn.Refine(nn.Predict(QA), 3, rewards, threshold=1.0), 5),
        "SelfConsistency": lambda: (nn.SelfConsistency(nn.Predict(QA), 3), 3),
        "MultiChainComparison": lambda: (nn.MultiChainComparison(QA, M=3), 4),
        "Route": lambda: (nn.Route(branches(), "question -> topic"), 2),
        "ReAct": lambda: (nn.ReAct(QA, [look]), 2),
        "ProgramOfThought": lambda: (nn.ProgramOfThought(QA), 1),
        "CodeAct": lambda: (nn.CodeAct(QA, [look]), 2),
        "RLM": lambda: (nn.RLM(QA), 2),
    }


def ours(params: dict[str, Any]) -> Block:
    """The module in place, recorded."""
    import promptgrad as pg

    instant = pg.lm.FunctionLM(lambda messages: reply(messages), name="instant")
    made = [our_modules()[name]() for name in params["modules"]]
    for model, _ in made:
        model.to(pg.lm.Cache(pg.lm.Retry(pg.lm.Limit(instant, 256))))
    numbers, n = count(), params["n"]

    def block() -> int:
        calls = 0
        for model, cost in made:
            for _ in range(n):
                model(question=QUESTION.format(next(numbers)))
            calls += n * cost
        return calls

    return block


def dspy_modules(params: dict[str, Any]) -> Block:
    """DSPy's module of the same name, cache off."""
    import logging
    import warnings
    from types import SimpleNamespace

    import dspy

    warnings.simplefilter("ignore")
    logging.getLogger("dspy").setLevel(logging.ERROR)
    made = 0

    class Instant(dspy.BaseLM):
        def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
            nonlocal made
            made += 1
            message = SimpleNamespace(content=reply(messages), role="assistant", tool_calls=None)
            choice = SimpleNamespace(message=message, finish_reason="stop", logprobs=None)
            return SimpleNamespace(choices=[choice], usage={}, model="instant")

        def copy(self, **kwargs: Any) -> Any:  # attempts copy the model with another temperature
            return self

    dspy.configure(lm=Instant("instant", cache=False), disable_history=True)
    (name,) = params["modules"]
    predict = dspy.Predict(QA)
    numbers, n = count(), params["n"] // 10 + 1
    if name == "Predict":
        module: Any = predict
    elif name == "BestOfN":
        module = dspy.BestOfN(predict, N=3, reward_fn=rewards, threshold=1.0)
    elif name == "Refine":
        module = dspy.Refine(predict, N=3, reward_fn=rewards, threshold=1.0)
    elif name == "MultiChainComparison":
        module = dspy.MultiChainComparison(QA, M=3)
    elif name == "ReAct":
        module = dspy.ReAct(QA, tools=[look])
    elif name == "Parallel":
        module = dspy.Parallel(num_threads=3, disable_progress_bar=True)
    else:
        raise ImportError(f"dspy has no {name}, or one that needs Deno, or its source code to be readable")

    def call(question: str) -> None:
        if name == "Parallel":
            example = dspy.Example(question=question).with_inputs("question")
            module([(predict, example)] * 3)
        elif name == "MultiChainComparison":
            completions = [dspy.ChainOfThought(QA)(question=f"{question} {number}") for number in range(3)]
            module(completions, question=question)
        else:
            module(question=question)

    def block() -> int:
        before = made
        for _ in range(n):
            call(QUESTION.format(next(numbers)))
        return made - before

    return block


CONTESTANTS = {"promptgrad": ours, "dspy": dspy_modules}


def main() -> None:
    """Measure a module after the other."""
    chosen = options(__doc__ or "", blocks=5)
    if chosen.child:
        serve_blocks(CONTESTANTS, chosen.child, json.loads(chosen.params))
        return
    header("modules")
    names = list(our_modules())
    if chosen.quick:
        children = contest(__file__, ["promptgrad"], {"modules": names, "n": 10}, 1, chosen.only)
        report("modules", "all", children, targets={"promptgrad": ("<= .2 x dspy", lambda us, ratio: ratio <= 0.2)})
        return
    for name in names:
        children = contest(__file__, list(CONTESTANTS), {"modules": [name], "n": 300}, chosen.blocks, chosen.only)
        target = ("<= .2 x dspy", lambda us, ratio: ratio <= 0.2)
        report(
            "modules", name, children, base="dspy", targets=None if children["dspy"].skipped else {"promptgrad": target}
        )


if __name__ == "__main__":
    main()
