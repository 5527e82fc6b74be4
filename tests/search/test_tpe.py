import logging
import warnings

import pytest

from promptgrad.optim import TPE


def climb(seed, trials=25):
    search = TPE({"instruction": 6, "demos": 5}, seed=seed)
    search.enqueue({"instruction": 0, "demos": 0})
    points = []
    for _ in range(trials):
        point = search.ask()
        points.append(point.key)
        search.tell(point, -abs(point.choices["instruction"] - 4) - abs(point.choices["demos"] - 2))
    return points


def test_a_seed_repeats_the_search():
    assert climb(3) == climb(3)
    assert climb(3) != climb(4)


def test_it_finds_the_best_point_and_stays_near_it():
    found = sum((4, 2) in climb(seed) for seed in range(6))
    assert found >= 5
    late = [point for seed in range(6) for point in climb(seed)[15:]]
    near = sum(abs(instruction - 4) + abs(demos - 2) <= 2 for instruction, demos in late)
    assert near / len(late) > 0.5  # a random point is as near with probability 0.4


def test_what_is_enqueued_comes_first():
    assert climb(0, trials=1) == [(0, 0)]


def test_a_score_from_elsewhere_is_learnt_from():
    search = TPE({"x": 50}, seed=0, startup=1)
    for x in range(0, 50, 5):
        search.add({"x": x}, 1.0 if x == 20 else 0.0)
    asked = []
    for _ in range(8):
        point = search.ask()
        asked.append(point.choices["x"])
        search.tell(point, 0.0)
    assert 20 in asked


def test_it_is_quiet_and_leaves_the_log_level_alone(caplog, capsys):
    import optuna

    before = optuna.logging.get_verbosity()
    with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
        warnings.simplefilter("error")
        climb(0, trials=8)
    assert optuna.logging.get_verbosity() == before
    assert not caplog.records
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("space", [{}, {"x": 0}])
def test_an_empty_space_is_refused(space):
    with pytest.raises(ValueError, match="at least one choice"):
        TPE(space, seed=0)


def test_every_bit_of_a_seed_of_32_counts():
    def drawn(seed):
        search = TPE({"a": 50, "b": 50}, seed=seed)
        return [search.ask().key for _ in range(4)]

    assert drawn(7) == drawn(7 + 2**32)
    assert len({tuple(drawn(7 + 2**bit)) for bit in (0, 8, 16, 24, 30, 31, 32)}) == 7
