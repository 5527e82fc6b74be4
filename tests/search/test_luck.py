"""How far a search comes by luck: the formulas beside draws of what they stand for."""

import math
import random
from statistics import NormalDist

import pytest

from promptgrad.search._shrinkage import FAMILY, _best_of, _moments, _sum_of_bests, corrected, variance

DRAWS = 20_000


def step_of(rng, count):
    """The best of some candidates without merit, or none of them where none seems to gain."""
    return max(0.0, *(rng.gauss(0, 1) for _ in range(count)))


@pytest.mark.parametrize("count", [1, 2, 3, 8, 25])
def test_the_moments_of_a_step_are_those_of_draws(count):
    rng = random.Random(count)
    drawn = [step_of(rng, count) for _ in range(DRAWS)]
    mean = sum(drawn) / DRAWS
    first, second, third = _moments(count)
    assert first == pytest.approx(mean, abs=0.02)
    assert second == pytest.approx(sum((one - mean) ** 2 for one in drawn) / DRAWS, abs=0.03)
    assert third == pytest.approx(sum((one - mean) ** 3 for one in drawn) / DRAWS, abs=0.06)


@pytest.mark.parametrize("steps", [[(1.0, 2)], [(1.0, 3), (0.5, 8)], [(1.0, 20), (0.8, 1), (0.6, 5)]])
@pytest.mark.parametrize("far", [0.5, 0.8, 0.95])
def test_a_sum_of_steps_reaches_a_value_as_often_as_draws_do(steps, far):
    rng = random.Random(len(steps))
    drawn = sorted(sum(size * step_of(rng, count) for size, count in steps) for _ in range(DRAWS))
    value = drawn[int(far * DRAWS)]
    assert _sum_of_bests(value, steps) == pytest.approx(1 - far, abs=0.03)


@pytest.mark.parametrize(("count", "alike"), [(1, 0.5), (5, 0.0), (5, 0.5), (20, 0.3), (20, 0.9)])
@pytest.mark.parametrize("score", [0.5, 1.5, 2.5])
def test_the_best_of_some_with_a_common_part_reaches_a_score_as_often_as_draws_do(count, alike, score):
    rng = random.Random(count)
    reached = 0
    for _ in range(DRAWS // 4):
        shared = alike**0.5 * rng.gauss(0, 1)
        reached += max(shared + (1 - alike) ** 0.5 * rng.gauss(0, 1) for _ in range(count)) >= score
    assert _best_of(score, count, alike) == pytest.approx(reached / (DRAWS // 4), abs=0.025)


def test_where_all_gain_alike_it_is_twice_the_luck_of_one_however_many_there_are():
    rows = {str(number): float(number < 16) - float(number >= 28) for number in range(30)}
    score = sum(rows.values()) / 30 / math.sqrt(variance(list(rows.values())))
    luck = 2 * (1 - NormalDist().cdf(score))
    chances = [corrected([rows] * count, [None] * count)[0].chance for count in (12, 40)]
    assert chances == [pytest.approx(1 - luck * 0.1 / FAMILY)] * 2
