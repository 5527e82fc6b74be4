"""Each benchmark runs, in a tiny form and without the peers, and prints JSON lines."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("time_*.py"))


def test_there_is_a_benchmark_for_each_claim():
    claims = ("import", "predict", "transport", "evaluate", "cache", "backward", "record")
    assert [name for name in claims if f"time_{name}.py" not in SCRIPTS] == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_runs_and_prints_json_lines(script):
    command = [sys.executable, "-W", "error", str(FOLDER / script), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    header, *rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert header["bench"] == script.removeprefix("time_").removesuffix(".py")
    measured = [row for row in rows if row.get("who", "").startswith("promptgrad")]
    assert measured
    assert [row for row in measured if "skipped" in row] == []
    assert any("target" in row for row in rows)
    counted = [row for row in rows if "calls" in row or "made" in row]  # what no busy machine can change
    assert [row for row in counted if row.get("meets") is False] == []
    assert bool(counted) == (header["bench"] in ("backward", "record"))
