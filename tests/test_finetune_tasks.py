"""The study of prompts, weights and both: one real run, what is done before, and the table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"

pytest.importorskip("peft")


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import finetune_tasks

    return finetune_tasks


def line(task, method, seed, score):
    return {"task": task, "method": method, "seed": seed, "start": 0.1, "score": score, "spent": 100}


def test_a_run_has_a_line_and_is_not_repeated(tmp_path):
    out = tmp_path / "runs.jsonl"
    args = ["--tasks", "", "--seeds", "1000", "--rollouts", "32", "--fresh", "8", "--jobs", "1", "--out", str(out)]
    command = [sys.executable, str(FOLDER / "finetune_tasks.py"), *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(text) for text in out.read_text().splitlines()]
    assert sorted(each["method"] for each in lines) == ["grpo", "sft-greedy", "sft-sampled"]
    assert {each["spent"] for each in lines} == {32}  # equal runs
    assert len({each["start"] for each in lines}) == 1  # of the same program, on the same rows
    (found,) = json.loads(done.stdout).values()
    assert found["seeds"] == [1000]
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert "3 runs, 3 of them done before" in again.stderr
    assert json.loads(again.stdout) == json.loads(done.stdout)


def test_differences_are_paired_by_seed_and_a_seed_that_lacks_a_method_is_left_out(study):
    lines = [line("sum", "p -> w", seed, 0.6 + seed / 100) for seed in range(4)]
    lines += [line("sum", "prompts", seed, 0.5 + seed / 100) for seed in range(3)]
    lines += [line("sum", "weights", seed, 0.9 - seed / 100) for seed in range(3)]
    found = study.summary(lines)["sum"]
    assert found["seeds"] == [0, 1, 2]
    assert found["differences"]["p -> w minus prompts"] == [10.0, 10.0, 10.0]
    mean, low, high = found["differences"]["p -> w minus weights"]
    assert mean == -28.0
    assert low < mean < high
    assert "| sum | 3 | 10.0 | 51.0 | 89.0 | 61.0 | +10.0 [+10.0, +10.0] |" in study.table(lines)
