"""GEPA(parity=True) makes the decisions of the package gepa, as benchmarks/parity_gepa.py recorded them."""

import importlib.util
import json
import random
from pathlib import Path

import pytest

from promptgrad import Trainer, lm, optim
from promptgrad.optim._gepa_parity import Combined, Pool
from promptgrad.search import Candidate, Measured
from promptgrad.testing.optimizers import OptimizerContract

HERE = Path(__file__).parent
KEPT = json.loads((HERE / "gepa_sequences.json").read_text())


@pytest.fixture(scope="module")
def both():
    spec = importlib.util.spec_from_file_location("parity_gepa", HERE.parents[1] / "benchmarks" / "parity_gepa.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_setting_was_recorded(both):
    assert list(KEPT) == list(both.SETTINGS)
    steps = [step for sequences in KEPT.values() for steps in sequences.values() for step in steps]
    assert {step["accepted"] for step in steps if "merge" in step} == {True, False}
    assert any(len(set(step["minibatch"])) < len(step["minibatch"]) for step in steps if "parent" in step)


@pytest.mark.parametrize("seed", ["1004", "1005"])
@pytest.mark.parametrize("setting", list(KEPT))
def test_the_sequence_is_that_of_the_package(both, setting, seed):
    given = KEPT[setting][seed]
    made = both.ours(both.World(int(seed)), len(given), **both.SETTINGS[setting])
    assert both.differs(made, given) == ""


def test_another_seed_makes_another_sequence(both):
    made = both.ours(both.World(1004), 20)
    assert both.differs(made, KEPT["defaults"]["1005"][:20]) != ""


def test_a_bound_on_the_merges_ends_them(both):
    def merged(most):
        made = both.ours(both.World(1005), 40, fronts="both", max_merges=most)
        return sum("merge" in step and step["accepted"] for step in made)

    assert 0 < merged(1) < merged(9)


@pytest.mark.parametrize("equal", [0, 3, 40])
def test_a_merge_is_tried_on_as_many_examples_as_asked_for_of_every_kind(equal):
    """Those where one side is better, the other is, and neither is; where a kind has too few, others stand in."""
    ids = [f"{kind}{number}" for kind, count in (("a", 20), ("b", 2), ("=", equal)) for number in range(count)]
    first, second = (
        Measured(Candidate(), tuple(ids), tuple(float(key[0] == better) for key in ids)) for better in "ab"
    )
    pool = Pool(None, [], "row", random.Random(0))
    pool.members = [first, second]
    chosen = pool.sample(Combined(Candidate(), (0, 1), 0), ids, 9)
    assert len(chosen) == len(set(chosen)) == 9
    assert {"b0", "b1"} < set(chosen) <= set(ids)
    assert sum(key[0] == "=" for key in chosen) >= min(3, equal)


class TestContract(OptimizerContract):
    def make(self, params):
        return optim.GEPA(params, steps=5, minibatch_size=4, parity=True)


class TestContractOfAllTexts(OptimizerContract):
    def make(self, params):
        return optim.GEPA(params, steps=2, minibatch_size=4, components="all")


def test_components_are_named(both):
    with pytest.raises(ValueError, match='components are "blamed", rewritten by "round_robin" or "all" at once'):
        optim.GEPA(both.Program().parameters(), components="some")


def test_each_block_of_rows_is_another_sample(world):
    """Its rows are asked with the number of the block, so a model that samples answers each block anew."""
    numbers = []

    def answer(request):
        numbers.append(request.replicate)
        return world.answer(request.messages)

    model = world.Program().to(lm.FunctionLM(answer, name="simulated"))
    optimizer = optim.GEPA(model.parameters(), steps=4, minibatch_size=4, parity=True)
    Trainer(model, optimizer, metric=world.metric, seed=5).fit(world.examples(24), world.examples(20, seed=1))
    assert len(set(numbers)) > 4
    assert set(numbers) == set(range(max(numbers) + 1))
