"""The ten programs beside DSPy's: none is longer, each runs, and the page has their lines."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
PAGE = (ROOT / "docs" / "guide" / "from_dspy.md").read_text()
ROWS = {
    name: (int(ours), int(theirs))
    for name, ours, theirs in re.findall(r"^\| `(\w+)`.*\| (\d+) \| (\d+) \|$", PAGE, re.M)
}

RUNNER = """
import json, runpy, sys
import promptgrad as pg
from promptgrad.testing import LoopbackLM
sys.path.insert(0, sys.argv[1])
import twins
done = {}
for name in twins.NAMES:
    with LoopbackLM(twins.stand_in(name)) as server:
        sys.argv = [name, server.url]
        runpy.run_path(str(twins.HERE / "ours" / f"{name}.py"), run_name="__main__")
        sizes = [twins.lines(twins.HERE / whose / f"{name}.py") for whose in ("ours", "dspy")]
        done[name] = [len(server.requests), *sizes]
    pg.configure(lm=None)
print("\\n" + json.dumps(done))
"""


def test_they_run_and_are_no_longer(tmp_path):
    pytest.importorskip("pydantic_monty")
    script = tmp_path / "runner.py"
    script.write_text(RUNNER)
    command = [sys.executable, str(script), str(BENCHMARKS)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert len(found) == 10
    assert {name: (ours, theirs) for name, (_, ours, theirs) in found.items()} == ROWS
    assert all(calls >= 1 and ours <= theirs for calls, ours, theirs in found.values())
