import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def programs():
    """Small programs whose calls are played, of the tests of autograd."""
    place = Path(__file__).parents[1] / "autograd" / "programs.py"
    spec = importlib.util.spec_from_file_location("programs", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
