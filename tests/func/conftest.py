import importlib.util
from pathlib import Path

import pytest


@pytest.fixture
def world():
    """The simulated world of the optimizers' tests."""
    place = Path(__file__).parents[1] / "train" / "world.py"
    spec = importlib.util.spec_from_file_location("simulated_world", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def model(world):
    """`text -> word -> answer`: takes the first word and copies it, until its instructions say better."""
    from promptgrad import lm

    return world.Program().to(lm.FunctionLM(world.answer, name="simulated"))
