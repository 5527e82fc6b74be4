"""A contract suite for modules: the promises of every module, as tests that a subclass runs for your own.

```python
from promptgrad.testing.modules import ModuleContract

class TestMine(ModuleContract):
    calls = 2

    def make(self):
        return Mine("question -> answer")
```

It needs pytest, which is not a dependency of promptgrad; nothing else in the package imports this module.
"""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

from promptgrad import func, nn
from promptgrad.autograd import Node, no_grad
from promptgrad.data import Example, Score
from promptgrad.errors import LMConnectionError, MissingExtraError
from promptgrad.lm import LM, FunctionLM, Request, track_usage
from promptgrad.testing._fields import Fields
from promptgrad.testing._promise import must, raised

try:
    import pytest
except ImportError as error:
    raise MissingExtraError(
        "promptgrad.testing.modules is a suite of pytest, which is not installed: pip install pytest", extra="dev"
    ) from error

__all__ = ["ModuleContract"]


class ModuleContract:
    """The promises of every module. Subclass it in a test file, as a class `Test...` with `make` and `calls`.

    The suite calls the module on a scripted language model, which answers each output field by `answers`. Each test
    method is one promise, stated in its docstring; a failure names what was found, what is expected and what to do.

    Cost: no call of a real language model; about a tenth of a second.

    Attributes:
        calls: The LM calls that one call of the module makes, or the least and the most, as its docstring says.
        blamed: Paths of the texts that a failure of the call reaches; None for any, at least one.
        called: Whether the module is called; a container such as `nn.ModuleList` is not.
        fails: Whether the module raises where its language model does not answer.
        spread: Whether what it sends is the same for every rollout, apart from replicate numbers.
    """

    calls: int | tuple[int, int] = 1
    blamed: Sequence[str] | None = None
    called: bool = True
    fails: bool = True
    spread: bool = True

    # ---- what is tested, and on what

    def make(self) -> nn.Module:
        """Make the module, without a language model. It is called for each test, several times in some."""
        raise NotImplementedError(f"{type(self).__name__} does not define make(), which gives the module")

    def inputs(self) -> Mapping[str, Any]:
        """The inputs of a call, by name."""
        return {"question": "Which town is the capital of France?"}

    def answers(self) -> Mapping[str, Any]:
        """What the scripted language model says in each output field: a text, or a function of the inputs by name."""
        return {"answer": "Paris", "reasoning": "The capital of France is Paris."}

    def respond(self, messages: Sequence[Any]) -> Any:
        """The reply to a prompt of the chat adapter: a text, or a `Completion`."""
        return Fields("ok", **self.answers())(messages)

    def comparable(self, output: Any) -> Any:
        """An output in a form that `==` compares; by default as it is."""
        return output

    def lm(self) -> LM:
        """The scripted language model. It notes what it is sent."""
        return _Noting(self.respond)

    # ---- calls

    def test_awaited_it_does_what_it_does_when_it_is_called(self) -> None:
        """`module(...)`, `await module.acall(...)` and `module.map([...])` return the same and send the same."""
        self._must_be_called()
        called, sent = self._run(lambda model, inputs: model(**inputs))
        awaited, sent_awaited = self._run(lambda model, inputs: asyncio.run(_acall(model, inputs)))
        mapped, sent_mapped = self._run(lambda model, inputs: model.map([self._example()])[0])
        must(self._same(called, awaited), f"called it returns {called!r}, and awaited {awaited!r}")
        must(self._same(called, mapped), f"called it returns {called!r}, and mapped {mapped!r}")
        for name, other in (("awaited", sent_awaited), ("mapped", sent_mapped)):
            must(sent == other, f"called it sends {len(sent)} requests, and {name} {len(other)} or others")

    def test_a_stream_ends_with_what_a_call_returns(self) -> None:
        """`stream` and `stream_sync` tell of each call that a plain call makes, and end with its output."""
        self._must_be_called()

        async def heard(model: nn.Module, inputs: Mapping[str, Any]) -> list[Any]:
            return [event async for event in model.stream(**inputs)]

        called, sent = self._run(lambda model, inputs: model(**inputs))
        for how in (lambda m, i: list(m.stream_sync(**i)), lambda m, i: asyncio.run(heard(m, i))):
            events, sent_streamed = self._run(how)
            must(bool(events), "its stream has no event; the last one is the output")
            must(self._same(events[-1], called), f"its stream ends with {events[-1]!r}, and a call returns {called!r}")
            must(sent == sent_streamed, "streamed it sends other requests than called")
            begun = sum(isinstance(event, nn.CallBegun) for event in events)
            ended = sum(isinstance(event, nn.CallEnded) for event in events)
            must(begun >= ended, f"its stream tells of {begun} calls that begin and of {ended} that end")

    def test_it_costs_what_it_says(self) -> None:
        """One call of the module makes as many LM calls as `calls` says."""
        self._must_be_called()
        low, high = (self.calls, self.calls) if isinstance(self.calls, int) else self.calls
        model = self._model()
        with track_usage() as usage:
            model(**self.inputs())
        must(
            low <= usage.total.calls <= high,
            f"it made {usage.total.calls} LM calls, and `calls` says {self.calls}: what does its docstring say?",
        )

    def test_it_is_repeatable(self) -> None:
        """With the same replies it sends the same, in order, with one or eight rows in flight, and again."""
        self._must_be_called()
        rows = [{**self.inputs()} for _ in range(3)]
        found = []
        for concurrency in (1, 8, 8):
            model = self._model()
            outputs = model.map(rows, n=2, concurrency=concurrency)
            found.append((list(map(self.comparable, map(_plain, outputs))), sorted(_digests(model))))
        must(found[0] == found[1] == found[2], f"it is not repeatable: {[len(sent) for _, sent in found]} requests")

    def test_rollouts_are_told_apart(self) -> None:
        """Two rollouts of one item send different replicate numbers, so that no cache answers them alike."""
        if not self._sends():
            pytest.skip("it makes no LM call")
        model = self._model()
        model.map([self._example()], n=2)
        sent = _digests(model)
        alike = len(sent) - len(set(sent))
        one = self._model()
        one.map([self._example()])
        before = len(_digests(one)) - len(set(_digests(one)))
        must(
            alike <= 2 * before,
            f"two rollouts send {alike} equal requests, so a cache answers them alike: let attempts of your own have a "
            "replicate number of their own within that of the rollout",
        )

    def test_it_fails_where_its_language_model_does(self) -> None:
        """No answer of the LM is an error of the call, an error row of a batch, and no output."""
        if not self.fails or not self._sends():
            pytest.skip("it does not fail")

        def dead(messages: Any) -> str:
            raise LMConnectionError("no answer")

        model = self.make().to(FunctionLM(dead, name="dead"))
        raised(lambda: model(**self.inputs()), LMConnectionError, "a call without an answer of the LM")
        rows = model.map([self._example()])
        must(len(rows.errors) == 1, f"in a batch a call without an answer gave {rows!r}, and an ErrorRow is expected")

    # ---- states and copies

    def test_its_state_comes_back(self) -> None:
        """`state_dict()` is JSON, and loaded into another module gives the same parameters and the same requests."""
        model = self._model()
        for number, parameter in enumerate(model.parameters()):
            if parameter.kind.is_text:
                parameter.data = f"{parameter.data} Mind rule {number}."
        state = json.loads(json.dumps(nn.whole_state(model.state_dict())))
        other = self._model()
        other.load_state_dict(state)
        must(
            other.state_dict() == model.state_dict(),
            "a state that was loaded is not the state that was saved",
        )
        if not self.called:
            return
        outputs = [each(**self.inputs()) for each in (model, other)]
        must(
            self._same(*outputs) and _digests(model) == _digests(other), "a state that was loaded sends other requests"
        )

    def test_a_copy_is_another_module(self) -> None:
        """`copy.deepcopy` and `pickle` give a module with parameters of its own that sends the same."""
        bare = self.make()
        made = {"copy.deepcopy": copy.deepcopy(bare), "pickle": pickle.loads(pickle.dumps(bare))}
        model = self._model()
        output = model(**self.inputs()) if self.called else None
        for name, other in made.items():
            shared = [path for path, p in other.named_parameters() if any(p is q for q in bare.parameters())]
            must(not shared, f"{name} gives a module that shares {', '.join(shared)} with the first")
            must(_paths(other) == _paths(bare), f"{name} gives a module with other parameters")
            if not self.called:
                continue
            other.to(self.lm())
            must(self._same(other(**self.inputs()), output), f"what {name} gives returns something else")
            must(_digests(other) == _digests(model), f"what {name} gives sends other requests")

    def test_it_shows_itself(self) -> None:
        """Its `repr` begins with the name of its class and holds no address."""
        model = self.make()
        shown = repr(model)
        must(shown.startswith(type(model).__name__), f"its repr is {shown!r}")
        must(" at 0x" not in shown, f"its repr holds an address: {shown}")

    # ---- the graph

    def test_frozen_it_records_nothing(self) -> None:
        """With nothing to train, or under `no_grad`, nothing is recorded, and the output is the same."""
        self._must_be_called()
        recorded = self._model()(**self.inputs())
        model = self._model()
        model.requires_grad_(requires_grad=False)
        rows = model.map([self._example()]).rows
        must(rows[0].tape is None, "frozen, it records its calls")
        must(self._same(rows[0].output, recorded), f"frozen, it returns {rows[0].output!r} instead of {recorded!r}")
        with no_grad():
            free = self._model()(**self.inputs())
        must(self._same(free, recorded), f"under no_grad it returns {free!r} instead of {recorded!r}")

    def test_blame_reaches_its_prompts(self) -> None:
        """A failed output reaches the texts that made it, in `backward()`, and no other."""
        self._must_be_called()
        if not any(p.requires_grad and p.kind.is_text for p in self.make().parameters()):
            pytest.skip("it has no text to train")
        model, batch = self._model(), [self._example()]
        loss = nn.MetricLoss(lambda example, output: Score(0, "the answer is wrong"), critic=_Blaming())(
            model.map(batch), batch
        )
        loss.backward()
        found = [
            path
            for path, p in model.named_parameters()
            if p.kind.is_text and p.grad is not None and len(p.grad.critiques)
        ]
        if self.blamed is None:
            must(bool(found), "no text gets a critique of a failed output: what does detect_anomaly() say?")
        else:
            must(sorted(found) == sorted(self.blamed), f"critiques reach {found}, and {list(self.blamed)} is expected")

    def test_a_record_is_run_again(self) -> None:
        """With the answer that a call gave, `func.counterfactual` gives the recorded output and makes no call."""
        if not self._sends():
            pytest.skip("it makes no LM call")
        model = self._model()
        if not any(p.requires_grad for p in model.parameters()):
            pytest.skip("it has nothing to train, so nothing is recorded")
        row = model.map([self._example()]).rows[0]
        nodes: list[Node] = [] if row.tape is None else [n for n in row.tape.nodes if n.request is not None]
        must(bool(nodes), "nothing was recorded")
        for node in nodes:
            if node.error is None and node.is_finished:
                credit = func.counterfactual(model, row, node, node.outputs)
                must(credit.error is None, f"run again with the same answer of {node!r} it fails: {credit.error!r}")
                must(credit.calls == 0, f"run again with the same answer of {node!r} it makes {credit.calls} calls")
                must(
                    self._same(credit.output, row.output), f"run again it returns {credit.output!r}, not {row.output!r}"
                )

    # ---- inside

    def _model(self) -> nn.Module:
        return self.make().to(self.lm())

    def _same(self, one: Any, other: Any) -> bool:
        return type(one) is type(other) and bool(self.comparable(one) == self.comparable(other))

    def _must_be_called(self) -> None:
        if not self.called:
            pytest.skip("it is not called")

    def _example(self) -> Example:
        return Example(self.inputs()).with_inputs(*self.inputs())

    def _sends(self) -> bool:
        return self.called and self.calls not in (0, (0, 0))

    def _run(self, how: Any) -> tuple[Any, list[str]]:
        model = self._model()
        output = how(model, self.inputs())
        return output, sorted(_digests(model))


class _Noting(FunctionLM):
    """A scripted language model of the suite, which notes the requests that it gets."""

    def __init__(self, respond: Any) -> None:
        self.asked: list[Request] = []

        def answer(request: Request) -> Any:
            self.asked.append(request)
            return respond(request.messages)

        answer.__annotations__["request"] = Request  # the annotation is a text here
        super().__init__(answer, "scripted")


class _Blaming:
    """A critic that blames everything."""

    async def critique(self, failure: Any) -> dict[str, str]:
        return {target.name: "it is wrong" for target in failure.targets}


async def _acall(model: nn.Module, inputs: Mapping[str, Any]) -> Any:
    return await model.acall(**inputs)


def _digests(model: nn.Module) -> list[str]:
    """Digests of what was sent, in the order in which it was."""
    lms: dict[int, _Noting] = {
        id(m.lm.transport): m.lm.transport
        for m in model.modules()
        if m.lm is not None and isinstance(m.lm.transport, _Noting)
    }
    return [request.digest() for lm in lms.values() for request in lm.asked]


def _paths(model: nn.Module) -> list[str]:
    return [path for path, _ in model.named_parameters()]


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, nn.Prediction) else value
