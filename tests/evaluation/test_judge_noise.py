"""How far a judge agrees with itself: known scores in, known figures out."""

import math
import re

import pytest

import promptgrad as pg
from promptgrad import aio, lm, nn, optim
from promptgrad.errors import BudgetExceeded, DataError, MetricError
from promptgrad.evaluation import ajudge_noise, judge_noise
from promptgrad.testing import Fields

SCORES = {"a": (0.2, 0.4, 0.6), "b": (0.9, 0.9, 0.9)}


def scripted(request):
    """A simulated judge: its score depends on the output and on the sample."""
    output = re.search(r'"answer":"(\w)"', request.messages[-1].content).group(1)
    score = SCORES[output][request.replicate or 0]
    return f"[[ ## feedback ## ]]\nhm\n\n[[ ## score ## ]]\n{score}\n\n[[ ## completed ## ]]"


@pytest.fixture
def judge():
    return nn.Judge("It is good.", lm=lm.FunctionLM(scripted, "judge"))


def data(count=2, first=0):
    return [pg.Example(question="ab"[n % 2] + f" {n}").with_inputs("question") for n in range(first, first + count)]


class Echo(nn.Module):
    def __init__(self):
        super().__init__()
        self.step = nn.Predict("question -> answer")

    def forward(self, question):
        return self.step(question=question)


@pytest.fixture
def program():
    return Echo().to(lm.FunctionLM(Fields(answer=lambda inputs: inputs["question"][0]), "echo"))


def test_the_figures_of_known_scores(judge, program):
    noise = judge_noise(judge, pg.evaluate(program, data(), judge))
    assert noise.scores == (SCORES["a"], SCORES["b"])
    assert noise.sd == pytest.approx(math.sqrt(0.04 / 2))  # variances .04 and 0
    assert noise.flips == pytest.approx(2 / 6)  # (.2, .6) and (.4, .6) lie on two sides of .5
    between, within = 3 * 0.125, 0.02  # means .4 and .9
    assert noise.reliability == pytest.approx((between - within) / (between + 2 * within))
    assert (noise.usage.calls, noise.failed, noise.threshold) == (6, 0, 0.5)
    assert str(noise) == (
        "sd 0.141 within an output, 33% of pairs on two sides of 0.5, reliability 0.86 "
        "(2 outputs x 3 judgements, 6 LM calls)"
    )


def test_pairs_and_thresholds_and_coroutines(judge):
    pairs = [(data()[0], {"answer": "a"}), (data()[1], {"answer": "b"})]
    noise = aio.run(ajudge_noise(judge, pairs, replicates=2, threshold=0.3))
    assert noise.scores == (SCORES["a"][:2], SCORES["b"][:2])
    assert noise.flips == 0.5


def test_an_exact_metric_has_no_noise():
    noise = judge_noise(lambda example, output: output == "x", [({}, "x"), ({}, "y")])
    assert (noise.sd, noise.flips, noise.reliability, noise.usage.calls) == (0, 0, 1, 0)
    assert math.isnan(judge_noise(lambda example, output: 1, [({}, "x"), ({}, "y")]).reliability)
    assert math.isnan(judge_noise(lambda example, output: 1, [({}, "x")]).reliability)


def test_outputs_that_could_not_be_judged_are_left_out():
    def metric(example, output):
        if output == "odd":
            raise ValueError("odd")
        return 0.5

    noise = judge_noise(metric, [({}, "odd"), ({}, "x")])
    assert (len(noise.scores), noise.failed) == (1, 1)
    assert "1 left out" in str(noise)
    with pytest.raises(MetricError, match="raised ValueError: odd"):
        judge_noise(metric, [({}, "odd")])


@pytest.mark.parametrize("replicates", [1, 0, True, 2.5, "3"])
def test_one_judgement_has_no_spread(replicates):
    with pytest.raises(ValueError, match=f"at least 2, not {re.escape(repr(replicates))}"):
        judge_noise(lambda example, output: 1, [({}, "x")], replicates=replicates)


def test_what_cannot_be_measured():
    with pytest.raises(DataError, match="no output to judge"):
        judge_noise(lambda example, output: 1, [])


class Nothing(optim.Search):
    """Tries nothing, so that a run is its frame."""

    kinds = ("instruction",)

    async def fit(self, session):
        pass


class TestTrainer:
    def trainer(self, program, judge, **options):
        return pg.Trainer(program, Nothing(program.parameters()), metric=judge, seed=0, **options)

    def test_it_is_measured_where_the_metric_asks_a_language_model(self, program, judge, tmp_path):
        result = self.trainer(program, judge, run_dir=tmp_path).fit(data(4), data(20, first=10))
        assert len(result.judge.scores) == 6
        assert result.judge.sd > 0
        assert result.phases["judge"].calls == 12  # the first judgement is that of the start
        assert f"judge        {result.judge}" in repr(result)
        again = pg.Trainer.resume(tmp_path, program, Nothing(program.parameters()), judge)
        assert again.spent.sent == 0
        assert again.judge.scores == result.judge.scores

    def test_the_plan_has_it(self, program, judge):
        train, val = data(4), data(20, first=10)

        def phases(metric, **options):
            return {
                phase.name: phase.calls for phase in self.trainer(program, metric, **options).plan(train, val).phases
            }

        assert phases(judge)["judge"] == 12
        assert phases(judge, judge_rows=2)["judge"] == 4
        assert "judge" not in phases(judge, budget=pg.Budget(calls=200))
        assert "judge" not in phases(lambda example, output: 1)

    def test_a_function_around_a_judge_is_one_too(self, program, judge):
        async def metric(example, output):
            return await judge.acall(example, output)

        assert self.trainer(program, metric).fit(data(4), data(20, first=10)).judge.sd > 0

    def test_not_where_it_costs_too_much_or_nothing_is_asked(self, program, judge):
        train, val = data(4), data(20, first=10)
        assert self.trainer(program, judge, judge_rows=0).fit(train, val).judge is None
        assert self.trainer(program, judge, budget=pg.Budget(calls=200)).fit(train, val).judge is None
        few = self.trainer(program, judge, budget=pg.Budget(calls=200), judge_rows=2).fit(train, val)
        assert len(few.judge.scores) == 2
        assert self.trainer(program, lambda example, output: output.answer == "a").fit(train, val).judge is None
        with pytest.raises(ValueError, match="judge_rows is a number of rows"):
            self.trainer(program, judge, judge_rows=-1)

    def test_a_budget_that_ends_there_is_a_note(self, program, judge):
        pairs = [(example, {"answer": "a"}) for example in data()]
        with pg.run.active(ledger=pg.run.Ledger(pg.Budget(calls=3))), pytest.raises(BudgetExceeded):
            judge_noise(judge, pairs)
        result = self.trainer(program, judge, budget=pg.Budget(calls=45), judge_rows=6).fit(data(4), data(20, first=10))
        assert result.judge is None
        assert any(note.startswith("the noise of the judge is not known") for note in result.notes)
