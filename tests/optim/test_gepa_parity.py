"""GEPA(parity=True) makes the decisions of the package gepa, as benchmarks/parity_gepa.py recorded them."""

import importlib.util
import json
from pathlib import Path

import pytest

from promptgrad import optim
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


class TestContract(OptimizerContract):
    def make(self, params):
        return optim.GEPA(params, steps=5, minibatch_size=4, parity=True)


class TestContractOfAllTexts(OptimizerContract):
    def make(self, params):
        return optim.GEPA(params, steps=2, minibatch_size=4, components="all")


def test_components_are_named(both):
    with pytest.raises(ValueError, match='components are "blamed", rewritten by "round_robin" or "all" at once'):
        optim.GEPA(both.Program().parameters(), components="some")
