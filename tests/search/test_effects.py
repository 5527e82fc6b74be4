"""`Effects`: what parts add is told from many candidates at once, and by no example's difficulty."""

import random
from statistics import fmean, pstdev

import pytest

from promptgrad.search import Effects

TRUE = {"a": 0.2, "b": 0.1, "c": 0.0, "d": -0.1, "e": -0.2, "f": 0.0}


def drawn(seed, candidates=24, rows=10, best=1.0):
    """Candidates of some parts, each run on a few of 40 examples, some of which are hard."""
    rng = random.Random(seed)
    ease = [rng.uniform(-0.3, 0.3) for _ in range(40)]
    parts = [frozenset(rng.sample(sorted(TRUE), 3)) | {"always"} for _ in range(candidates)]
    scores = [
        {
            f"r{row}": best * (rng.random() < 0.5 + ease[row] + sum(TRUE.get(part, 0.0) for part in own))
            for row in rng.sample(range(40), rows)
        }
        for own in parts
    ]
    return Effects(parts, scores, best)


def test_effects_are_found_from_runs_that_no_candidate_has_enough_of():
    found = [drawn(seed).mean() for seed in range(20)]
    means = {part: fmean(each[part] for each in found) for part in TRUE}
    assert sorted(means, key=means.__getitem__)[0] == "e"
    assert sorted(means, key=means.__getitem__)[-1] == "a"
    assert all(abs(means[part] - true) < 0.12 for part, true in TRUE.items())
    assert fmean(each["a"] > each["e"] for each in found) == 1


def test_what_all_have_is_no_part():
    assert set(drawn(0).parts) == set(TRUE)
    assert Effects([frozenset("x")] * 3, [{"r": 1.0}] * 3).parts == ()


def test_hard_examples_do_not_count_against_who_was_run_on_them():
    """Half of the candidates are run on hard examples alone, and a reference on all of them tells how hard they are."""
    hard, easy = {f"h{n}": 0.0 for n in range(10)}, {f"e{n}": 1.0 for n in range(10)}
    parts = [frozenset(), *[frozenset({"unlucky"})] * 5, *[frozenset({"lucky"})] * 5]
    found = Effects(parts, [hard | easy, *[hard] * 5, *[easy] * 5]).mean()
    assert abs(found["unlucky"] - found["lucky"]) < 0.25  # of 1.0


def test_parts_that_come_together_share_what_they_add():
    rows = {f"r{n}": 0.0 for n in range(20)}
    both = dict.fromkeys(rows, 1.0)
    found = Effects([frozenset(), frozenset(), frozenset("xy"), frozenset("xy")], [rows, rows, both, both]).mean()
    assert found["x"] == pytest.approx(found["y"])
    assert found["x"] > 0.02


def test_some_of_a_gain_is_the_text_itself():
    """However many runs a candidate has, its only part is not all that makes it better."""
    rows = {f"r{n}": float(n % 2) for n in range(4000)}
    better = {key: score + 0.1 for key, score in rows.items()}
    assert 0.05 < Effects([frozenset(), frozenset("x")], [rows, better]).mean()["x"] < 0.085


def test_a_draw_is_wide_where_little_is_known():
    rows = {f"r{n}": float(n % 2) for n in range(40)}
    parts = [frozenset({"often"} if n % 2 else ()) for n in range(20)] + [frozenset({"once"})]
    effects = Effects(parts, [*[rows] * 20, {"r0": 1.0}])
    rng = random.Random(0)
    drawn_ = [effects.draw(rng) for _ in range(300)]
    spread = {part: pstdev(each[part] for each in drawn_) for part in effects.parts}
    assert spread["often"] < 0.05 < 0.07 < spread["once"]
    for part, mean in effects.mean().items():
        assert fmean(each[part] for each in drawn_) == pytest.approx(mean, abs=4 * spread[part] / 300**0.5)


def test_the_scale_of_scores_is_that_of_the_best():
    one, ten = drawn(3).mean(), drawn(3, best=10.0).mean()
    assert {part: 10 * value for part, value in one.items()} == pytest.approx(ten)
