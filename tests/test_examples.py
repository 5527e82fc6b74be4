"""Every example runs, as its users run it: in a process of its own, on a server or on the embedded model."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from promptgrad.testing import LoopbackLM

FOLDER = Path(__file__).resolve().parents[1] / "examples"
FIELD = re.compile(r"\[\[ ## (\w+) ## \]\]\n\{([^}]*)\}")


def answer(messages):
    """Fill in every field that the system message asks for, as a model without an idea would."""
    fields = FIELD.findall(messages[0]["content"])
    values = {"a number": "7", "true or false": "true"}
    return "\n\n".join(f"[[ ## {name} ## ]]\n{values.get(kind.split(';')[0], 'red')}" for name, kind in fields)


def run(script, *arguments, folder, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", str(FOLDER / script), *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "120", **environment},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def server():
    with LoopbackLM(answer, record=False) as server:
        yield server


def test_every_example_is_run_here():
    tested = set(re.findall(r'"(\w+\.py)"', Path(__file__).read_text()))
    assert {path.name for path in FOLDER.glob("*.py")} == tested


def test_gsm8k_plans_without_a_call(server, tmp_path):
    shown = run("gsm8k.py", "--lm", "m", "--base-url", server.url, "--plan", folder=tmp_path, OPENAI_API_KEY="none")
    assert "calls" in shown
    assert server._script.received == 0


@pytest.mark.parametrize("optimizer", ["bootstrap", "tgd"])
def test_gsm8k_optimizes_and_goes_on_with_a_finished_run(optimizer, server, tmp_path):
    arguments = ["--lm", "m", "--base-url", server.url, "--optimizer", optimizer, "--run-dir", "run"]
    sizes = ["--train", "6", "--val", "6", "--test", "4"]
    first = run("gsm8k.py", *arguments, *sizes, folder=tmp_path, OPENAI_API_KEY="none")
    assert "Saved as" in first
    assert (tmp_path / "run" / "program.json").exists()
    sent = server._script.received
    again = run("gsm8k.py", *arguments, *sizes, folder=tmp_path, OPENAI_API_KEY="none")
    assert "Going on with the run" in again
    assert server._script.received == sent


def test_quickstart_runs_on_a_server(server, tmp_path):
    shown = run(
        "quickstart.py", "--lm", "openai/m", "--optimizers", "BootstrapFewShot", "BootstrapFinetune", "--test", "10",
        folder=tmp_path, OPENAI_API_KEY="none", OPENAI_BASE_URL=server.url,
    )  # fmt: skip
    assert "weights of openai/m are not at hand" in shown
    assert "the same as here" in shown
    assert list(tmp_path.iterdir()) == []


def test_quickstart_improves_the_embedded_model(tmp_path):
    pytest.importorskip("torch")
    shown = run("quickstart.py", "--optimizers", "BootstrapFewShot", "--test", "60", folder=tmp_path)
    assert "the same as here" in shown
    row = next(line for line in shown.splitlines() if "BootstrapFewShot" in line and "│" in line)
    gain = re.search(r"([+-][\d.]+) \[([+-][\d.]+), ([+-][\d.]+)\]", row)
    assert gain is not None, row
    assert float(gain[2]) > 0
