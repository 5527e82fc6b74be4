"""Places that are no plain file: links, folders, a full disk, no path. The error says where, and nothing is lost."""

import errno
import json
import os
import subprocess
import sys

import pytest

import promptgrad as pg
from promptgrad import lm, nn

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs links and limits of POSIX")


@pytest.fixture
def state():
    return nn.Predict("question -> answer", instruction="Say it.").state_dict()


def saved(path):
    return pg.load(path)["instruction"]


@posix
class TestLinks:
    def test_what_a_link_points_to_is_written(self, state, tmp_path):
        (tmp_path / "runs").mkdir()
        target, link = tmp_path / "runs" / "first.json", tmp_path / "latest.json"
        target.write_text("old")
        link.symlink_to("runs/first.json")
        pg.save(state, link)
        assert link.is_symlink()
        assert saved(target) == saved(link) == "Say it."
        assert os.listdir(tmp_path / "runs") == ["first.json"]

    def test_a_link_to_nothing_makes_the_file(self, state, tmp_path):
        link = tmp_path / "latest.json"
        link.symlink_to(tmp_path / "new" / "first.json")
        pg.save(state, link)
        assert link.is_symlink()
        assert saved(tmp_path / "new" / "first.json") == "Say it."

    def test_a_link_to_itself_is_an_error_and_stays(self, state, tmp_path):
        link = tmp_path / "loop.json"
        link.symlink_to(link)
        with pytest.raises(OSError, match=r"loop\.json") as caught:
            pg.save(state, link)
        assert caught.value.errno == errno.ELOOP
        assert link.is_symlink()


class TestPaths:
    def test_a_state_into_a_folder_says_what_is_meant(self, state, tmp_path):
        with pytest.raises(IsADirectoryError, match=r"save\(model, folder\)") as caught:
            pg.save(state, tmp_path)
        assert caught.value.filename == str(tmp_path)
        assert os.listdir(tmp_path) == []

    def test_an_empty_path(self, state):
        with pytest.raises(ValueError, match=r"the path is empty: write promptgrad\.save"):
            pg.save(state, "")
        with pytest.raises(ValueError, match=r"the path is empty: write promptgrad\.load"):
            pg.load("")

    def test_a_file_where_a_folder_is_wanted_is_named(self, state, tmp_path):
        (tmp_path / "file").write_text("x")
        path = tmp_path / "file" / "state.json"
        with pytest.raises(OSError, match=r"state\.json") as caught:
            pg.save(state, path)
        assert caught.value.filename == str(path)


FULL = """
import resource, signal, sys
import promptgrad as pg
from promptgrad import lm, nn
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
model = nn.Predict("question -> answer", instruction="Say it.").to(lm.FunctionLM(lambda m: "x" * 400))
pg.save(model.state_dict(), "state.json")
with lm.record("calls.jsonl"):
    model(question="first")
model.instruction.data = "y" * 5000
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    pg.save(model.state_dict(), "state.json")
except OSError as error:
    print(type(error).__name__, error)
try:
    with lm.record("calls.jsonl", append=True):
        model(question="second")
except pg.errors.ReplayError as error:
    print(type(error).__name__, error)
"""


@posix
def test_a_disk_that_is_full(tmp_path):
    run = subprocess.run([sys.executable, "-c", FULL], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (run.returncode, run.stderr) == (0, "")
    first, second = run.stdout.splitlines()
    assert first == f"OSError [Errno 27] {os.strerror(errno.EFBIG)}: 'state.json'"
    assert second == f"ReplayError cannot write to the cassette calls.jsonl: {os.strerror(errno.EFBIG)}"
    assert sorted(os.listdir(tmp_path)) == ["calls.jsonl", "state.json"]
    assert saved(tmp_path / "state.json") == "Say it."
    lines = (tmp_path / "calls.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines][-1] == "call"
    model = nn.Predict("question -> answer", instruction="Say it.")
    with lm.replay(tmp_path / "calls.jsonl"):
        assert model(question="first").answer == "x" * 400


def test_values_that_do_not_fit_are_to_be_corrected(state):
    model = nn.Predict("question -> answer")
    for changes, advice in (
        ({"instruction": 3}, "Correct the values, or pass strict=False"),
        ({"instruktion": "x"}, "Rename the keys, or pass strict=False"),
        ({"instruction": 3, "instruktion": "x"}, "Rename the keys and correct the values, or pass strict=False"),
    ):
        with pytest.raises(pg.errors.StateDictError, match=advice):
            model.load_state_dict({**state, **changes})
    model.load_state_dict({**state, "instruction": 3}, strict=False)
    assert model.instruction.data != 3
