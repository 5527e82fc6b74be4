"""The evidence curve: our prompts show a perfect learner no less than the same rows do side by side."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def curve(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import evidence_curve

    return evidence_curve


def learned(world, text):
    """The rows that a text tells the answers of, and the share of fresh rows right by the shortest rules that fit."""
    from worlds._learner import infer
    from worlds._rows import find_rows
    from worlds._rules import decide
    from worlds._tickets import find

    rows = find_rows(text)
    rules, test = infer(rows), world.rows["test"]
    known = {row.ticket.number: row.label for row in rows if row.label is not None}
    return known, sum(decide(rules, find(row["ticket"])[0][0]) == row["code"] for row in test) / len(test)


@pytest.mark.parametrize("seed", [1000, 1001])
@pytest.mark.parametrize("name", ["tgd", "mipro", "auto", "gepa"])
def test_the_first_proposal_shows_all_24_rows_and_as_much_as_they_do_side_by_side(curve, name, seed):
    world = curve.make("W2", seed, train=24, test=400)
    ((plain,),) = curve.shown_by("rows", world, seed).values()
    known, share = learned(world, plain[-1]["content"])
    assert len(known) == 24
    assert share > 0.85
    for messages in curve.shown_by(name, world, seed)[1]:
        shown, ours = learned(world, messages[-1]["content"])
        assert shown == known
        assert ours >= share


def test_one_row_is_worth_little_to_a_critic_and_a_group_more(curve):
    local, joint = (curve.lines_of((name, 1001, 24))[0] for name in ("critic-local", "critic-joint"))
    assert local["labels"] == 1
    assert joint["labels"] >= 8
    assert joint["prompts"] < local["prompts"]
    assert joint["accuracy"] > local["accuracy"]


def test_a_study_resumes_and_makes_its_table(tmp_path):
    out = tmp_path / "curve.jsonl"

    def run(*args):
        command = [sys.executable, str(FOLDER / "evidence_curve.py"), *args, "--out", str(out)]
        return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)

    args = ["--rows", "3,8", "--only", "rows", "--jobs", "1"]
    assert run("--seeds", "1000:1001", *args).returncode == 0
    done = run("--seeds", "1000:1002", *args)
    assert done.returncode == 0, done.stderr
    assert "4 jobs, 2 of them done before" in done.stderr
    lines = [json.loads(text) for text in out.read_text().splitlines()]
    assert [line["labels"] for line in lines] == [3, 8, 3, 8]
    assert all(line["simulated"] for line in lines)
    assert "| rows | " in run("--table").stdout
    assert run("--seeds", "1000:1001", "--only", "nobody").returncode == 2


def test_a_search_that_ended_early_has_its_first_proposal_as_second(curve):
    lines = [
        {"contestant": "tgd", "proposal": number, "seed": seed, "rows": 8, "accuracy": share, "labels": 8, "tokens": 9}
        for number, seed, share in ((1, 0, 0.5), (1, 1, 1.0), (2, 0, 0.8))
    ]
    first, second = curve.table(lines).splitlines()[2:]
    assert first.startswith("| tgd, 1 | 0.75 [")
    assert second.startswith("| tgd, 2 | 0.90 [")
