"""The study of optimizers in simulated worlds: runs, resumes and tables, without the peers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import promptgrad as pg

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
ARGS = ["--world", "W2", "--budget", "120", "--fresh", "40", "--jobs", "1", "--optimizers", "bootstrap"]


def run(*args):
    command = [sys.executable, str(FOLDER / "bench_optimizers.py"), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_a_study_runs_resumes_and_makes_its_table(tmp_path):
    out = tmp_path / "runs.jsonl"
    done = run(*ARGS, "--seeds", "1000", "--out", str(out))
    assert done.returncode == 0, done.stderr
    (line,) = [json.loads(text) for text in out.read_text().splitlines()]
    assert (line["world"], line["seed"], line["budget"], line["optimizer"]) == ("W2", 1000, 120, "bootstrap")
    assert line["simulated"]
    assert 0 < line["spent"] == sum(line["calls"].values()) <= 120
    assert 0 <= line["start"] <= 1
    assert 0 <= line["score"] <= 1
    again = run(*ARGS, "--seeds", "1000,1001", "--out", str(out))
    assert "2 runs, 1 of them done before" in again.stderr
    assert len(out.read_text().splitlines()) == 2
    table = run("--table", "--out", str(out)).stdout
    assert "### W2, 120 calls" in table
    assert "| bootstrap | 2 |" in table


def test_a_name_that_there_is_not_is_told(tmp_path):
    done = run("--world", "W9", "--out", str(tmp_path / "runs.jsonl"))
    assert done.returncode == 2
    assert "unknown: W9" in done.stderr


def test_the_table_pairs_ours_with_each_peer_by_seed(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import bench_optimizers as study

    lines = [
        {
            "world": "W2", "budget": 600, "seed": seed, "optimizer": name, "start": 0.5, "score": score,
            "best_found": score, "spent": 600, "seconds": 1.0,
        }
        for seed in range(4)
        for name, score in (("auto", 0.8 + seed / 100), ("gepa-peer", 0.7 + seed / 100), ("textgrad", 0.4))
    ]  # fmt: skip
    text = study.table(lines, draws=200)
    assert "| auto | 4 | 81.5 | 81.5 | 0 | 600 | 1.0 | +10.0 [+10.0, +10.0] |" in text
    assert "| textgrad | 4 | 40.0 | 40.0 | 4 | 600 | 1.0 |  |  |" in text
    low, high = study.interval([0.0, 1.0, 2.0, 3.0])
    assert 0 <= low < 1.5 < high <= 3


def test_what_was_written_of_a_killed_run_is_read_without_its_torn_line(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(FOLDER))
    import _study as study

    out = tmp_path / "runs.jsonl"
    out.write_text('{"world": "W2"}\n{"world": "W')
    assert study.read(out) == [{"world": "W2"}]


def test_the_summary_says_whether_ours_is_ahead_level_or_behind_each_peer(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import bench_optimizers as study

    def lines(name, scores, *, budget=600, first=0):
        return [
            {
                "world": "W2", "budget": budget, "seed": seed, "optimizer": name, "start": 0.5, "score": score,
                "best_found": score, "spent": budget, "seconds": 1.0,
            }
            for seed, score in enumerate(scores, first)
        ]  # fmt: skip

    low, mixed, high = [0.4] * 4, [0.9, 0.3, 0.8, 0.4], [0.9] * 4
    made = [*lines("tgd", [0.6] * 4), *lines("gepa-peer", high), *lines("mipro-peer", mixed), *lines("textgrad", low)]
    made += [*lines("tgd", high, budget=2000), *lines("gepa-peer", low, budget=2000)]
    made += lines("textgrad", low, budget=2000, first=4)  # no seed in common
    text = study.table(made, draws=200)
    assert "A mark for each peer: gepa-peer, mipro-peer, textgrad." in text
    assert "| optimizer | W2, 600 calls | W2, 2000 calls |\n|---|---|---|\n| tgd | -0+ | +.. |\n" in text
    assert text.index("| tgd | -0+ |") < text.index("### W2, 600 calls")
    assert "###" not in study.table(lines("tgd", high), draws=200).split("### W2")[0]


def test_a_study_does_not_go_on_in_a_file_of_other_sources(tmp_path):
    out = tmp_path / "runs.jsonl"
    assert run(*ARGS, "--seeds", "1000", "--out", str(out)).returncode == 0
    (line,) = [json.loads(text) for text in out.read_text().splitlines()]
    version, digest = line["promptgrad"].split()
    assert version == pg.__version__
    for strange in ({"promptgrad": f"{version} {digest[::-1]}"}, {"worlds": "0"}):
        out.write_text(json.dumps({**line, **strange}) + "\n")
        refused = run(*ARGS, "--seeds", "1000:1002", "--out", str(out))
        assert refused.returncode == 1
        assert "1 of 1 lines, such as that of ('W2', 1000, 120, 'bootstrap'), were not made by" in refused.stderr
        assert f"promptgrad {version} {digest}" in refused.stderr
        assert "--mixed" in refused.stderr
        assert len(out.read_text().splitlines()) == 1
    peer = {name: value for name, value in line.items() if name != "promptgrad"} | {"optimizer": "gepa-peer"}
    out.write_text(json.dumps(peer) + "\n" + json.dumps(line)[:40])  # a peer's line names no promptgrad; one is torn
    done = run(*ARGS, "--seeds", "1000", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "1 runs, 0 of them done before" in done.stderr
    assert json.loads(out.read_text().splitlines()[-1]).keys() == line.keys()
    out.write_text(json.dumps({**line, "worlds": "0"}) + "\n")
    assert "1 runs, 1 of them done before" in run(*ARGS, "--seeds", "1000", "--mixed", "--out", str(out)).stderr


@pytest.mark.parametrize(("text", "numbers"), [("0:3", [0, 1, 2]), ("1000,1004", [1000, 1004])])
def test_seeds_are_a_range_or_a_list(monkeypatch, text, numbers):
    monkeypatch.syspath_prepend(str(FOLDER))
    import _study as study

    assert study.numbers(text) == numbers


def test_whole_runs_are_scored_before_and_after_and_summed_up(tmp_path):
    out = tmp_path / "runs.jsonl"
    script = [sys.executable, str(FOLDER / "calibrate_runs.py"), "--world", "W2,N1", "--budget", "120", "--jobs", "1"]
    script += ["--seeds", "1000", "--optimizers", "bootstrap", "--latency", "0.001", "--fresh", "40", "--out", str(out)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(text) for text in out.read_text().splitlines()]
    assert {line["world"] for line in lines} == {"W2", "N1"}
    assert all(0 < line["spent"] <= 120 and 0 < line["busy"] <= 1 and line["simulated"] for line in lines)
    assert all(line["shipped"] or line["true"] == 0 for line in lines)
    *worlds, every = [json.loads(text) for text in done.stdout.splitlines()]
    assert [line["world"] for line in worlds] == ["N1", "W2"]
    assert (every["runs"], every["overshoot"]) == (2, 0)
    again = subprocess.run(script, capture_output=True, text=True, timeout=600, check=False)
    assert "2 runs, 2 of them done before" in again.stderr
    assert again.stdout == done.stdout


def test_the_summary_of_whole_runs(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import calibrate_runs as study

    def line(true, reported, *, spent=200, busy=0.9):
        return {
            "world": "W2", "optimizer": "tgd", "budget": 200, "shipped": reported is not None, "true": true,
            "reported": reported, "spent": spent, "latency": 0.05, "busy": busy, "busy on the clock": busy / 2,
        }  # fmt: skip

    found, every = study.summary([line(0.2, 0.3), line(-0.1, 0.1, spent=203, busy=0.7), line(0.0, None)])
    assert (found["runs"], found["ships"], found["worse"]) == (3, 0.6667, 0.3333)
    assert (found["reported minus true"], found["overshoot"]) == (0.15, 3)
    assert (found["busy"], found["busy on the clock"]) == ({"tgd": 0.833}, {"tgd": 0.417})
    assert {**every, "world": "W2"} == found


def test_no_critic_is_named_who_writes_also_criticises(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import bench_optimizers as study

    world = study.make("W4", 1000, train=12, val=12)
    for name in ("tgd-critic", "gepa"):
        with (server := world.serve()) as url:
            study.train(world, url, name, 0, 120)
        assert "critic" not in server.counts
        assert server.counts["writer"] > 0
