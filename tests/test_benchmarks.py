"""Each benchmark runs, in a tiny form and without the peers, and prints JSON lines."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("time_*.py"))


def test_there_is_a_benchmark_for_each_claim():
    claims = ("import", "predict", "transport", "evaluate", "cache", "backward", "record")
    assert [name for name in claims if f"time_{name}.py" not in SCRIPTS] == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_benchmark_runs_and_prints_json_lines(script):
    command = [sys.executable, "-W", "error", str(FOLDER / script), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
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


def test_the_adapters_are_counted_and_all_read_what_they_ask_for():
    command = [sys.executable, "-W", "error", str(FOLDER / "adapters.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    header, *rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert header["cases"] == 24
    assert [row["adapter"] for row in rows] == ["chat", "json", "xml", "tools", "compact", "two_step", "template"]
    known = {row["adapter"]: row["by dress"] for row in rows if row["by dress"]}
    assert {name: dresses["as asked for"] for name, dresses in known.items()} == {name: {"right": 24} for name in known}
    (kept,) = [json.loads(line) for line in (FOLDER / "results" / "adapters.jsonl").read_text().splitlines()][:1]
    assert kept["bench"] == "adapters"


def test_the_study_of_steps_runs_and_makes_its_tables(tmp_path):
    pytest.importorskip("torch")
    script = [sys.executable, str(FOLDER / "gradcheck_study.py")]
    done = subprocess.run(
        [*script, "--quick", "--out", str(tmp_path)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    header, *summary, end = [json.loads(line) for line in done.stdout.splitlines()]
    assert header["steps"] == 1
    assert {line["summary"] for line in summary} == {header["tasks"][0], "trained families", "all"}
    assert end["rows"] == 4
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row.get("arm", row["part"]) for row in rows] == ["true", "shuffled", "blank", "one-step"]
    assert len({(row["before"], row["seed"]) for row in rows if row["part"] == "train"}) == 1
    table = subprocess.run([*script, "--table", str(tmp_path)], capture_output=True, text=True, timeout=600, check=True)
    assert table.stdout.count("| **all** |") == 2


def test_the_tasks_of_the_study_are_drawn_and_apart_from_those_it_was_tuned_on(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import gradcheck_study as study

    from promptgrad.data import pocket

    tasks = study.study_tasks()
    assert len(set(tasks)) == 8 == 2 + study.LARGEST
    assert set(pocket.held_out_families()) <= {pocket.task(name).family for name in tasks}
    assert {pocket.task(name).family for name in tasks}.isdisjoint(pocket.task(name).family for name in study.TUNING)
    assert set(study.SEEDS).isdisjoint(study.TUNING_SEEDS)
    assert {*study.follow_up_tasks()}.isdisjoint({*tasks, *study.TUNING})
    every = [pocket.task(name).family for name in study.family_tasks()]
    assert len(set(every)) == len(every)
    assert {*pocket.families()} - {*every} == {"topic"}
    assert {*study.family_tasks()}.isdisjoint(study.TUNING)
    assert set(study.NEW_SEEDS).isdisjoint({*study.SEEDS, *study.TUNING_SEEDS})


@pytest.mark.parametrize("name", ["study", "follow-up", "every-family", "every-family-again"])
def test_the_tables_in_the_docs_are_those_of_the_rows_kept(monkeypatch, name):
    monkeypatch.syspath_prepend(str(FOLDER))
    import gradcheck_study as study

    folder = FOLDER / "results" / "gradcheck" / name
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    summary = [json.loads(line) for line in (folder / "summary.jsonl").read_text().splitlines()]
    found, groups = study.Found(rows), ("trained families", "held-out families", "all")
    only = {*groups, found.tasks[-1]}  # an interval of a task is half a second: the groups, which hold all, and one
    assert found.summary(only) == [line for line in summary if line["summary"] in only]
    for line in summary:
        if line["summary"] not in groups:
            table = found.gains if line["part"] == "train" else found.steps
            for arm in study.ARMS:
                mean = fmean(map(fmean, table(line["summary"], arm)))
                assert line[arm][0] == pytest.approx(mean, abs=1e-4)
    page = (FOLDER.parent / "docs" / "gradcheck.md").read_text()
    lines = study.markdown(summary).strip().splitlines()
    assert [line for line in lines if line not in page and "trained families" not in line] == []
    for row in rows:
        for arm in (row,) if row["part"] == "train" else ():
            before, after = (study.digits(text) for text in arm["scores"])
            assert sum(before) / len(before) == pytest.approx(arm["before"])
            assert sum(after) / len(after) == pytest.approx(arm["after"])
