"""What one `Predict` costs beside its LM: an LM that answers at once, recording on, default layers.

Rows: no demos and 8 demos; awaited on a loop, called in place, and through the thread hop that a waiting call needs.
Every call asks something new, so that nothing is answered from the cache.
"""

from __future__ import annotations

import asyncio
import json
from itertools import count
from typing import Any

from _side_by_side import Block, contest, header, options, report, serve_blocks

REPLY = "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"
QUESTION = "What is the capital of the country whose largest city by area is number {}?"


def demos(number: int) -> list[dict[str, str]]:
    """Demos as a bootstrapper would choose them."""
    return [{"question": QUESTION.format(-i), "answer": f"city {i}"} for i in range(number)]


def ours(params: dict[str, Any]) -> Any:
    """Our module on the layers that a name resolves to, around an LM that answers at once."""
    import promptgrad as pg
    from promptgrad import nn

    instant = pg.lm.FunctionLM(lambda messages: REPLY, name="instant")
    layered = pg.lm.Cache(pg.lm.Retry(pg.lm.Limit(instant, 256))) if params.get("layers", True) else instant
    return nn.Predict("question -> answer", demos=demos(params["demos"])).to(layered)


def awaited(params: dict[str, Any]) -> Block:
    """`await model.acall(...)` on a loop of the caller's."""
    model, loop, numbers, n = ours(params), asyncio.new_event_loop(), count(), params["n"]

    async def some() -> int:
        for _ in range(n):
            await model.acall(question=QUESTION.format(next(numbers)))
        return n

    return lambda: loop.run_until_complete(some())


def in_place(params: dict[str, Any]) -> Block:
    """`model(...)`: a coroutine that never suspends, driven in place."""
    model, numbers, n = ours(params), count(), params["n"]

    def block() -> int:
        for _ in range(n):
            model(question=QUESTION.format(next(numbers)))
        return n

    return block


def in_place_no_grad(params: dict[str, Any]) -> Block:
    """The same without recording."""
    import promptgrad as pg

    model, numbers, n = ours(params), count(), params["n"]

    def block() -> int:
        with pg.no_grad():
            for _ in range(n):
                model(question=QUESTION.format(next(numbers)))
        return n

    return block


def bare_lm(params: dict[str, Any]) -> Block:
    """`in place` on the bare LM, without layers."""
    return in_place({**params, "layers": False})


def thread_hop(params: dict[str, Any]) -> Block:
    """`model(...)` whose LM really waits on a loop: one hop to another thread and back."""
    import promptgrad as pg
    from promptgrad import aio, nn

    async def there() -> str:
        return REPLY

    async def answer(messages: Any) -> str:
        return await aio.on_transport(there)

    model = nn.Predict("question -> answer", demos=demos(params["demos"])).to(pg.lm.FunctionLM(answer, name="hop"))
    numbers, n = count(), params["n"]

    def block() -> int:
        for _ in range(n):
            model(question=QUESTION.format(next(numbers)))
        return n

    return block


def dspy_legacy(params: dict[str, Any]) -> Block:
    """`dspy.Predict` on the cheapest LM it has: a legacy BaseLM, cache off."""
    import warnings
    from types import SimpleNamespace

    import dspy

    warnings.simplefilter("ignore")

    class Instant(dspy.BaseLM):
        def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
            message = SimpleNamespace(content=REPLY, role="assistant", tool_calls=None)
            return SimpleNamespace(
                choices=[SimpleNamespace(message=message, finish_reason="stop", logprobs=None)],
                usage={},
                model="instant",
            )

    dspy.configure(lm=Instant("instant", cache=False))
    return _dspy(params)


def dspy_no_history(params: dict[str, Any]) -> Block:
    """The same with its history switched off."""
    block = dspy_legacy(params)
    import dspy

    dspy.configure(disable_history=True)
    return block


def _dspy(params: dict[str, Any]) -> Block:
    import dspy

    model = dspy.Predict("question -> answer")
    model.demos = [dspy.Example(**demo).with_inputs("question") for demo in demos(params["demos"])]
    numbers, n = count(), params["n"] // 10 + 1
    if model(question="Where?").answer != "Paris":
        raise RuntimeError("dspy does not read the reply")

    def block() -> int:
        for _ in range(n):
            model(question=QUESTION.format(next(numbers)))
        return n

    return block


def litellm_mock(params: dict[str, Any]) -> Block:
    """`litellm.completion` with a mock response: no signature, no parsing."""
    import os

    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    shown = [
        {"role": role, "content": text}
        for demo in demos(params["demos"])
        for role, text in (("user", demo["question"]), ("assistant", demo["answer"]))
    ]
    numbers, n = count(), params["n"] // 10 + 1

    def block() -> int:
        for _ in range(n):
            asked = {"role": "user", "content": QUESTION.format(next(numbers))}
            litellm.completion("openai/m", [*shown, asked], mock_response=REPLY, api_key="none")
        return n

    return block


def strings(params: dict[str, Any]) -> Block:
    """The floor: the same prompt joined by hand and the reply read by one regular expression."""
    import re

    fixed = "".join(f"{demo['question']}\n{demo['answer']}\n" for demo in demos(params["demos"]))
    pattern = re.compile(r"\[\[ ## answer ## \]\]\n(.*?)\n\n\[\[ ## completed ## \]\]", re.DOTALL)
    numbers, n = count(), params["n"]

    def block() -> int:
        for _ in range(n):
            prompt = [{"role": "user", "content": fixed + QUESTION.format(next(numbers))}]
            found = pattern.search(REPLY)
            if not prompt or found is None or found[1] != "Paris":
                raise AssertionError("does not happen")
        return n

    return block


CONTESTANTS = {
    "promptgrad awaited": awaited,
    "promptgrad in place": in_place,
    "promptgrad in place, no_grad": in_place_no_grad,
    "promptgrad in place, bare LM": bare_lm,
    "promptgrad thread hop": thread_hop,
    "dspy": dspy_legacy,
    "dspy, history off": dspy_no_history,
    "litellm mock": litellm_mock,
    "strings": strings,
}


def main() -> None:
    """Measure with no demos and with eight."""
    chosen = options(__doc__ or "", blocks=7)
    if chosen.child:
        serve_blocks(CONTESTANTS, chosen.child, json.loads(chosen.params))
        return
    header("predict")
    target = ("<= 60 us", lambda us, ratio: us <= 60)
    own = ("promptgrad awaited", "promptgrad in place", "promptgrad thread hop")
    names = [name for name in CONTESTANTS if not chosen.quick or name in own]
    for number in (8,) if chosen.quick else (0, 8):
        children = contest(
            __file__, names, {"demos": number, "n": 50 if chosen.quick else 1000}, chosen.blocks, chosen.only
        )
        report(
            "predict",
            f"{number} demos",
            children,
            base="dspy",
            targets={"promptgrad awaited": target, "promptgrad in place": target} if number else None,
        )


if __name__ == "__main__":
    main()
