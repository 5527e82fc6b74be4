"""`MetricLoss`, the criterion that turns a metric into a loss."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from promptgrad import aio
from promptgrad._habits import refuses
from promptgrad.autograd import CriticLike, Loss, LossRow, Parameter
from promptgrad.data import Example, Score
from promptgrad.errors import CheckError, InputError, LMError, MetricError, ParseError
from promptgrad.lm import LM, current
from promptgrad.metrics import FieldMetric, FunctionMetric, as_metric, call_metric, feedback_for
from promptgrad.nn._batch import Batch, BatchRow, ErrorRow
from promptgrad.nn._containers import ParameterList
from promptgrad.nn._critic import Critic
from promptgrad.nn._map import in_flight
from promptgrad.nn._module import Module
from promptgrad.nn._prediction import Prediction
from promptgrad.nn._recent import tapes_of
from promptgrad.nn._trace_of import calls_of, trace_of


class MetricLoss(Module, in_place=True):
    """Score outputs with a metric; the loss of a sample is the best score minus its own.

    `loss = criterion(model.map(batch), batch)`, then `loss.backward()`. The feedback of the metric is the gradient of
    the loss; a critic is called only where blame has to be divided.

    A row that failed is kept apart from the mean, and so is one on which the metric raises or returns NaN.

    An output may be a text `Parameter` itself, or a list or dict of them: a solution, which is improved by the feedback
    of the metric. The metric gets its text.

    A metric of the form of DSPy's GEPA, `(gold, pred, trace, pred_name, pred_trace)`, is called once more for each call
    of a module in a run below the best score, and what it says there is the feedback for that call.

    Cost: none here, unless the metric itself calls LMs. `backward()` makes one critic call per (failed sample, step);
    none for a solution, whose gradient is the feedback as it is, and none where only one call can be to blame and no
    critic is given here: the feedback is then what is wrong with its texts.

    Args:
        metric: `metric(example, output)` gives a bool, a number or a `Score`, and may be async; DSPy's `(gold, pred,
            trace)` is accepted. Scores lie in [0, best]; `best` is 1 unless the metric has an attribute of that name.
            `Score(value, module_feedback={path: text})` has feedback for single modules.
        critic: The critic that divides blame in `backward()`: an LM or its name, a `Critic`, or an object with a method
            `critique`; it is asked about every failure. Else, where there is blame to divide, that of
            `promptgrad.context(critic=...)`, else the LM of the step to blame.

    Raises:
        MetricError: The metric failed on every row: it raised, returned no score in its range, or gave feedback for a
            module that the program does not have.
        InputError: The numbers of outputs and examples differ.
    """

    _makes_loss: ClassVar[bool] = True  # so that `as_metric` can refuse it

    @refuses(
        {
            **dict.fromkeys(
                ("reduction", "size_average", "reduce"),
                "nothing: a loss has a row a sample, and its mean is loss.item()",
            ),
            **dict.fromkeys(("weight", "label_smoothing", "ignore_index"), "a metric that returns such scores"),
            **dict.fromkeys(("engine", "lm", "backward_engine"), "critic=..."),
        }
    )
    def __init__(self, metric: Callable[..., Any], critic: "Critic | CriticLike | LM | str | None" = None) -> None:
        super().__init__()
        self.metric = as_metric(metric)
        if isinstance(metric, Module):
            self.judge = metric
        self.critic = as_critic(critic)

    async def forward(self, outputs: Any, examples: Any = None) -> Loss:
        """The loss of outputs.

        Args:
            outputs: A `Batch`, a list of outputs, or one output.
            examples: The examples in the same order, or the one example. A `Batch` has its own; and one output needs no
                example if the metric needs none.
        """
        scored = await self._scored(pair(outputs, examples))
        return Loss(scored, critic=self.critic, concurrency=current().concurrency, as_critic=as_critic)

    async def _scored(self, rows: list[BatchRow]) -> list[LossRow]:
        """Score all rows; raises if no row could be scored, since that is no accident."""
        if isinstance(self.metric, FieldMetric):
            scored = [await self._score(row) for row in rows]
        else:
            limit = in_flight()
            scored = await aio.each(self._score, rows, limit=limit)
        broken = [row.error for row in scored if isinstance(row.error, MetricError)]
        one_reply = len(scored) == 1 and bool(broken) and isinstance(broken[0].__cause__, (ParseError, LMError))
        if scored and len(broken) == len(scored) and not one_reply:  # one reply of a judge may fail, a bug may not
            raise broken[0]
        return scored

    async def _score(self, row: BatchRow) -> LossRow:
        score, error = None, row.error
        if error is None:
            try:
                score = await self._feedback_by_module(row, await call_metric(self.metric, row.example, row.output))
                _check_modules(self.metric.name, score, row)
            except MetricError as failure:
                score, error = None, failure
        return LossRow(
            row.example,
            row.output,
            math.nan if score is None else score.value,
            self.metric.best,
            "" if score is None else score.feedback,
            row.tape,
            error,
            row.replicate,
            error.node if isinstance(error, CheckError) else None,
            module_feedback={} if score is None else score.module_feedback or {},
        )

    async def _feedback_by_module(self, row: BatchRow, score: Score) -> Score:
        """The score with what a metric of GEPA's form, with `pred_name`, says of each call of a failed run.

        What it says of every call alike is feedback on the whole.
        """
        metric = self.metric
        if not (isinstance(metric, FunctionMetric) and metric.takes_module) or score.value >= metric.best:
            return score
        calls = [(node.path, call) for node, call in calls_of(row.tape) if node.reads]
        trace = trace_of(row.tape)
        said: dict[str, list[str]] = {}
        for path, call in calls:
            text = await feedback_for(metric, row.example, row.output, trace=trace, name=path, call=call)
            said.setdefault(path, []).append("" if text == score.feedback else text)
        texts = {text for listed in said.values() for text in listed}
        if len(texts) == 1 and not score.feedback:
            return replace(score, feedback=texts.pop())
        told = {path: tuple(listed) for path, listed in said.items() if any(listed)}
        return replace(score, module_feedback={**told, **(score.module_feedback or {})}) if told else score

    def extra_repr(self) -> str:
        """The metric."""
        return repr(self.metric)


def as_critic(critic: Any) -> Any:
    """Convert the `critic` argument of a criterion.

    Raises:
        TypeError: `critic` is none of these.
    """
    if critic is None or isinstance(critic, (str, LM)):
        return Critic(critic, spare=critic is None)
    if isinstance(critic, CriticLike):
        return critic
    raise TypeError(f"critic is an LM, the name of one, or a Critic, not {type(critic).__name__}")


def _check_modules(metric: str, score: Score, row: BatchRow) -> None:
    """Check that a metric gives feedback only for modules that the program has.

    Raises:
        MetricError: The program has no such module.
    """
    if not score.module_feedback or row.tape is None or not isinstance(row.tape.program, Module):
        return
    called = {node.path: None for node in row.tape.nodes}  # also ops that are not part of the program
    for path in score.module_feedback:
        try:
            row.tape.program.get_submodule(path)
        except AttributeError as error:
            if path not in called:
                raise MetricError(
                    f"the metric {metric} gave feedback for a module that the program does not have: {error}"
                ) from None


def pair(outputs: Any, examples: Any) -> list[BatchRow]:
    """One row per output, with its example and its tape."""
    if isinstance(outputs, Batch):
        rows = outputs.rows
        if examples is None:
            return list(rows)
        wanted = [examples] if _is_one(examples) else list(examples)
        if not rows and not wanted:
            raise InputError("the batch is empty: there is nothing to score")
        items = _items(rows)
        count = items[-1] + 1 if items else 0
        if len(wanted) == len(rows) > count:  # one example for each rollout: those of one item must have the same
            first = [wanted[items.index(item)] for item in items]
            if any(one is not two for one, two in zip(wanted, first, strict=True)):
                raise InputError(
                    f"there are {len(rows)} outputs, rollouts of {count} items, and {len(wanted)} examples"
                )
        elif len(wanted) == count:
            wanted = [wanted[item] for item in items]
        else:
            rollouts = f", rollouts of {count} items," if count < len(rows) else ""
            raise InputError(f"there are {len(rows)} outputs{rollouts} and {len(wanted)} examples")
        return [
            BatchRow(example, row.output, row.error, row.tape, row.replicate, row.usage, row.seconds)
            for example, row in zip(wanted, rows, strict=True)
        ]
    if examples is None and not isinstance(outputs, (str, Mapping, Prediction, Parameter)):
        raise InputError(
            "write criterion(outputs, examples): only a Batch from model.map(...) knows its examples. One solution of "
            "several parts has one problem: criterion([title, body], problem), where a text or {} will do"
        )
    if _is_one(examples):
        listed, wanted = [outputs], [examples]
    elif isinstance(outputs, Iterable) and not isinstance(outputs, (str, Mapping, Prediction)):
        listed, wanted = list(outputs), list(examples)
    else:
        raise InputError(f"there is one output ({type(outputs).__name__}) and a list of examples: pass lists of both")
    if not listed and not wanted:
        raise InputError("the batch is empty: there is nothing to score")
    if len(listed) != len(wanted):
        raise InputError(f"there are {len(listed)} outputs and {len(wanted)} examples")
    rows = [
        BatchRow(example, error=output.error, replicate=output.replicate)
        if isinstance(output, ErrorRow)
        else BatchRow(example, _read(output))
        for output, example in zip(listed, wanted, strict=True)
    ]
    finished = [row for row in rows if row.error is None]
    for row, tape in zip(finished, tapes_of([row.output for row in finished]), strict=True):
        row.tape = tape
    return rows


def _items(rows: list[BatchRow]) -> list[int]:
    """The number of the item of each row; rollouts of one item are adjacent."""
    numbers: list[int] = []
    for number, row in enumerate(rows):
        before = rows[number - 1] if number else None
        same = before is not None and row.example is before.example and row.replicate > before.replicate
        numbers.append((numbers[-1] + (not same)) if numbers else 0)
    return numbers


def _read(output: Any) -> Any:
    """An output with the values of parameters in their place; texts remember the parameter."""
    if isinstance(output, Parameter):
        value = output.data
        return str(output) if isinstance(value, str) else value
    kind = type(output)
    if kind in (list, tuple, ParameterList):
        items = [_read(item) for item in output]
        return tuple(items) if kind is tuple else items
    return {name: _read(item) for name, item in output.items()} if kind is dict else output


def _is_one(examples: Any) -> bool:
    return isinstance(examples, (Example, str, Mapping, Prediction)) or not isinstance(examples, Iterable)
