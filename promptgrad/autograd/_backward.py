"""One backward pass over the rows of a loss: checks, failed forwards side by side, traces, gradients, report.

Before any LM call the graph of each failed forward is found and pruned. Each call that is left gets one critic call, as
soon as all calls that used its outputs have had theirs (`_engine`); or the whole forward gets one (`_joint`). Results
are merged in the order of the batch, then of the calls, so that the same answers give the same gradient at any speed.
"""

import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from promptgrad import aio
from promptgrad.aio import Caller, pointing_at, warn
from promptgrad.autograd._advantages import advantages
from promptgrad.autograd._anomaly import current_detector
from promptgrad.autograd._critic import CriticLike, StoppingCritic, WeightTrace
from promptgrad.autograd._critique import Critique
from promptgrad.autograd._divide import NO_CRITIC, Divide
from promptgrad.autograd._edges import exact_sources
from promptgrad.autograd._engine import backward
from promptgrad.autograd._failed_forward import FailedForward
from promptgrad.autograd._gradient import Gradient, Trace
from promptgrad.autograd._gradients import Gradients
from promptgrad.autograd._joint import groups
from promptgrad.autograd._loss_row import LossRow
from promptgrad.autograd._manner import Manner
from promptgrad.autograd._parameter import Parameter
from promptgrad.autograd._prune import Wanted
from promptgrad.autograd._report import BackwardReport, merged
from promptgrad.autograd._tape import paths_in
from promptgrad.errors import GraphError

_lock = threading.Lock()

Terms = Sequence[tuple[float, Sequence[LossRow], "CriticLike | None"]]


class Backward:
    """One backward pass over the rows of a loss: the walk when it is made, the LM calls in `run`."""

    def __init__(
        self,
        terms: Terms,
        critic: CriticLike | None,
        inputs: Iterable[Parameter] | Parameter | None,
        manner: Manner,
        *,
        accumulate: bool = True,
    ) -> None:
        self.began = time.perf_counter()
        self.caller = Caller.here()
        self.wanted = Wanted(inputs)
        self.manner = manner
        self.accumulate = accumulate
        self.terms = [(scale, [_recorded(row) for row in rows], own) for scale, rows, own in terms]
        self.rows = [row for _, rows, _ in self.terms for row in rows]
        self._check()
        self.gate = nullcontext() if manner.concurrency is None else aio.Semaphore(manner.concurrency)
        self.failed = self._failed(critic, manner.truncate)
        if any(one.critic is None and one.due() for one in self.failed):
            raise GraphError(NO_CRITIC)
        self.divisions = [Divide(one, self.gate, manner.repeat) for one in self.failed]
        self.traced = self._traced_weights()
        self.joint = groups(self.failed, self._right(), manner)

    def _failed(self, critic: CriticLike | None, truncate: int | None) -> list[FailedForward]:
        """The failed forwards, each once, whatever number of losses judged it, in the order of the rows."""
        together: dict[Any, list[tuple[int, LossRow]]] = {}
        critics: dict[Any, CriticLike | None] = {}
        number = 0
        for scale, rows, own in self.terms:
            for row in rows:
                if row.failed and scale > 0:
                    key = _forward(row, number)
                    together.setdefault(key, []).append((number, row))
                    critics[key] = critic or critics.get(key) or own
                number += 1
        return [FailedForward(rows, critics[key], self.wanted, truncate=truncate) for key, rows in together.items()]

    def _right(self) -> list[LossRow]:
        """Rows about whole forwards in which nothing failed, one for each forward."""
        failed = {id(row.tape) for row in self.rows if row.failed}
        right = {id(row.tape): row for row in self.rows if row.tape is not None and row.node is None}
        return [row for tape, row in right.items() if tape not in failed and row.tape is not None and row.tape.finished]

    def _check(self) -> None:
        self._check_freed()
        targets = [row.target for row in self.rows if row.target is not None]
        if targets:
            if len(targets) == len(self.rows) and self.manner.weights is None:
                self._check_trained(targets)
            return
        if self.rows and all(row.tape is None and not any(exact_sources(row.output)) for row in self.rows):
            raise GraphError(
                "nothing was recorded in the forwards of this loss: they ran under no_grad() or inference_mode(), "
                "no parameter of the program has requires_grad=True, or the outputs are plain strings; if the "
                "output is a Parameter, pass the parameter itself, or str(parameter)"
            )

    def _check_trained(self, targets: Sequence[WeightTrace]) -> None:
        if not any(target.requires_grad for target in targets):
            raise GraphError(
                "no weight of the local model requires a gradient, and the likelihood of a reply blames no text: call "
                "lm.requires_grad_(), or that of the model itself, before the loss"
            )

    def _check_freed(self) -> None:
        if any(row.tape is not None and row.tape.freed for row in self.rows):
            raise GraphError(
                "backward() was called a second time on the same forwards, and the first freed what they recorded: "
                "write backward(retain_graph=True) the first time, or run the forwards again"
            )

    @property
    def suspends(self) -> bool:
        """Whether `run` has anything to wait for."""
        return bool(self.traced) or any(one.suspends(fn) for one in self.divisions for fn in one.graph.order)

    async def run(self) -> Gradients:
        """Ask the critics, and make gradients of their answers and of the traces; with `accumulate` they are added.

        Passes over the same forwards may run side by side as long as none of them frees what was recorded.
        """
        tapes = list(dict.fromkeys(row.tape for row in self.rows if row.tape is not None))
        with _lock:
            if any(tape.walkers < 0 or (tape.walkers and not self.manner.retain_graph) for tape in tapes):
                raise GraphError(
                    "another backward() works on these forwards at this moment: wait for it, and call it with "
                    "retain_graph=True if the same forwards need another backward pass"
                )
            self._check_freed()  # another pass may have freed the graph since this one was made
            for tape in tapes:
                tape.walkers = tape.walkers + 1 if self.manner.retain_graph else -1
        try:
            with pointing_at(self.caller):
                return await self._run()
        finally:
            with _lock:
                for tape in tapes:
                    tape.walkers = tape.walkers - 1 if self.manner.retain_graph else 0

    async def _run(self) -> Gradients:
        detector = current_detector()
        if detector is not None:
            detector.before_backward(self.rows)
        judged_jointly = {forward for group in self.joint for forward, _ in group.members}
        jobs: list[Callable[[], Awaitable[None]]] = [
            partial(backward, one.graph, one.forward.seeds, one)
            for one in self.divisions
            if one.forward not in judged_jointly
        ]
        await aio.gather(jobs + [partial(group.judge, self.gate) for group in self.joint])
        kinds: dict[type[WeightTrace], list[tuple[WeightTrace, float]]] = {}
        for trace, advantage in self.traced:
            kinds.setdefault(type(trace), []).append((trace, advantage))
        for kind, pairs in kinds.items():
            await aio.in_thread(kind.backward_all, pairs)
        never = [] if detector is None else self._never_read()
        found = self._gradients()
        report = found.report
        if self.accumulate:
            for parameter, gradient in found.items():
                parameter.accumulate(gradient)
        if detector is not None:
            detector.after_backward(self.rows, report, never)
        asked = sum(one.asked for one in self.failed)
        critics: list[object] = [one.critic for one in self.failed]
        stops = any(isinstance(critic, StoppingCritic) and critic.stopped is not None for critic in critics)
        if asked and not stops and sum(one.unanswered for one in self.failed) == asked:
            warn(f"every critic call failed, so no text was blamed: {report}", RuntimeWarning)
        if not self.manner.retain_graph:
            for row in self.rows:
                if row.tape is not None and row.tape.finished:  # a forward that still runs will record more
                    row.tape.free()
        return found

    def _never_read(self) -> list[str]:
        """Names of the wanted parameters, of the programs or listed in `inputs`, that no failed forward read."""
        tapes = [one.row.tape for one in self.failed if one.row.tape is not None]
        read = {read.parameter for tape in tapes for read in tape.reads}
        every = paths_in(tapes)
        every.update({parameter: parameter.name for parameter in self.wanted.named if parameter not in every})
        return [
            path or parameter.kind
            for parameter, path in every.items()
            if self.wanted(parameter) and parameter not in read
        ]

    def _gradients(self) -> Gradients:
        shares: dict[Parameter, list[Critique | Trace]] = {}
        wanted: dict[Parameter, str] = {}
        names = paths_in(row.tape for row in self.rows)
        failed = {one.number: one for one in self.failed}
        scores = self._scores()
        for number, row in enumerate(self.rows):
            one = failed.get(number)
            if one is not None:
                for parameter, critique in one.gradients():
                    shares.setdefault(parameter, []).append(critique)
                    names.setdefault(parameter, critique.parameter)
            for node in () if row.tape is None else row.tape.nodes:
                for read in node.reads:
                    if self.wanted(read.parameter):
                        if one is not None:
                            wanted.setdefault(read.parameter, node.name_of(read))
                        if read.parameter.kind.is_demos and number in scores and node.outputs:
                            called = node.path, node.index, node.inputs, node.outputs
                            trace = Trace(row.example_id, *called, *scores[number])
                            shares.setdefault(read.parameter, []).append(trace)
                            names.setdefault(read.parameter, node.name_of(read))
        grown = {parameter: parameter.hooked(Gradient(records)) for parameter, records in shares.items()}
        for parameter in (*grown, *self.wanted.named):
            names.setdefault(parameter, parameter.name or parameter.kind)
            wanted.setdefault(parameter, names[parameter])
        report = BackwardReport(
            rows=len(self.rows),
            failed=sum(row.failed and row.error is None for row in self.rows),
            errors=sum(row.error is not None for row in self.rows),
            calls=sum(one.calls for one in self.failed),
            skipped=tuple(skip for one in self.failed for skip in sorted(one.skipped, key=lambda s: (s.path, s.index))),
            reached=tuple(name for parameter, name in wanted.items() if parameter in shares),
            unreached=tuple(name for parameter, name in wanted.items() if parameter not in shares),
            joint=sum(len(group.members) for group in self.joint),
            seconds=time.perf_counter() - self.began,
            critiques={one.number: critiques for one in self.failed if (critiques := one.critiques())},
            truncated=sum(one.graph.truncated for one in self.failed),
            remarks=merged(remark for one in self.failed for remark in one.remarks),
            together={number: one.number for one in self.failed for number, _ in one.rows[1:]},
        )
        return Gradients(grown, report, names)

    def _scores(self) -> dict[int, tuple[float, float]]:
        """The score of each forward's traces and the best one, by the first row about the complete forward.

        Both are weighted means over the losses that judge the forward.
        """
        judged: dict[Any, list[tuple[int, float, LossRow]]] = {}
        number = 0
        for scale, rows, _ in self.terms:
            for row in rows:
                if row.node is None and row.error is None and scale > 0:
                    judged.setdefault(_forward(row, number), []).append((number, scale, row))
                number += 1
        return {
            parts[0][0]: (
                _mean([(scale, row.score) for _, scale, row in parts]),
                _mean([(scale, row.best) for _, scale, row in parts]),
            )
            for parts in judged.values()
        }

    def _traced_weights(self) -> list[tuple[WeightTrace, float]]:
        """The local models' replies with their advantages."""
        if self.manner.weights is False:
            return []
        return [
            (trace, advantage)
            for _, trace, advantage in advantages(self.terms)
            if self.manner.weights or trace.requires_grad
        ]


def _forward(row: LossRow, number: int) -> Any:
    """A key that identifies a forward among the rows of all losses."""
    if row.tape is None:
        return number
    return id(row.tape), row.example_id or id(row.example), row.replicate


def _mean(weighted: Sequence[tuple[float, float]]) -> float:
    """The mean of values by their weights; equal values as they are, without rounding."""
    first = weighted[0][1]
    if all(value == first for _, value in weighted):
        return first
    return sum(weight * value for weight, value in weighted) / sum(weight for weight, _ in weighted)


def _recorded(row: LossRow) -> LossRow:
    """The row with the record of its forward, also where its output alone remembers it."""
    return row if row.tape is not None else replace(row, tape=row.recorded)
