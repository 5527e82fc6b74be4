import math

import pytest

from promptgrad.autograd import Loss, LossRow


def rows(*scores, best=1.0):
    return [
        LossRow(None, None, 0.0, best, error=ValueError("x")) if score is None else LossRow(None, None, score, best)
        for score in scores
    ]


def test_it_is_the_mean_of_what_is_missing_over_rows_without_error():
    loss = Loss(rows(1, 0.5, 0, None))
    assert loss.item() == float(loss) == pytest.approx(0.5)
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


def test_the_critic_of_a_sum_is_each_ones_own():
    from tests.autograd.programs import Call, ScriptedCritic, row

    solve = Call("solve", lambda: "x")
    first, second = ScriptedCritic(), ScriptedCritic()
    loss = Loss([row(lambda: solve().out, None)], first) + Loss([row(lambda: solve().out, None)] * 1, second)
    loss.backward()
    assert (len(first.asked), len(second.asked)) == (1, 1)
