import math
from dataclasses import replace
from typing import ClassVar

import pytest

from promptgrad.autograd import Loss, LossRow
from promptgrad.errors import GraphError, MetricError
from tests.autograd.programs import Call, row
from tests.waiting import turns


def rows(*scores, best=1.0):
    return [
        LossRow(None, None, 0.0, best, error=ValueError("x")) if score is None else LossRow(None, None, score, best)
        for score in scores
    ]


def test_it_is_the_mean_of_what_is_missing_over_rows_without_error():
    loss = Loss(rows(1, 0.5, 0, None))
    assert loss.item() == float(loss) == pytest.approx(0.5)
    assert 0.4 < loss <= 0.5 < 2 * loss
    assert loss < loss + loss
    assert loss >= 0.5 * loss
    assert not loss > 0.5
    assert loss == 0.5 == Loss(rows(0.5))
    assert loss != 0
    assert len({loss, Loss(rows(0.5))}) == 2
    assert loss != "0.5"
    assert loss.items[:3] == (0, 0.5, 1)
    assert math.isnan(loss.items[3])
    assert len(loss.errors) == 1
    assert len(loss) == 4
    assert repr(loss) == "Loss(0.5, 2 of 4 failed, 1 error)"
    assert bool(Loss(rows(1)))


def test_the_best_score_is_the_metrics():
    loss = Loss(rows(5, 4, best=5))
    assert loss.item() == 0.5
    assert [row.failed for row in loss.rows] == [False, True]


def test_without_a_good_row_it_is_nan():
    assert math.isnan(Loss(rows(None)).item())
    assert math.isnan(Loss([]).item())


def test_losses_add_and_scale():
    a, b = Loss(rows(1, 0)), Loss(rows(0, 0))
    assert (a + b).item() == 1.5
    assert (2 * a + b / 2).item() == 1.5
    assert sum([a, b]).item() == 1.5
    assert len(a + b) == 4
    assert (a * 3).items == (0, 3)
    assert (a + b).rows == a.rows + b.rows
    for act in (lambda: a + 1, lambda: a * "x"):
        with pytest.raises(TypeError):
            act()


def test_a_weighted_sum_is_the_sum_of_the_weighted_means():
    main, side = Loss(rows(0, 0.5, None)), Loss(rows(0.2, best=1))
    loss = main + 0.25 * side
    assert loss.item() == pytest.approx(0.75 + 0.25 * 0.8)
    assert loss.items[0] == 1
    assert math.isnan(loss.items[2])
    assert loss.items[3] == pytest.approx(0.2)
    assert (-1 * side).item() == pytest.approx(-0.8)
    assert (0 * main + side).item() == pytest.approx(0.8)
    assert (sum([main, side]) / 2).item() == pytest.approx((0.75 + 0.8) / 2)
    assert repr(loss) == "Loss(0.95, 3 of 4 failed, 1 error)"


def test_a_loss_without_rows_adds_nothing_to_a_sum():
    assert (Loss(rows(0)) + 0.5 * Loss([])).item() == 1
    assert (Loss([]) + Loss([])).rows == ()
    assert math.isnan((Loss([]) + Loss([])).item())
    assert math.isnan((Loss(rows(0)) + Loss(rows(None))).item()), "it has rows, and nobody knows what they are worth"


def test_losses_of_different_batches_are_criticised_apart_and_freed_together():
    from tests.autograd.programs import Call, ScriptedCritic, row, texts

    solve = Call("solve", lambda q: f"a text on {q}")
    critic = ScriptedCritic()
    first, second = (
        Loss([row(lambda q: solve(q=q).out, None, feedback=said, q=said)], critic) for said in ("too long", "too loud")
    )
    both = first + 2 * second
    assert both.backward(retain_graph=True).calls == 2
    assert texts(solve.instruction) == ["solve.instruction: too long", "solve.instruction: too loud"]
    assert both.backward().calls == 2
    for loss in (first, second, both):
        with pytest.raises(GraphError, match="freed"):
            loss.backward()


def test_the_first_that_finds_something_wrong_brings_the_critic():
    from tests.autograd.programs import Call, ScriptedCritic, run

    solve = Call("solve", lambda: "x")
    for scores, asked in (((0.0, 0.0), (1, 0)), ((1.0, 0.0), (0, 1))):
        output, tape = run(lambda: solve().out)
        critics = ScriptedCritic(), ScriptedCritic()
        judged = [LossRow(None, output, score, feedback="no", tape=tape) for score in scores]
        report = sum(Loss([one], critic) for one, critic in zip(judged, critics, strict=True)).backward()
        assert tuple(len(critic.asked) for critic in critics) == asked
        assert report.calls == 1


def test_a_critic_that_answers_is_not_said_to_fail_because_a_metric_did(recwarn):
    from tests.autograd.programs import Call, ScriptedCritic, row

    solve = Call("solve", lambda: "x")
    broken = [replace(row(lambda: solve().out, None), error=MetricError("no score")) for _ in range(2)]
    report = Loss([row(lambda: solve().out, None), *broken], ScriptedCritic()).backward()
    assert (report.calls, len(report.skipped)) == (1, 2)
    assert not recwarn.list


def test_the_critic_of_a_sum_is_each_ones_own():
    from tests.autograd.programs import Call, ScriptedCritic, row

    solve = Call("solve", lambda: "x")
    first, second = ScriptedCritic(), ScriptedCritic()
    loss = Loss([row(lambda: solve().out, None)], first) + Loss([row(lambda: solve().out, None)], second)
    loss.backward()
    assert (len(first.asked), len(second.asked)) == (1, 1)


class Crowd:
    """A critic that counts how many of its calls are in flight."""

    def __init__(self):
        self.now = self.most = 0

    async def counted(self, answer):
        self.now += 1
        self.most = max(self.most, self.now)
        await turns(3)
        self.now -= 1
        return answer

    async def critique(self, failure):
        return await self.counted({"instruction": f"say it {'again' if failure.replicate else 'once'}"})

    async def agreeing(self, failure, target, texts):
        return await self.counted([[number] for number in range(len(texts))])

    def groups(self, failures, size=1):
        return [[failure] for failure in failures]

    async def critique_traces(self, group):
        return await self.counted([{"call.instruction": "say it"} for _ in group])


@pytest.mark.parametrize(
    "work",
    [
        lambda loss: loss.backward(engine="local"),
        lambda loss: loss.backward(engine="joint"),
        lambda loss: loss.backward(repeat=3),
        lambda loss: loss.gradients(engine="local"),
        lambda loss: (2 * loss).backward(engine="local"),
        lambda loss: (Loss(()) + loss).backward(engine="local"),
    ],
)
def test_no_more_critic_calls_are_in_flight_than_the_loss_allows(work):
    def most(**bound):
        call, crowd = Call("call", lambda q: "text"), Crowd()
        work(Loss([row(lambda q: call(q=q).out, None, q=f"x{number}") for number in range(4)], crowd, **bound))
        return crowd.most

    assert most(concurrency=1) == 1
    assert most(concurrency=2) == 2
    assert most() > 2


class Sampled:
    """What a local model keeps of a reply; here only the advantages count."""

    requires_grad = True
    advantages: ClassVar[list] = []

    @classmethod
    def backward_all(cls, pairs):
        cls.advantages += [(trace.name, advantage) for trace, advantage in pairs]

    def __init__(self, name):
        self.name = name


def test_a_judged_call_is_compared_with_the_same_call_of_other_rollouts():
    """Else a call would be rewarded because another call of its run is worse."""
    judged = []
    for replicate, scores in enumerate([(1.0, 0.0), (0.5, 0.0)]):
        first, second = Call("first", lambda q: "one"), Call("second", lambda q: "two")
        made = row(lambda q, f=first, s=second: (f(q=q).out, s(q=q).out), "example", q="x")
        for node, score in zip(made.tape.nodes, scores, strict=True):
            node.weight_traces.append(Sampled(f"{node.path} {replicate}"))
            judged.append(replace(made, score=score, node=node, replicate=replicate))
    Sampled.advantages.clear()
    Loss(judged, Crowd()).backward(weights=True)
    assert {name for name, _ in Sampled.advantages} == {"first 0", "first 1"}
    assert dict(Sampled.advantages) == {"first 0": 0.25, "first 1": -0.25}
