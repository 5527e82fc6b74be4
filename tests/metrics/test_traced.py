"""Metrics as users of DSPy have them: stricter where demos are collected, and asked about one module."""

import numpy as np
import pytest

import promptgrad as pg
from promptgrad import aio, lm, nn, optim
from promptgrad.errors import MetricError
from promptgrad.metrics import as_metric, call_metric, is_right
from promptgrad.testing import Fields, LoopbackLM

TRACE = [(None, {"question": "q"}, nn.Prediction(answer="4"))]


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.extract = nn.Predict("question -> fact")
        self.decide = nn.Predict("fact -> answer")

    def forward(self, question):
        return self.decide(fact=self.extract(question=question).fact)


@pytest.fixture(scope="module")
def program():
    fields = Fields(fact=lambda inputs: inputs["question"], answer=lambda inputs: inputs["fact"].upper())
    with LoopbackLM(fields) as server:
        yield Two().to(lm.HTTP("simulated", base_url=server.url, api_key="none"))


def data(count=8, first=0):
    numbers = range(first, first + count)
    return [pg.Example(question=f"q{i}", answer=f"Q{i}" if i % 2 else "no").with_inputs("question") for i in numbers]


def demos_by(metric, program):
    """The answers in the demos that a bootstrap makes of eight runs, of which every second is right."""
    few = optim.BootstrapFewShot(program.parameters(), max_labeled_demos=0, max_bootstrapped_demos=8)
    result = pg.Trainer(program, few, metric=metric, seed=1).fit(data(), data(12, first=20))
    return {demo.answer for demo in result.best["decide.demos"]}


def strict(gold, pred, trace=None):
    share = 0.5 + 0.5 * (gold.answer == pred.answer)
    return share >= 1 if trace is not None else share


@pytest.mark.parametrize(
    ("fn", "trace", "module"),
    [
        (lambda gold, pred: 1, False, False),
        (lambda gold, pred, trace: 1, True, False),
        (lambda gold, pred, trace=None: 1, True, False),
        (lambda gold, pred, tolerance=0.1: 1, False, False),  # an option of its own, which no trace may fill
        (lambda gold, pred, trace, pred_name, pred_trace: 1, True, True),
        (lambda gold, pred, trace=None, pred_name=None, pred_trace=None: 1, True, True),
        (lambda gold, pred, trace=None, strict=False, k=3: 1, True, False),
        (lambda *args: 1, False, False),
    ],
)
def test_a_metric_says_what_it_takes_by_its_arguments(fn, trace, module):
    metric = as_metric(fn)
    assert (metric.takes_trace, metric.takes_module) == (trace, module)
    assert aio.drive(call_metric(fn, {}, "4")) == 1


@pytest.mark.parametrize(
    ("result", "threshold", "right"),
    [
        (True, None, True),
        (np.bool_(False), 0.0, False),  # a bool is the decision, whatever the threshold
        (0.5, None, False),
        (0.5, 0.5, True),
        (pg.Score(1.0), None, True),
    ],
)
def test_what_the_metric_says_of_a_trace_decides(result, threshold, right):
    told = []

    def metric(gold, pred, trace=None):
        told.append(trace)
        return result

    assert aio.drive(is_right(metric, {}, "4", 0.0, trace=TRACE, threshold=threshold)) is right
    assert told == [TRACE]


def test_a_metric_without_a_trace_is_not_asked_again():
    def metric(gold, pred):
        raise AssertionError("asked again")

    assert aio.drive(is_right(metric, {}, "4", 1.0, trace=TRACE))
    assert not aio.drive(is_right(metric, {}, "4", 0.9, trace=TRACE))
    assert aio.drive(is_right(metric, {}, "4", 0.9, trace=TRACE, threshold=0.8))


def test_a_metric_that_needs_a_trace_says_where_there_is_one():
    with pytest.raises(MetricError, match="trace is None where a program is scored"):
        aio.drive(call_metric(lambda gold, pred, trace=None: len(trace), {}, "4"))


def test_scores_of_the_strict_habit_are_shares_and_demos_are_the_right_runs(program):
    traces = []

    def metric(gold, pred, trace=None):
        if trace is not None:
            traces.append([(type(module).__name__, list(inputs), list(outputs)) for module, inputs, outputs in trace])
        return strict(gold, pred, trace)

    examples = data()
    assert pg.evaluate(program, examples, metric).score == 0.75
    assert demos_by(metric, program) == {"Q1", "Q3", "Q5", "Q7"}
    assert traces[0] == [("Predict", ["question"], ["fact"]), ("Predict", ["fact"], ["answer"])]


def test_a_run_on_which_the_strict_part_raises_is_no_demo_and_a_bug_is_told(program):
    def metric(gold, pred, trace=None):
        if trace is not None and gold.answer == "Q3":
            raise ValueError("odd")
        return strict(gold, pred, trace)

    def broken(gold, pred, trace=None):
        return 0.5 if trace is None else trace["decide"]

    assert demos_by(metric, program) == {"Q1", "Q5", "Q7"}
    with pytest.raises(MetricError, match="the metric broken raised TypeError"):
        demos_by(broken, program)


def test_gepas_metric_is_asked_about_each_call_of_a_failed_run(program):
    asked = []

    def metric(gold, pred, trace, pred_name, pred_trace):
        share = float(gold.answer == pred.answer)
        if pred_name is None:
            return share
        ((module, inputs, outputs),) = pred_trace
        asked.append((pred_name, module, dict(inputs), dict(outputs), len(trace)))
        return nn.Prediction(score=share, feedback=f"{pred_name} is poor" if pred_name == "extract" else "")

    examples = data(2)  # the first fails, the second is right
    loss = nn.MetricLoss(metric)(program.map(examples), examples)
    assert [row.score for row in loss.rows] == [0, 1]
    assert loss.rows[0].module_feedback == {"extract": ("extract is poor",)}
    assert loss.rows[1].module_feedback == {}
    assert asked == [
        ("extract", program.extract, {"question": "q0"}, {"fact": "q0"}, 2),
        ("decide", program.decide, {"fact": "q0"}, {"answer": "Q0"}, 2),
    ]


def test_what_gepas_metric_says_of_every_module_alike_is_about_the_whole(program):
    def metric(gold, pred, trace=None, pred_name=None, pred_trace=None):
        return 0.0 if pred_name is None else {"score": 0.0, "feedback": f"say {gold.answer}"}

    examples = data(1)
    (row,) = nn.MetricLoss(metric)(program.map(examples), examples).rows
    assert (row.feedback, row.module_feedback) == ("say no", {})


def test_a_record_may_have_parts_and_a_pair_is_told_what_to_write():
    score = aio.drive(call_metric(lambda g, p: {"score": 0.5, "parts": {"style": 1}, "feedback": None}, {}, ""))
    assert (score.value, score.parts, score.feedback) == (0.5, {"style": 1.0}, "")
    with pytest.raises(MetricError, match=r"return Score\(value, feedback\), not a pair"):
        aio.drive(call_metric(lambda g, p: (0.5, "dull"), {}, ""))
