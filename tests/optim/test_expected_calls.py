"""How many calls optimizers say that they take at most."""

from functools import partial
from types import SimpleNamespace

import pytest

from promptgrad import nn, optim

PLAN = SimpleNamespace(calls_per_example=2.0, train=10, val=20)
MODEL = nn.Sequential(*(nn.Predict("text -> answer") for _ in range(3)))
TEXTS = [(name, one) for name, one in MODEL.named_parameters() if name.endswith("instruction")]


def phases(optimizer):
    return {name: calls for name, calls, _ in optimizer.expected_calls(PLAN)}


def test_auto_expects_more_the_more_is_trained_and_the_more_steps_it_takes():
    one, three, longer = (
        phases(optim.Auto(TEXTS[:count], demos=(), steps=steps, proposals=3))
        for count, steps in ((1, 4), (3, 4), (3, 8))
    )
    assert "critiques" not in one, "where one text is trained, nobody divides the blame"
    assert one["proposals"] == 4 * 3 * (2 + 8), "a writer is asked up to eight times as often until a text is right"
    assert three["proposals"] == 4 * 3 * (3 * 2 + 8)
    assert one["runs on training examples"] == 2 * 4 * (24 + 4 * 10 + 3 * 8 * 5), "5 rows of each of these texts"
    assert three["critiques"] == 3 * three["runs on training examples"]
    assert three["meetings"] == one["meetings"]
    assert {name: 2 * calls for name, calls in three.items()} == longer


@pytest.mark.parametrize(("batch", "rows"), [(8, 24 + 3 * 8), (24, 4 * 24), (30, 4 * 30)])
def test_tgd_runs_more_rows_in_its_first_step_where_a_batch_is_small(batch, rows):
    expected = phases(optim.TGD(TEXTS, steps=4, proposals=3, batch_size=batch))
    assert expected["forward"] == expected["backward"] == 2 * rows


@pytest.mark.parametrize(("parity", "tries", "rows"), [(True, 4, 4 * 5), (False, 4 * 3, 4 * 10)])
def test_gepa_tries_each_child_on_a_minibatch_and_then_on_all_rows(parity, tries, rows):
    """Without parity a step shows up to 24 rows, of which there are 10, and has three children."""
    expected = phases(optim.GEPA(TEXTS[:1], steps=4, minibatch_size=5, max_merges=0, parity=parity))
    assert expected["minibatches"] == 2 * (rows + 5 * tries)
    assert expected["proposals"] == tries


def test_without_a_number_of_steps_gepa_makes_as_many_proposals_as_the_package():
    made = [phases(optim.GEPA(TEXTS[:1], parity=parity))["proposals"] for parity in (True, False)]
    assert made == [30, 30]


@pytest.mark.parametrize(("count", "candidates"), [(1, 3), (2, 3 + 2), (3, 3 + 3)])
def test_tgd_races_its_proposals_and_each_of_several_texts_alone(count, candidates):
    expected = phases(optim.TGD(TEXTS[:count], steps=4, proposals=3))
    assert expected["races"] == 4 * candidates * 20 * 2
    assert expected["proposals"] == 4 * 3 * count


@pytest.mark.parametrize(
    ("make", "traces", "shown"),
    [
        (partial(optim.KNNFewShot, k=5), 0, 5),
        (partial(optim.LabeledFewShot, k=7), 0, 7),
        (partial(optim.BootstrapFewShot, max_bootstrapped_demos=2, max_labeled_demos=6), 2, 6),
        (partial(optim.RandomSearch, max_bootstrapped_demos=6, max_labeled_demos=2), 6, 6),
        (partial(optim.MIPRO, max_bootstrapped_demos=2, max_labeled_demos=6), 2, 6),
        (partial(optim.MIPRO, num_demo_sets=0), 0, 0),
        (partial(optim.Auto, demos=(2, 9, 4)), 9, 9),
        (optim.TGD, 0, 0),
        (optim.KNNFewShot, 0, 3),  # those of DSPy from here on
        (optim.LabeledFewShot, 0, 16),
        (optim.BootstrapFewShot, 4, 16),
        (optim.RandomSearch, 4, 16),
        (optim.MIPRO, 4, 4),
    ],
)
def test_as_many_demos_are_expected_as_an_optimizer_may_show(make, traces, shown):
    assert make(MODEL.named_parameters()).expected_demos() == (traces, shown)


def test_the_first_trial_of_mipro_is_the_start_which_is_known():
    expected = phases(optim.MIPRO(TEXTS[:1], num_trials=7, minibatch_size=8, full_eval_every=3))
    assert expected["7 minibatches of 8"] == 2 * 6 * 8
