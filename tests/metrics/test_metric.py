import asyncio
import threading

import pytest

from promptgrad import aio
from promptgrad.data import Example, Score
from promptgrad.errors import BudgetExceeded, MetricError, NoLMError
from promptgrad.metrics import as_metric, call_metric, exact_match

example = Example(question="q", answer="4").with_inputs("question")


def two(example, output):
    return example.answer == output


def three(gold, pred, trace):
    assert trace is None
    return gold.answer == pred


def three_with_default(gold, pred, trace=None):
    return gold.answer == pred


def five(gold, pred, trace, pred_name, pred_trace):
    return {"score": float(gold.answer == pred), "feedback": "ok"}


async def waits(example, output):
    await asyncio.sleep(0)
    return Score(example.answer == output, feedback="awaited")


class Judge:
    best = 10

    def __call__(self, example, output):
        return 10 if example.answer == output else 2


class AsyncJudge:
    async def __call__(self, example, output):
        await asyncio.sleep(0)
        return example.answer == output


class ModuleLike:
    def __call__(self, example, output):
        raise RuntimeError("a blocking call")

    async def acall(self, example, output):
        return example.answer == output


@pytest.mark.parametrize(
    "fn",
    [two, three, three_with_default, five, waits, Judge(), AsyncJudge(), ModuleLike(), lambda *a: a[0].answer == a[1]],
)
@pytest.mark.parametrize("mode", ["drive", "run", "asyncio"])
def test_any_function_is_a_metric_in_every_mode(fn, mode):
    start = {"drive": aio.drive, "run": aio.run, "asyncio": asyncio.run}[mode]
    best = as_metric(fn).best
    assert start(call_metric(fn, example, "4")) == best
    assert start(call_metric(fn, example, "5")) < best
    assert best == (10 if isinstance(fn, Judge) else 1)


def test_as_metric_keeps_metrics_and_names_functions():
    assert as_metric(exact_match) is exact_match
    assert as_metric(two).name == "two"
    assert repr(as_metric(Judge())) == "Judge"
    assert as_metric(as_metric(two)).fn is two


def test_a_plain_function_does_not_hold_up_the_program_loop():
    def where(example, output):
        return threading.current_thread() is loop_thread[0]

    loop_thread = []

    async def main():
        loop_thread.append(threading.current_thread())
        return await call_metric(where, example, "4")

    assert aio.run(main()) == 0


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (float("nan"), "NaN"),
        (None, "returned None"),
        ("4", "returned str"),
        (1.5, r"outside \[0, 1\]"),
        (-1, r"outside \[0, 1\]"),
    ],
)
def test_what_is_no_score_is_an_error(result, words):
    with pytest.raises(MetricError, match=words):
        aio.drive(call_metric(lambda example, output: result, example, "4"))


def test_an_error_of_the_metric_keeps_its_cause():
    def broken(example, output):
        return output["nothing"]

    with pytest.raises(MetricError, match="the metric broken raised KeyError: 'nothing'") as caught:
        aio.drive(call_metric(broken, example, {}))
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    "error", [BudgetExceeded(kind="calls", limit=1, used=1), NoLMError("none"), KeyboardInterrupt()]
)
def test_what_stops_a_run_passes_through(error):
    def stops(example, output):
        raise error

    with pytest.raises(type(error)):
        aio.drive(call_metric(stops, example, "4"))


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (lambda output: 1, r"called as metric\(example, output\); <lambda> takes \(output\)"),
        (lambda example, output, *, strict: 1, "strict"),
        ("exact_match", "not str"),
        (Judge, r"pass an instance, Judge\(\.\.\.\)"),
    ],
)
def test_what_cannot_be_called_as_a_metric_is_told_before_any_call(fn, words):
    with pytest.raises(MetricError, match=words):
        as_metric(fn)


@pytest.mark.parametrize("best", [0, -1, "1", float("inf"), True])
def test_the_best_score_is_a_number_above_zero(best):
    def metric(example, output):
        return 1

    metric.best = best
    with pytest.raises(MetricError, match="above zero"):
        as_metric(metric)


def test_the_keys_of_an_output_may_be_read_only_once():
    class Rows:
        def keys(self):
            yield from ("note", "answer")

        def __getitem__(self, name):
            return "Paris"

    example = Example(question="?", answer="Paris", note="x").with_inputs("question")
    assert exact_match(field="answer")(example, Rows()) == 1
    with pytest.raises(MetricError, match="the output has note,answer"):
        exact_match(example, Rows())
