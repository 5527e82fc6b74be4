"""A few kills of `benchmarks/kills.py`, against a real server; moments count requests there, not seconds."""

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")


@pytest.fixture
def kills(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import kills

    return kills


@pytest.mark.parametrize(("optimizer", "seed"), [("MIPRO", 1001), ("GEPA", 1000), ("TGD", 1003)])
def test_a_run_that_is_killed_ends_as_one_that_never_was(kills, optimizer, seed):
    (line,) = kills.do(kills.Job(optimizer, seed, by="calls", most=2))
    assert line["wrong"] == []
    assert line["kills"]
    assert sum(line["faults"].values()) > 20


def test_a_save_that_is_killed_leaves_the_old_state_or_the_new_one(kills):
    (line,) = kills.do(kills.Job("save", 1000, most=3))
    assert (line["kills"], line["wrong"]) == (3, [])


def test_what_is_not_the_same_is_found(kills):
    run = {"files": {"state.json": "{}"}, "report": {"outcome": "'shipped'"}, "canonical journal": [{"kind": "run"}]}
    assert list(kills.differences(run, run)) == []
    for name, other in (("files", {"state.json": "[]"}), ("report", {}), ("canonical journal", [])):
        (found,) = kills.differences(run, {**run, name: other})
        assert found.startswith(name)


def test_the_calls_that_were_lost_are_counted_by_process(kills):
    send, call, process = ({"kind": kind, "key": "k"} for kind in ("send", "call", "process"))
    assert kills.lost_in([send, call, process, send, process, send, call]) == 1
    assert kills.lost_in([send, {"kind": "fail", "key": "k", "lost": True}, process]) == 1
    assert kills.lost_in([send, send, process]) == 2
    decision = {"kind": "decision", "seq": 0}
    assert kills.lost_in([send, {"kind": "fail", "key": "k", "lost": True}, decision, process]) == 0


def test_what_is_said_of_a_row_ends_no_call_in_flight(kills):
    send, row = {"kind": "send", "key": "k"}, {"kind": "fail", "key": "k", "row": "0", "message": "no"}
    assert kills.lost_in([send, row, {"kind": "process"}]) == 1


def test_calls_that_were_sent_after_their_reply_are_found(kills):
    send, call = ({"kind": kind, "key": "k"} for kind in ("send", "call"))
    assert kills.sent_again([send, send, call]) == []
    assert kills.sent_again([send, call, send, {"kind": "send", "key": "other"}]) == ["k"]


def test_runs_that_time_decides_have_no_twin_and_the_others_have(kills):
    cases = [kills.Job(name, seed).case() for name in (*kills.OPTIMIZERS, *kills.TRAINED) for seed in range(1000, 1040)]
    seconds = [case for case in cases if "seconds" in case["budget"]]
    silent = [case for case in cases if case["timeout"]]
    assert all(kills.is_free(case) for case in [*seconds, *silent])
    assert len(seconds) > 10
    assert len(silent) > 10
    assert sum(not kills.is_free(case) for case in cases) > len(cases) / 2
    assert {case["program"] for case in cases} == {"chain", "branch", "local"}


def test_the_figures_in_the_docs_are_those_of_the_runs_kept(kills):
    lines = kills.read(kills.RESULTS)
    found = kills.summary(lines)
    assert set(found["kills"]) == {*kills.OPTIMIZERS, *kills.TRAINED, "save"}
    assert not [line for line in lines if any(not text.startswith("resumed once more") for text in line["wrong"])]
    for page in ("benchmarks.md", "guide/errors.md"):
        text = (FOLDER.parent / "docs" / page).read_text(encoding="utf-8")
        assert all(str(found[name]) in text for name in ("all", "runs", "lost", "compared with a twin"))
