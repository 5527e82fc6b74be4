import pytest

from promptgrad.optim import Candidate, Measured
from promptgrad.search._race import chance


def measured(scores):
    return Measured(Candidate(), tuple(map(str, range(len(scores)))), tuple(map(float, scores)))


@pytest.mark.parametrize(
    ("before", "after", "low", "high"),
    [
        ([0] * 10, [1] * 10, 0.99, 1.0),
        ([1] * 10, [0] * 10, 0.0, 0.01),
        ([0, 1] * 5, [0, 1] * 5, 0.5, 0.5),
        ([0] * 10, [1] + [0] * 9, 0.6, 0.95),
        ([0] * 100, [1] * 10 + [0] * 90, 0.99, 1.0),
        ([1, 0], [0, 1], 0.5, 0.5),
    ],
)
def test_the_chance_grows_with_gain_and_pairs(before, after, low, high):
    assert low <= chance(measured(before), measured(after)) <= high


def test_without_pairs_nothing_is_known():
    assert chance(None, measured([1])) == 0.5
    assert chance(Measured(Candidate(), ("a",), (1.0,)), Measured(Candidate(), ("b",), (0.0,))) == 0.5


def test_rows_without_an_answer_are_left_out():
    champion, challenger = measured([0, 0, 0]), Measured(Candidate(), ("0", "1", "2"), (1.0, None, 1.0), errors=1)
    assert challenger.mean == 1.0
    assert chance(champion, challenger) == chance(measured([0, 0]), measured([1, 1]))
