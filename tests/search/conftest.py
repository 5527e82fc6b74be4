import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def world():
    """The simulated world, see tests/train/world.py."""
    path = Path(__file__).parents[1] / "train" / "world.py"
    spec = importlib.util.spec_from_file_location("simulated_world", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
