"""`counterfactual` and `credit`: the blame of one call, measured by giving it a better answer."""

import copy
import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from promptgrad import aio
from promptgrad.autograd import LossRow, Node, Tape, Text, enable_grad, is_grad_enabled, no_grad, snapshot
from promptgrad.errors import GraphError, InputError, MetricError, ParseError, is_outage
from promptgrad.lm import CACHE_HIT, Completion, Usage, context, track_usage
from promptgrad.metrics import Metric, as_metric, call_metric
from promptgrad.nn import BatchRow, Module, Predict, Prediction, fields_of, in_flight, remember_output

CallName = str | tuple[str, int] | Node
"""The name of a call: a module path (its first call), a path and the index of the call, or the recorded node."""

Better = Mapping[Any, Mapping[str, Any]] | Module | Callable[[Node], Any]
"""A source of better answers; see `credit`."""

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Credit:
    """The outcome of a recorded forward that was run again with another answer of one of its calls.

    Attributes:
        path: Module path of the call.
        index: Which call of that path.
        outputs: The answer that took the place of the recorded one.
        output: What the program then returned; None where it failed.
        before: Score of the recorded forward; None without a metric.
        after: Score of the new output; None without a metric. A program that fails scores 0.
        best: The highest score of the metric.
        usage: Cost of the new forward, in which only calls whose inputs changed are made.
        served: Calls that were answered from the record.
        error: Why the program failed with the new answer; None when it did not.
        tape: The record of the new forward; a loss of its output can go backward as any other.
    """

    path: str
    index: int
    outputs: Mapping[str, Any]
    output: Any = field(repr=False)
    before: float | None
    after: float | None
    best: float = 1.0
    usage: Usage = field(default_factory=Usage, repr=False)
    served: int = 0
    error: BaseException | None = None
    tape: Tape | None = field(default=None, repr=False, compare=False)

    @property
    def gain(self) -> float:
        """How much the score rose.

        Raises:
            ValueError: There was no metric.
        """
        if self.before is None or self.after is None:
            raise ValueError("without a metric there is no gain: write counterfactual(..., metric=...)")
        return self.after - self.before

    @property
    def flips(self) -> bool:
        """Whether the better answer of this call alone made a failed output a right one."""
        if self.before is None or self.after is None:
            return False
        return self.before < self.best - _TOLERANCE <= self.after

    @property
    def calls(self) -> int:
        """LM calls made."""
        return self.usage.calls

    def __repr__(self) -> str:
        parts = [f"{self.path}[{self.index}]"]
        if self.after is not None and self.before is not None:
            flips = ", flips" if self.flips else ""
            parts.append(f"{self.before:g} -> {self.after:g} ({self.gain:+g}{flips})")
        if self.error is not None:
            parts.append(f"failed: {self.error!r}")
        parts.append(f"{self.calls} call{'' if self.calls == 1 else 's'} made, {self.served} from the record")
        return f"<Credit {'; '.join(parts)}>"


async def acounterfactual(
    model: Module,
    row: BatchRow | LossRow | Tape,
    call: CallName,
    outputs: Mapping[str, Any],
    *,
    metric: Callable[..., Any] | None = None,
) -> Credit:
    """Run a recorded forward again as if one call had answered something else.

    Everything before that call is answered from the record, the call itself returns `outputs`, and of what follows
    only calls whose request changed are made. The program's own code runs again in full, so its control flow may
    change; functions and tools (`op`) are called again. The program must be repeatable: with the same inputs,
    parameters and language models it must send the same requests, up to the call in question. A call is recognised by
    its path and by everything that is sent (messages, sampling options, replicate), not by its place, so concurrent
    calls may start in another order; equal calls are distinguished by their order only. Calls that the program makes
    under `no_grad` are not recorded, and are made again.

    Cost: at most the LM calls that follow the replaced one; `credit.usage` counts them. Two runs of the metric.

    Args:
        model: The program that was recorded.
        row: The record: a row of `model.map(batch).rows`, a row of a loss, or a tape, before `backward()` freed it (or
            after `backward(retain_graph=True)`).
        call: The call to replace: a module path (the first call there), `(path, index)`, or the node.
        outputs: Its answer by field, checked against the signature; fields left out keep the recorded value.
        metric: Scores the recorded and the new output.

    Raises:
        GraphError: Nothing was recorded or it was freed, there is no such call, it asked no language model, or the
            program did not send the recorded requests again.
        InputError: `outputs` has a field that the call has not, or a value does not fit its type.
        MetricError: The metric failed.
        LMError: A new call got no answer.
        AsyncUsageError: Called inside a coroutine that promptgrad runs: `await acounterfactual(...)` there.
    """
    record = _Record(model, row)
    node = record.find(call)
    answer = record.answer(node, outputs)
    judge = None if metric is None else as_metric(metric)
    before = None if judge is None else await record.score(judge)
    return await record.run_with(node, answer, judge, before)


counterfactual = aio.blocking(acounterfactual)


async def acredit(
    model: Module,
    row: BatchRow | LossRow | Tape,
    metric: Callable[..., Any],
    better: Better,
    *,
    index: int | None = None,
) -> list[Credit]:
    """Give each LM call of a recorded forward a better answer, one at a time, and measure what the score gains.

    This measures what a critic has to guess: a call with `flips` was the sole cause of the failure; one whose gain is
    zero was not a cause, or not the only one.

    Cost: for each call at most the LM calls that follow it (see `counterfactual`), and what `better` spends.

    Args:
        model: The program that was recorded.
        row: The record, as in `counterfactual`.
        metric: Scores outputs.
        better: Better answers: a mapping from path, or `(path, index)`, to outputs; or a function of the `Node`, plain
            or async, that returns outputs (an oracle), or None for a call for which it has no better answer; or a
            teacher, a program with the same paths, whose module at the path of the call is called with its inputs.
        index: Only calls with this index at their path.

    Returns:
        One `Credit` for each call with a better answer, in the order of the calls.

    Raises:
        GraphError: As in `counterfactual`; or `better` names a call that was not made.
        InputError: A better answer does not fit its call.
        AsyncUsageError: Called inside a coroutine that promptgrad runs: `await acredit(...)` there.
    """
    record = _Record(model, row)
    if isinstance(better, Mapping):
        for name in better:
            record.find(name)
    nodes = [node for node in record.nodes if index is None or node.index == index]
    limit = in_flight()
    answers = await aio.gather([partial(_ask, better, node) for node in nodes], limit=limit)
    tries = [
        (node, record.answer(node, outputs))
        for node, outputs in zip(nodes, answers, strict=True)
        if outputs is not None
    ]
    if not tries:
        return []
    judge = as_metric(metric)
    before = await record.score(judge)
    return await aio.gather(
        [partial(record.run_with, node, answer, judge, before) for node, answer in tries], limit=limit
    )


credit = aio.blocking(acredit)


class _Record:
    """A recorded forward that can be run again."""

    def __init__(self, model: Module, row: BatchRow | LossRow | Tape) -> None:
        tape = row if isinstance(row, Tape) else row.tape
        if tape is None:
            raise GraphError(
                "nothing was recorded in this forward: run it with model.map(batch), with grad mode on and a parameter "
                "that requires a gradient"
            )
        if tape.freed:
            raise GraphError(
                "the record of this forward was freed by backward(): write backward(retain_graph=True), or ask for "
                "the counterfactual before"
            )
        if tape.program is not model:
            raise GraphError(
                f"this forward is one of another program ({type(tape.program).__name__}) than the model given "
                f"({type(model).__name__}): pass the very module that was called"
            )
        self.model = model
        self.tape = tape
        self.nodes = [node for node in tape.nodes if node.request is not None]
        if isinstance(row, Tape):
            self.example, self.output, self.error = None, tape.output, tape.error
            self.replicate = self.nodes[0].replicate if self.nodes else 0
        else:
            self.example, self.output, self.error = row.example, row.output, row.error
            self.replicate = row.replicate

    def find(self, call: CallName) -> Node:
        """The recorded LM call of this name."""
        if isinstance(call, Node):
            path, index = call.path, call.index
        else:
            path, index = (call, 0) if isinstance(call, str) else call
        for node in self.tape.nodes:
            if (node.path, node.index) == (path, index):
                if node.request is None:
                    raise GraphError(
                        f"{path}[{index}] asked no language model ({node.kind}): only LM calls are replaced"
                    )
                return node
        known = ", ".join(f"{node.path}[{node.index}]" for node in self.nodes) or "none"
        raise GraphError(f"this forward made no call {path}[{index}]; its LM calls: {known}")

    def answer(self, node: Node, outputs: Any) -> dict[str, Any]:
        """The outputs of a call with some replaced, as its signature wants them."""
        if not isinstance(outputs, Mapping):
            outputs = fields_of(outputs) if isinstance(outputs, Prediction) else _no_outputs(node, outputs)
        module = next((m for path, m in self.model.named_modules() if path == node.path), None)
        if not isinstance(module, Predict):
            raise GraphError(f"{node.path}[{node.index}] was a call of a module that is not part of the program")
        fields = module.signature.outputs
        unknown = [name for name in outputs if name not in fields]
        missing = [name for name in fields if name not in outputs and name not in node.outputs]
        if unknown or missing:
            what = f"no output {unknown[0]!r}" if unknown else f"no recorded value for {missing[0]!r} to keep"
            raise InputError(f"{node.path}[{node.index}] has {what}: its outputs are {', '.join(fields)}")
        answer = {}
        for name, spec in fields.items():
            try:
                value = spec.validate(outputs[name] if name in outputs else node.outputs[name])
            except ParseError as error:
                raise InputError(f"the answer given to {node.path}[{node.index}] does not fit: {error}") from error
            answer[name] = str.__str__(value) if isinstance(value, Text) else copy.deepcopy(value)
        return answer

    async def score(self, metric: Metric) -> float:
        """The score of what was recorded; 0 if the program failed."""
        if self.example is None:
            raise InputError("a tape has no example to score with: pass a row of model.map(batch) or of a loss")
        if self.error is not None and not isinstance(self.error, MetricError):
            _raise_outage(self.error)
            return 0.0
        return float(await call_metric(metric, self.example, self.output))

    async def run_with(self, node: Node, answer: dict[str, Any], metric: Metric | None, before: float | None) -> Credit:
        """Run the program with one answer replaced."""
        inputs = snapshot(self.tape.inputs)
        places = [name for name in inputs if name.isdigit()]  # arguments beyond those with a name
        args = tuple(inputs.pop(name) for name in places)
        tape = Tape(self.tape.inputs, self.model, paths=self.tape.paths)
        player = tape.player = _Player(self.tape, node, answer)
        output, error = None, None
        with enable_grad(), context(replicate=self.replicate), track_usage() as usage:
            if not is_grad_enabled():
                raise GraphError(
                    "inside inference_mode() nothing is recorded, so nothing can be run again from a record"
                )
            try:
                output = await self.model._arun_on(tape, args, inputs)
            except Exception as failure:  # noqa: BLE001 - it is the outcome of the other answer
                error = failure
        tape.player = None
        _raise_outage(error)
        player.check(error)
        if error is None:
            remember_output(output, tape)
        after = None
        if metric is not None:
            after = 0.0 if error is not None else float(await call_metric(metric, self.example, output))
        return Credit(
            node.path,
            node.index,
            answer,
            output,
            before,
            after,
            1.0 if metric is None else metric.best,
            usage.total,
            player.served,
            error,
            tape,
        )


class _Player:
    """Answers the calls of a forward from the record of an earlier one, with another answer for one of them."""

    def __init__(self, tape: Tape, target: Node, answer: dict[str, Any]) -> None:
        self.target = target
        self.answer = answer
        self.met = False
        self.served = 0
        self.mismatch = ""
        self._known: dict[tuple[str, int, str], list[Node]] = {}
        self._turns: dict[tuple[str, int, str], int] = {}
        self._lock = threading.Lock()
        for node in tape.nodes:
            if node.request is not None:
                self._known.setdefault(_key(node, node.lm, node.request), []).append(node)

    def __call__(self, node: Node, lm: Any, request: Any) -> Any:
        key = _key(node, lm, request)
        with self._lock:
            known = self._known.get(key)
            if known is None:
                if not self.met:
                    self.mismatch = self.mismatch or f"{node.path}[{node.index}] sent another request than before"
                    self.check()
                return None
            turn = self._turns.get(key, 0)
            self._turns[key] = turn + 1
            record = known[min(turn, len(known) - 1)]
            if record is self.target and not self.met:
                self.met = True
                if self.answer != record.outputs:
                    return dict(self.answer)
            else:
                self.served += 1
        if record.error is not None:
            raise record.error
        trace = record.weight_traces[0] if len(record.weight_traces) == 1 else None
        return Completion(record.parts or record.reply or "", CACHE_HIT, cached=True, trace=trace)

    def check(self, error: BaseException | None = None) -> None:
        """Raise `GraphError` if the program did not reach the replaced call again; `error` is how it ended."""
        if not self.met:
            raise GraphError(
                f"the forward did not reach {self.target.path}[{self.target.index}] again: "
                f"{self.mismatch or 'the call was not made'}. Its parameters, its language models or the values laid "
                "over them have changed since, or the program is not a function of its inputs"
            ) from error


def _key(node: Node, lm: Any, request: Any) -> tuple[str, int, str]:
    return node.path, id(lm), request.digest()


def _raise_outage(error: BaseException | None) -> None:
    """Raise an error that is not a fault of the program."""
    if error is not None and is_outage(error):
        raise error


def _no_outputs(node: Node, outputs: Any) -> Mapping[str, Any]:
    raise InputError(
        f"the answer given to {node.path}[{node.index}] is a mapping of its outputs ({', '.join(node.output_fields)}), "
        f"not {type(outputs).__name__}"
    )


async def _ask(better: Better, node: Node) -> Any:
    """The better answer to a call, or None."""
    if isinstance(better, Mapping):
        found = better.get((node.path, node.index))
        return better.get(node.path) if found is None else found
    with no_grad():
        if isinstance(better, Module):
            return fields_of(await better.get_submodule(node.path).acall(**node.inputs))
        if inspect.iscoroutinefunction(better):
            return await aio.awaited(better(node))
        found = await aio.in_thread(better, node)
        return await aio.awaited(found) if inspect.isawaitable(found) else found
