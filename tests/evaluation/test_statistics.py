import itertools
import math
import random
from fractions import Fraction
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptgrad.evaluation import grouped_interval, mean_interval, paired_interval, paired_test
from promptgrad.evaluation._statistics import _t_quantile

scores = st.lists(st.floats(0, 1), min_size=2, max_size=12)


def coverage(draw, true, interval, rounds=120):
    rng = random.Random(7)
    hits = 0
    for seed in range(rounds):
        low, high = interval(draw(rng), seed)
        hits += low - 1e-9 <= true <= high + 1e-9
    return hits / rounds


@pytest.mark.parametrize(
    ("size", "true"),
    [(10, 0.5), (30, 0.7), (60, 0.9), (20, 0.97)],
)
def test_the_interval_of_right_and_wrong_covers_the_true_share(size, true):
    share = coverage(lambda rng: [float(rng.random() < true) for _ in range(size)], true, _mean)
    assert share >= 0.9  # such scores are coarse: it may cover more than it says


@pytest.mark.parametrize("size", [10, 25])
def test_the_interval_of_smooth_scores_covers_as_often_as_it_says(size):
    share = coverage(lambda rng: [rng.betavariate(2, 3) for _ in range(size)], 0.4, _mean)
    assert 0.89 <= share <= 0.99


def _mean(values, seed):
    return mean_interval(values, seed=seed)


def test_the_interval_of_a_paired_difference_covers_as_often_as_it_says():
    def draw(rng):
        pairs = []
        for _ in range(40):
            hard = rng.random()
            pairs.append((float(rng.random() < 0.8 - 0.5 * hard), float(rng.random() < 0.9 - 0.5 * hard)))
        return pairs

    def interval(pairs, seed):
        return paired_interval([a for a, _ in pairs], [b for _, b in pairs], seed=seed)

    assert 0.89 <= coverage(draw, 0.1, interval) <= 0.99


# Quantiles of Student's t at .975, from a printed table, by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 24: 2.064, 59: 2.001, 99: 1.984}


@pytest.mark.parametrize(("freedom", "value"), STUDENT.items())
def test_the_tails_are_those_of_students_t(freedom, value):
    assert _t_quantile(0.975, freedom) == pytest.approx(value, rel=0.01)


def student_below(x, freedom, parts=2000):
    """The distribution function of Student's t, by Simpson's rule."""
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi * freedom)
    heights = [(1 + (x * part / parts) ** 2 / freedom) ** (-(freedom + 1) / 2) for part in range(parts + 1)]
    inner = 4 * math.fsum(heights[1:-1:2]) + 2 * math.fsum(heights[2:-1:2])
    return 0.5 + scale * x / parts / 3 * (heights[0] + inner + heights[-1]), scale * heights[-1]


@pytest.mark.parametrize("probability", [0.6, 0.9, 0.975, 0.995])
def test_the_quantile_of_t_is_exact_or_its_error_falls_with_the_fifth_power_of_the_freedom(probability):
    """As it does where each of the five terms of the expansion is right."""

    def error(freedom):
        below, density = student_below(quantile := _t_quantile(probability, freedom), freedom)
        return (below - probability) / density / quantile

    assert error(1) == pytest.approx(0, abs=1e-9)
    assert error(2) == pytest.approx(0, abs=1e-9)
    assert abs(error(3)) < 0.01
    assert error(80) * 80**5 == pytest.approx(error(40) * 40**5, rel=0.05)


def student(values):
    """The width of the interval of a mean by Student's t."""
    size, mean = len(values), sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (size - 1))
    return 2 * STUDENT[size - 1] * deviation / math.sqrt(size)


@pytest.mark.parametrize("size", [10, 25, 60])
def test_an_interval_is_as_wide_as_students_and_neither_wider_nor_narrower(size):
    """Coverage is a coarse measure: an interval that is a tenth too narrow covers 92 % instead of 95."""
    rng = random.Random(size)
    means, differences = [], []
    for seed in range(40):
        values = [min(1.0, max(0.0, rng.gauss(0.5, 0.12))) for _ in range(size)]
        low, high = mean_interval(values, seed=seed)
        means.append((high - low) / student(values))
        low, high = paired_interval([0.5] * size, values, seed=seed)
        differences.append((high - low) / student(values))
    assert sum(means) / 40 == pytest.approx(1, abs=0.03)
    assert sum(differences) / 40 == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("size", [10, 25, 60])
@pytest.mark.parametrize("right", [0.3, 0.8])
def test_the_interval_of_right_and_wrong_is_that_of_the_binomial_distribution(size, right):
    count = round(right * size)
    outside = NormalDist().cdf(-math.sqrt(size / (size - 1)) * STUDENT[size - 1])
    share = Fraction(count, size)
    below = [math.comb(size, k) * share**k * (1 - share) ** (size - k) for k in range(size + 1)]
    totals = list(itertools.accumulate(below))
    lower = next(k for k, total in enumerate(totals) if total >= outside)
    upper = next(k for k, total in enumerate(totals) if total >= 1 - outside)
    found = mean_interval([1.0] * count + [0.0] * (size - count))
    assert found == pytest.approx((lower / size, upper / size))


def test_pairing_narrows_the_interval():
    rng = random.Random(0)
    before = [float(rng.random() < 0.5) for _ in range(200)]
    after = [1.0 if rng.random() < 0.1 else score for score in before]
    low, high = paired_interval(before, after)
    assert 0 < low < high
    assert high - low < 0.5 * (mean_interval(after)[1] - mean_interval(after)[0]) * 2


def test_scores_of_two_kinds_are_resampled_exactly():
    rng = random.Random(2)
    values = [float(rng.random() < 0.7) for _ in range(80)]
    values[0] = 1.0
    coarse = mean_interval(values)
    values[0] = 0.999999  # a third kind: now by chance
    for exact, drawn in zip(coarse, mean_interval(values), strict=True):
        assert exact == pytest.approx(drawn, abs=0.02)


def test_scores_that_are_all_alike_still_leave_doubt():
    low, high = mean_interval([1.0] * 20)
    assert (low, high) == (pytest.approx(0.025 ** (1 / 20)), 1.0)  # Clopper and Pearson
    assert mean_interval([0.0] * 20) == (0.0, pytest.approx(1 - 0.025 ** (1 / 20)))
    assert mean_interval([7.0] * 20, best=10)[1] < 10
    low, high = paired_interval([0, 0, 0], [1, 1, 1])
    assert low < 0 < high == 1
    assert paired_interval([0] * 10, [1] * 10)[0] > 0
    assert paired_interval([1.0], [1.0])[0] < 0


def test_an_interval_lies_within_the_scale_and_the_level_widens_it():
    values = [0.0] + [1.0] * 9
    low, high = mean_interval(values)
    assert 0 <= low < high <= 1
    narrow = mean_interval(values, level=0.5)
    assert low < narrow[0] < narrow[1] <= high


@given(scores, st.integers(0, 3))
def test_a_seed_repeats_an_interval_and_the_mean_is_inside(values, seed):
    low, high = mean_interval(values, seed=seed)
    assert mean_interval(values, seed=seed) == (low, high)
    assert low - 1e-9 <= sum(values) / len(values) <= high + 1e-9


def test_no_score_no_interval():
    assert all(map(math.isnan, mean_interval([])))
    with pytest.raises(ValueError, match="between 0 and 1"):
        mean_interval([1.0], level=95)
    with pytest.raises(ValueError, match="equal numbers, not 1 and 2"):
        paired_interval([1], [1, 0])


def by_enumeration(before, after, greater):
    differences = [b - a for a, b in zip(before, after, strict=True)]
    observed = sum(differences)
    sums = [sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in _signs(len(differences))]
    hits = [total >= observed - 1e-9 if greater else abs(total) >= abs(observed) - 1e-9 for total in sums]
    return sum(hits) / len(hits)


def _signs(size):
    return itertools.product((-1, 1), repeat=size)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=9), st.booleans())
def test_the_p_value_is_that_of_all_sign_flips(pairs, greater):
    before, after = [a / 4 for a, _ in pairs], [b / 4 for _, b in pairs]
    alternative = "greater" if greater else "two-sided"
    assert paired_test(before, after, alternative=alternative) == pytest.approx(by_enumeration(before, after, greater))


def test_known_p_values():
    assert paired_test([0, 0, 0], [1, 1, 1]) == 0.25
    assert paired_test([0, 0, 0], [1, 1, 1], alternative="greater") == 0.125
    assert paired_test([1, 0], [1, 0]) == 1.0
    assert paired_test([], []) == 1.0
    assert paired_test([0] * 60 + [1] * 40, [1] * 60 + [0] * 40) == pytest.approx(0.0569, abs=1e-4)  # sign test 60:40
    assert paired_test([0] * 2000, [1] * 2000) < 1e-300


def test_random_flips_agree_with_the_normal_approximation():
    rng = random.Random(3)
    before = [rng.random() for _ in range(400)]
    after = [min(1.0, score + rng.gauss(0.02, 0.2)) for score in before]
    gains = [b - a for a, b in zip(before, after, strict=True)]
    z = sum(gains) / math.sqrt(sum(gain**2 for gain in gains))
    wanted = math.erfc(abs(z) / math.sqrt(2))
    found = paired_test(before, after, seed=1)
    assert found == pytest.approx(wanted, abs=0.03)
    assert paired_test(before, after, seed=1) == found


def test_another_seed_is_another_draw():
    rng = random.Random(3)
    before = [rng.random() for _ in range(60)]
    after = [rng.random() for _ in range(60)]
    assert len({mean_interval(before, seed=seed) for seed in range(5)}) == 5
    assert len({paired_interval(before, after, seed=seed) for seed in range(5)}) == 5
    assert len({paired_test(before, after, seed=seed) for seed in range(5)}) > 1


def test_no_p_value_from_random_flips_is_0():
    after = [number / 400 for number in range(1, 401)]
    assert paired_test([0.0] * 400, after, alternative="greater") == 1 / 5001  # of 5,000 flips none, and what was seen


def test_without_a_difference_p_values_are_uniform():
    rng = random.Random(5)
    small = 0
    for _ in range(200):
        before = [float(rng.random() < 0.6) for _ in range(40)]
        after = [float(rng.random() < 0.6) for _ in range(40)]
        small += paired_test(before, after) <= 0.05
    assert small / 200 <= 0.08


class TestGroups:
    @pytest.mark.parametrize("crossed", [False, True])
    @pytest.mark.parametrize("groups", [5, 8])
    def test_the_interval_covers_at_least_as_often_as_it_says(self, crossed, groups):
        def draw(rng):
            hard = [rng.gauss(0, 0.2) for _ in range(20)]
            rows = []
            for _ in range(groups):
                luck = rng.gauss(0.1, 0.1)
                each = hard if crossed else [rng.gauss(0, 0.2) for _ in range(20)]
                rows.append([max(-1.0, min(1.0, luck + one + rng.gauss(0, 0.1))) for one in each])
            return rows

        share = coverage(draw, 0.1, lambda rows, seed: grouped_interval(rows, crossed=crossed, seed=seed), rounds=80)
        assert share >= 0.92

    @pytest.mark.parametrize("crossed", [False, True])
    def test_of_groups_that_differ_in_their_luck_alone_it_is_as_wide_as_students(self, crossed):
        rng = random.Random(4)
        found = []
        for seed in range(40):
            luck = [rng.gauss(0.1, 0.05) for _ in range(10)]
            low, high = grouped_interval([[one] * 12 for one in luck], crossed=crossed, seed=seed)
            found.append((high - low) / student(luck))
        assert sum(found) / 40 == pytest.approx(1, abs=0.03)

    def test_groups_that_share_their_luck_widen_it(self):
        rng = random.Random(3)
        rows = [[luck + rng.gauss(0, 0.02) for _ in range(30)] for luck in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)]
        flat = [value for row in rows for value in row]
        low, high = grouped_interval(rows)
        narrow = paired_interval([0.0] * len(flat), flat)
        assert high - low > 2 * (narrow[1] - narrow[0])

    def test_crossed_examples_are_resampled_for_all_groups_together(self):
        hard = [0.0, 0.0, 0.0, 1.0] * 5
        rows = [hard] * 12
        together = grouped_interval(rows, crossed=True)
        apart = grouped_interval(rows)
        assert together[1] - together[0] > 2 * (apart[1] - apart[0])
        few = [0.37, 0.81, 0.52, 0.52, 0.43, 0.38, 0.44, 0.3]  # eight examples are eight, however often they were run
        alone, many = paired_interval([0.0] * 8, few), grouped_interval([few] * 40, crossed=True)
        assert many[1] - many[0] == pytest.approx(alone[1] - alone[0], rel=0.08)

    def test_one_group_and_groups_that_are_all_alike(self):
        assert grouped_interval([[0.2, 0.4, 0.3]]) == paired_interval([0.0] * 3, [0.2, 0.4, 0.3])
        low, high = grouped_interval([[0.5] * 40] * 6)
        assert -0.5 < low < 0.5 < high < 1
        assert math.isnan(grouped_interval([])[0])

    def test_it_is_repeatable_and_says_what_it_cannot_do(self):
        rng = random.Random(5)
        rows = [[rng.random() for _ in range(9)] for _ in range(4)]
        assert grouped_interval(rows, seed=1) == grouped_interval(rows, seed=1) != grouped_interval(rows, seed=2)
        with pytest.raises(ValueError, match="leave it out"):
            grouped_interval([[1.0], []])
        with pytest.raises(ValueError, match="equally large"):
            grouped_interval([[1.0], [0.5, 0.5]], crossed=True)
