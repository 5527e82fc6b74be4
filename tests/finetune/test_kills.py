"""SIGKILL in the middle of a training: the same call again ends with the weights of one that was never killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")

EVERY = 2
"""Steps between two checkpoints."""
KILLS = 2
STEPS = {"sft": 6, "distill": 6, "grpo": 6, "policy": 8, "bootstrap": 8, "together": 8}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all of them were killed."""
    folder = tmp_path_factory.mktemp("lives")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("lives.py")), str(folder), "1", str(KILLS), *STEPS],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("way", STEPS)
def test_a_training_that_is_killed_ends_with_the_weights_of_one_that_never_was(home: Path, way: str) -> None:
    begun, first, *others, last, done = json.loads((home / f"{way}.ends").read_text())
    assert (begun, first, last, done) == (0, -9, 0, 0)
    assert set(others) <= {-9, 0}  # of what had little left to do
    assert (home / f"{way}-killed.end").read_text() == (home / f"{way}-twin.end").read_text()


@pytest.mark.parametrize("way", STEPS)
def test_no_step_before_a_checkpoint_is_taken_again(home: Path, way: str) -> None:
    twin, killed = ((home / f"{way}-{who}.steps").read_text().split() for who in ("twin", "killed"))
    assert len(twin) <= STEPS[way]
    assert len(twin) <= len(killed) <= len(twin) + EVERY * KILLS
