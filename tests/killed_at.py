"""Work with files and a server whose process is killed at chosen moments, and begun anew until it is done."""

import json
import os
import signal
import subprocess
import sys

HARNESS = """
import json, os, signal, sys
from pathlib import Path

url, folder, moments = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])

def watch(kill):
    replace, count = os.replace, [0]

    def watched(*paths):  # the process dies right before, or right after, a file is there
        count[0] += 1
        here = kill[0] == "replace" and count[0] == kill[1]
        if here and kill[2] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*paths)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = watched
    (folder / "plan.json").write_text(json.dumps([os.getpid(), *kill]))
"""

LOOP = """
for moment in moments:
    name = "-".join(map(str, moment))
    for kill in (moment, ["never", 0, ""]):
        pid = os.fork()
        if not pid:
            try:
                watch(kill)
                work(name)
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        print(json.dumps([name, kill[0], os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0]), flush=True)
"""


def killed_at(moments, work, server, jobs, folder):
    """Do work once for each moment: killed there, and then again to its end.

    Args:
        moments: ["replace" or "request", which of them, "before" or "after"]: when a process dies.
        work: Source that defines `work(name)`, and uses `url` and `folder`.
        server: The server, with its `jobs`.
        folder: Where the work keeps what it must not lose.
    """
    state = {"pid": 0, "count": 0}

    def strike(when):
        pid, kind, number, moment = json.loads((folder / "plan.json").read_text())
        if pid != state["pid"]:
            state.update(pid=pid, count=0)
        state["count"] += when == "before"
        if kind == "request" and (state["count"], when) == (number, moment):
            os.kill(pid, signal.SIGKILL)

    jobs.before, jobs.after = (lambda told: strike("before")), (lambda told: strike("after"))
    done = subprocess.run(
        [sys.executable, "-c", HARNESS + work + LOOP, server.url, str(folder), json.dumps(moments)],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [ended for _, kind, ended in told if kind != "never"] == [signal.SIGKILL] * len(moments), done.stderr
    assert not [line for line in told if line[1] == "never" and line[2]]
