"""Demos: labelled examples cut to a module's fields, and traces of the runs that went right."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from promptgrad import aio
from promptgrad.autograd import LossRow, Parameter
from promptgrad.data import Example
from promptgrad.errors import MetricError
from promptgrad.metrics import is_right
from promptgrad.nn import FitsSignature, Module, trace_of
from promptgrad.search._places import places
from promptgrad.search._session import Session


class DemoFields(Protocol):
    """Anything that has the names of a module's inputs and outputs: its signature, or a trace of one of its calls."""

    @property
    def inputs(self) -> Iterable[str]: ...
    @property
    def outputs(self) -> Iterable[str]: ...


def fields_of(demos: Parameter) -> DemoFields | None:
    """The fields of the module that demos belong to, from their constraint; None if they have no such constraint."""
    return next((rule for rule in demos.constraints if isinstance(rule, FitsSignature)), None)


def labeled_demos(fields: DemoFields | None, examples: Iterable[Example]) -> list[Example]:
    """The examples that can serve a module as demos without having been run, cut to its fields.

    An example serves if it has every input of the module and at least one output. In a program of several modules
    this is usually the last module, or no module at all.
    """
    if fields is None:
        return []
    inputs, demos = list(fields.inputs), []
    for example in examples:
        outputs = [name for name in fields.outputs if name in example]
        if outputs and all(name in example for name in inputs):
            demos.append(Example({name: example[name] for name in [*inputs, *outputs]}).with_inputs(*inputs))
    return demos


def best_demos(traces: Sequence[Any], k: int, threshold: float | None) -> list[Example]:
    """Up to `k` demos out of scored traces: one for each example, ordered by score, then the latest first."""
    floor = 1.0 if threshold is None else threshold
    latest: dict[str, tuple[float, int, Any]] = {}
    for order, trace in enumerate(traces):
        known = latest.get(trace.example_id)
        if trace.score >= floor and (known is None or trace.score >= known[0]):
            latest[trace.example_id] = (trace.score, order, trace)
    chosen = sorted(latest.values(), key=lambda entry: (-entry[0], -entry[1]))[:k]
    return [Example({**trace.inputs, **trace.outputs}).with_inputs(*trace.inputs) for _, _, trace in chosen]


@dataclass
class DemoPool:
    """The examples and traces that demos are drawn from, by path of the demos parameter.

    Attributes:
        labeled: Examples cut to the module's fields, with the id of the example they are from.
        traces: For each example that went right, the module's inputs and outputs.
        tried: Examples that were run.
    """

    labeled: dict[str, list[tuple[str, Example]]] = field(default_factory=dict)
    traces: dict[str, dict[str, Example]] = field(default_factory=dict)
    tried: int = 0

    def draw(self, path: str, rng: random.Random | None, *, bootstrapped: int, total: int) -> tuple[Example, ...]:
        """Draw a set of demos: traces first, filled up with labelled examples that have no trace in the set.

        Args:
            path: Path of the demos parameter.
            rng: Chooses; None takes the first ones.
            bootstrapped: Most traces.
            total: Most demos.
        """
        traces = list(self.traces.get(path, {}).items())
        raw = list(self.labeled.get(path, ()))
        if rng is not None:
            rng.shuffle(traces)
            rng.shuffle(raw)
        chosen = traces[: min(bootstrapped, total)]
        used = {key for key, _ in chosen}
        rest = [demo for key, demo in raw if key not in used]
        return (*(demo for _, demo in chosen), *rest[: max(0, total - len(chosen))])


def demos_of(row: LossRow, rng: random.Random, paths: Mapping[Parameter, str]) -> dict[str, Example]:
    """What one recorded run shows about each demos parameter that it read, by path.

    Where a module was called several times, one of its calls is chosen: the last with probability one half, else any
    earlier one, as DSPy does.

    Args:
        row: The run.
        rng: Chooses the call.
        paths: Path of each parameter of the program that was run.
    """
    calls: dict[str, list[Example]] = {}
    for node in row.tape.nodes if row.tape is not None else ():
        if node.kind != "lm" or node.error is not None or not node.outputs:
            continue
        for read in node.reads:
            if read.parameter.kind.is_demos and read.parameter in paths:
                demo = Example({**_known(node.inputs), **_known(node.outputs)}).with_inputs(*_known(node.inputs))
                calls.setdefault(paths[read.parameter], []).append(demo)
    chosen = {}
    for path, demos in calls.items():
        pick = demos[-1] if len(demos) == 1 or rng.random() < 0.5 else rng.choice(demos[:-1])
        chosen[path] = pick
    return chosen


async def _right(session: Session, rows: Sequence[LossRow], threshold: float | None) -> list[bool]:
    """Whether each run becomes demos; one on which a metric raises that is given the trace does not.

    Raises:
        MetricError: It raises on every run that it is asked about.
    """

    async def one(row: LossRow) -> "bool | MetricError":
        trace = trace_of(row.tape)
        try:
            return await is_right(session.metric, row.example, row.output, row.score, trace=trace, threshold=threshold)
        except MetricError as error:
            return error

    scored = [row for row in rows if row.error is None]
    found = await aio.each(one, scored)
    errors = [result for result in found if isinstance(result, MetricError)]
    if errors and len(errors) == len(found):
        raise errors[0]
    verdicts = iter(result is True for result in found)
    return [row.error is None and next(verdicts) for row in rows]


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str.__str__(value) if isinstance(value, str) else value for name, value in values.items()}


async def bootstrap(
    session: Session,
    paths: Sequence[str],
    *,
    wanted: int,
    max_labeled: int,
    max_rounds: int = 1,
    threshold: float | None = None,
    teacher: Any = None,
    block: int = 16,
    limit: int | None = None,
    within: bool = False,
) -> DemoPool:
    """Run the teacher over training examples, block by block, until enough of them have gone right.

    The teacher is given labelled demos from outside the block, so that no example sees its own answer.

    Cost: one run of the program for each example, for as many blocks as are needed; further rounds re-run the examples
    that failed, as another replicate.

    Args:
        session: The session.
        paths: Demos parameters to fill.
        wanted: Traces wanted for each of them.
        max_labeled: Labelled demos for the teacher.
        max_rounds: Tries for each example; from the second on, LMs that sample give another sample.
        threshold: Score from which a run counts as right; None for the full score.
        teacher: LM or program to run instead of the program itself.
        block: Examples run side by side.
        limit: Most examples to run; None for all.
        within: Whether fewer examples are run where the budget does not pay for all.

    Raises:
        BudgetExceeded: The next block does not fit what the budget leaves for the search; with `within`, no run does.
    """
    known = places(session.program())
    ran = places(teacher) if isinstance(teacher, Module) else known
    names = {place.parameter: path for path, place in ran.items()}
    pool = DemoPool()
    for path in paths:
        signature = known[path].signature
        pool.labeled[path] = [
            (example.id, demo) for example in session.train for demo in labeled_demos(signature, [example])
        ]
        pool.traces[path] = {}
    examples = session.train if limit is None else session.train[:limit]
    for round_number in range(max_rounds):
        failed: list[Example] = []
        for start in range(0, len(examples), block):
            if all(len(pool.traces[path]) >= wanted for path in paths):
                return pool
            part = examples[start : start + block]
            if within and not session.affords(len(part)):
                fits = int(session.runs_left())
                if not fits and pool.tried:
                    return pool
                part = part[:fits] or part
            inside = {example.id for example in part}
            values: dict[str, Any] = {}
            if max_labeled and not isinstance(teacher, Module):
                for path in paths:
                    outside = [demo for key, demo in pool.labeled[path] if key not in inside]
                    session.rng("bootstrap", "teacher", path, start).shuffle(outside)
                    if outside and not session.value(path):
                        values[path] = tuple(outside[:max_labeled])
            loss = await session.forward(
                session.base.child(values, "teacher") if values else session.base,
                part,
                scope=f"bootstrap/{round_number}/{start // block}",
                replicate=round_number,
                teacher=teacher,
            )
            pool.tried += len(part)
            with session.scope(f"bootstrap/{round_number}/{start // block}/right"):
                right = await _right(session, loss.rows, threshold)
            session.decide("traced", round=round_number, block=start // block, right=sum(right))
            for row, is_demo in zip(loss.rows, right, strict=True):
                example = row.example
                if not is_demo:
                    failed.append(example)
                    continue
                rng = session.rng("bootstrap", "call", example.id)
                for path, demo in demos_of(row, rng, names).items():
                    if path in pool.traces:
                        pool.traces[path].setdefault(example.id, demo)
        examples = failed
    return pool
