"""A study that is killed or interrupted leaves no process behind, neither its own nor those that they started."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import until

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
STUDY = """
import os, subprocess, sys, tempfile
from pathlib import Path
sys.path.insert(0, {folder!r})
from _study import study

def do(job):
    with tempfile.TemporaryDirectory() as folder:
        code = "import time; from _lifeline import end_with_stdin; end_with_stdin(); time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, cwd={folder!r})
        text = f"{{os.getpid()}} {{child.pid}} {{os.path.dirname(folder)}}"
        Path({here!r}, f"new-{{job}}").write_text(text)
        Path({here!r}, f"new-{{job}}").rename(Path({here!r}, f"job-{{job}}"))
        child.wait()

if __name__ == "__main__":
    same = {{"job_key": lambda job: job, "line_key": lambda line: 0, "ours": lambda line: False}}
    study(do, [1, 2, 3], Path({here!r}, "out"), 2, **same)
"""


def _is_alive(pid):
    """Whether a process is there and is not only a name that nobody has asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_processes_of_a_study_end_with_it(tmp_path, sign):
    script = tmp_path / "script.py"
    script.write_text(STUDY.format(folder=str(FOLDER), here=str(tmp_path)))
    study = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL)
    started = [tmp_path / "job-1", tmp_path / "job-2"]
    until(lambda: all(path.exists() for path in started) or study.poll() is not None)
    told = [path.read_text().split() for path in started]
    pids = [int(pid) for worker, child, _ in told for pid in (worker, child)]
    assert all(map(_is_alive, pids))
    os.kill(study.pid, sign)
    study.wait(timeout=600)
    until(lambda: not any(map(_is_alive, pids)))
    until(lambda: not any(Path(folder).exists() for *_, folder in told))
    assert not (tmp_path / "job-3").exists()
