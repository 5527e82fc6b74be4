"""The peers of `bench_optimizers.py`: the real packages, each with its best documented settings, stopped at B calls.

dspy.LM caches replies, and so do TextGrad's engines: equal requests are paid once here too. A peer that reaches the
budget is stopped there, and keeps the best program by its own validation so far.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from worlds import STUDENT, WRITER, World, value_of


class BudgetSpent(BaseException):
    """The server refuses further calls. No `except Exception` of a peer may swallow it, so it is no `Exception`."""


class Wire:
    """A thin client of the world's server, with a cache of the replies to equal requests."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port, self.path = parts.hostname or "", parts.port, f"{parts.path}/chat/completions"
        self.local = threading.local()
        self.known: dict[str, list[str]] = {}

    def ask(self, model: str, messages: Sequence[Mapping[str, Any]], key: Any = None, **config: Any) -> list[str]:
        """The texts of the reply."""
        body = json.dumps({"model": model, "messages": messages, **config})
        known = json.dumps([body, key])
        if known not in self.known:
            self.known[known] = self._send(body)
        return self.known[known]

    def _send(self, body: str) -> list[str]:
        connection = getattr(self.local, "connection", None)
        if connection is None:
            connection = self.local.connection = http.client.HTTPConnection(self.host, self.port)
        connection.request("POST", self.path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        value = json.loads(response.read())
        if response.status == 403:
            raise BudgetSpent(value["error"]["message"])
        if response.status != 200:
            raise RuntimeError(value["error"]["message"])
        return [choice["message"]["content"] for choice in value["choices"]]


# -- DSPy -------------------------------------------------------------------------------------------------------------


class Dspy:
    """What every DSPy run needs: LMs on the wire, the program, and the best program by full validation so far."""

    def __init__(self, world: World, url: str, seed: int) -> None:
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else the import waits for a download
        import logging

        import dspy

        logging.getLogger("dspy").setLevel(logging.ERROR)
        self.world, self.seed, self.wire = world, seed, Wire(url)
        wire = self.wire

        class LM(dspy.BaseLM):  # type: ignore[misc]
            def forward(self, prompt: Any = None, messages: Any = None, **config: Any) -> Any:
                given = {**self.kwargs, **config}
                rollout = given.pop("rollout_id", None)
                sent = {name: given[name] for name in ("temperature", "n") if given.get(name) is not None}
                texts = wire.ask(self.model, messages or [{"role": "user", "content": prompt}], rollout, **sent)
                choices = [
                    SimpleNamespace(message=SimpleNamespace(content=text, tool_calls=None), finish_reason="stop")
                    for text in texts
                ]
                return SimpleNamespace(choices=choices, usage={}, model=self.model)

        class Best(dspy.utils.callback.BaseCallback):  # type: ignore[misc]
            """Remembers the program that did best on the whole validation set."""

            def __init__(self) -> None:
                self.running: dict[str, Any] = {}
                self.state: Any = None
                self.score = float("-inf")

            def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
                devset = inputs.get("devset") or instance.devset
                if len(devset) == len(world.val):
                    self.running[call_id] = inputs["program"]

            def on_evaluate_end(self, call_id: str, outputs: Any, exception: Any = None) -> None:
                program = self.running.pop(call_id, None)
                if program is not None and exception is None and outputs is not None and outputs.score > self.score:
                    self.state, self.score = program.dump_state(), outputs.score  # GEPA patches programs it runs

        self.student, self.writer = LM(model=STUDENT), LM(model=WRITER)
        self.sampling_writer = LM(model=WRITER, temperature=1.0)  # as the documentation of GEPA has it
        self.best = Best()
        self.dspy = dspy

    def context(self) -> Any:
        """DSPy's settings for this run."""
        adapter = self.dspy.ChatAdapter()
        return self.dspy.context(lm=self.student, callbacks=[self.best], adapter=adapter, disable_history=True)

    def program(self) -> Any:
        """The world's program."""
        dspy, starts = self.dspy, self.world.starts
        if "extract" not in starts:
            form = f"{', '.join(self.world.inputs)} -> {', '.join(self.world.outputs)}"
            return dspy.Predict(dspy.Signature(form, self.world.start))

        class Pipeline(dspy.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.extract = dspy.Predict(dspy.Signature("ticket -> facts", starts["extract"]))
                self.decide = dspy.Predict(dspy.Signature("facts -> code", starts["decide"]))

            def forward(self, ticket: str) -> Any:
                return self.decide(facts=self.extract(ticket=ticket).facts)

        return Pipeline()

    def examples(self, part: str) -> list[Any]:
        """The rows of a part as `dspy.Example`s."""
        return [self.dspy.Example(**row).with_inputs(*self.world.inputs) for row in self.world.rows[part]]

    def metric(self, gold: Any, pred: Any, trace: Any = None) -> float:
        """The world's metric as DSPy calls it."""
        return self.world.judge(gold, value_of(pred, self.world.outputs[-1]))[0]

    def with_feedback(
        self, gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None
    ) -> Any:
        """The world's metric as GEPA calls it."""
        score, feedback = self.world.judge(gold, value_of(pred, self.world.outputs[-1]))
        return self.dspy.Prediction(score=score, feedback=feedback)

    def optimize(self, compile_it: Callable[[Any], Any]) -> Callable[[Mapping[str, Any]], str]:
        """Run an optimizer until it ends or the budget does; gives the program that answers."""
        with (
            self.context(),
            open(os.devnull, "w") as quiet,
            contextlib.redirect_stdout(quiet),
            contextlib.redirect_stderr(quiet),
        ):
            program = self.program()
            try:
                program = compile_it(program)
            except BudgetSpent:
                program = self.program()
                if self.best.state is not None:
                    program.load_state(self.best.state)
        return lambda row: self._answer(program, row)

    def _answer(self, program: Any, row: Mapping[str, Any]) -> str:
        with self.context():
            return value_of(program(**{name: row[name] for name in self.world.inputs}), self.world.outputs[-1])


def gepa(world: World, url: str, seed: int, budget: int, *, minibatch: int = 3) -> Callable[..., str]:
    """GEPA in DSPy, with feedback, Pareto selection and merges, until the budget ends."""
    run = Dspy(world, url, seed)

    def compile_it(program: Any) -> Any:
        optimizer = run.dspy.GEPA(
            metric=run.with_feedback,
            max_metric_calls=5 * budget,  # cached rollouts count as well; the server ends it at the budget
            reflection_lm=run.sampling_writer,
            reflection_minibatch_size=minibatch,
            num_threads=1,
            seed=seed,
        )
        return optimizer.compile(program, trainset=run.examples("train"), valset=run.examples("val"))

    return run.optimize(compile_it)


def mipro(world: World, url: str, seed: int, budget: int) -> Callable[..., str]:
    """MIPROv2 with the numbers of candidates of its auto modes, and trials until the budget ends."""
    run = Dspy(world, url, seed)
    candidates = 6 if budget < 1000 else 12

    def compile_it(program: Any) -> Any:
        optimizer = run.dspy.MIPROv2(
            metric=run.metric,
            prompt_model=run.writer,
            task_model=run.student,
            auto=None,
            num_candidates=candidates if budget >= 600 else 3,
            num_threads=1,
            seed=seed,
            verbose=False,
        )
        return optimizer.compile(
            program,
            trainset=run.examples("train"),
            valset=run.examples("val"),
            num_trials=2 * budget // len(world.val),  # a trial that repeats another costs no call
            minibatch=False,
            seed=seed,
        )

    return run.optimize(compile_it)


def random_search(world: World, url: str, seed: int, budget: int) -> Callable[..., str]:
    """BootstrapFewShotWithRandomSearch, with as many candidates as the budget pays for."""
    run = Dspy(world, url, seed)

    def compile_it(program: Any) -> Any:
        random.seed(seed)
        optimizer = run.dspy.BootstrapFewShotWithRandomSearch(
            metric=run.metric, num_candidate_programs=max(16, budget // len(world.val)), num_threads=1
        )
        return optimizer.compile(program, trainset=run.examples("train"), valset=run.examples("val"))

    return run.optimize(compile_it)


# -- TextGrad ---------------------------------------------------------------------------------------------------------


def textgrad(world: World, url: str, seed: int, budget: int, *, batch: int = 3) -> Callable[..., str]:
    """TextGrad's prompt optimization with validation revert, as in its tutorials, until the budget ends."""
    import textgrad as tg
    from textgrad.autograd import StringBasedFunction
    from textgrad.engine import EngineLM

    wire = Wire(url)

    class Engine(EngineLM):  # type: ignore[misc]
        def __init__(self, model: str) -> None:
            self.model_string = model

        def generate(self, content: str, system_prompt: str | None = None, **_: Any) -> str:
            messages = [{"role": "system", "content": system_prompt or ""}, {"role": "user", "content": content}]
            return wire.ask(self.model_string, messages)[0]

        def __call__(self, content: str, system_prompt: str | None = None, **_: Any) -> str:
            return self.generate(content, system_prompt)

    student, writer = Engine(STUDENT), Engine(WRITER)
    roles = {"": "system prompt of a language model", "extract": "system prompt of the model that extracts the facts"}
    prompts = {
        name: tg.Variable(start, role_description=roles.get(name, "system prompt of the model that gives the code"))
        for name, start in world.starts.items()
    }
    models = {name: tg.BlackboxLLM(student, prompt) for name, prompt in prompts.items()}

    def question(row: Mapping[str, Any]) -> str:
        values = [str(row[name]) for name in world.inputs]
        if len(values) == 1:
            return values[0]
        return "\n".join(f"{name}: {value}" for name, value in zip(world.inputs, values, strict=True))

    def forward(row: Mapping[str, Any]) -> Any:
        value = tg.Variable(question(row), requires_grad=False, role_description="the input to the program")
        for model in models.values():
            value = model(value)
        return value

    def answer(row: Mapping[str, Any]) -> str:
        text = question(row)
        for prompt in prompts.values():
            text = student(text, system_prompt=prompt.value)
        return text

    def validate() -> float:
        rows = world.rows["val"]
        return sum(world.judge(row, answer(row))[0] for row in rows) / len(rows)

    optimizer = tg.TextualGradientDescent(parameters=list(prompts.values()), engine=writer)
    rng, order = random.Random(seed), []
    kept, paid, idle = dict(world.starts), 0, 0
    try:
        best = validate()
        while True:
            optimizer.zero_grad()
            losses = []
            for _ in range(batch):
                order = order or rng.sample(world.rows["train"], len(world.rows["train"]))
                row = order.pop()
                judge = StringBasedFunction(
                    lambda prediction, row=row: world.judge(row, prediction.value)[1],
                    "compares the answer with the right one",
                )
                losses.append(judge(inputs={"prediction": forward(row)}))
            tg.sum(losses).backward(writer)  # who writes also criticises, as with ours
            optimizer.step()
            score = validate()
            if score < best:
                for name, prompt in prompts.items():
                    prompt.set_value(kept[name])
            else:
                best, kept = score, {name: prompt.value for name, prompt in prompts.items()}
            idle = idle + 1 if len(wire.known) == paid else 0
            paid = len(wire.known)
            if idle == 20:  # it only repeats what it has asked before
                break
    except BudgetSpent:
        pass
    for name, prompt in prompts.items():
        prompt.set_value(kept[name])
    return answer


PEERS: dict[str, Callable[..., Callable[..., str]]] = {
    "gepa-peer": gepa,
    "gepa-peer-8": lambda *given: gepa(*given, minibatch=8),
    "mipro-peer": mipro,
    "random-peer": random_search,
    "textgrad": textgrad,
    "textgrad-8": lambda *given: textgrad(*given, batch=8),
}
"""Peers by name: `run(world, url, seed, budget)` gives a function from a row to an answer."""
