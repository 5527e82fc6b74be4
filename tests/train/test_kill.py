"""A training run in a process of its own is killed again and again and resumed, against a real server.

The program has several inputs, and each process has another hash seed, so that nothing may depend on the order of a
set. A process kills itself when it has written so many events, in the middle of its work: no test waits and hopes.
"""

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

WORLD = Path(__file__).with_name("world.py")
ROOT = WORLD.parents[2]
CONCURRENCY = 6


def start(*arguments, hash_seed=0):
    return subprocess.Popen(
        [sys.executable, str(WORLD), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "PYTHONHASHSEED": str(hash_seed),
        },
    )


class Server:
    """The server process; `keys` asks it what it has received."""

    def __init__(self, process):
        self.process = process
        self.url = process.stdout.readline().strip()

    @property
    def keys(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextmanager
def serving():
    process = start("serve", 0.004)
    try:
        yield Server(process)
    finally:
        process.stdin.close()
        process.kill()
        process.wait(timeout=60)
        process.stdout.close()
        process.stderr.close()


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)


def lines(journal):
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def journalled(journal):
    events = [json.loads(line) for line in journal.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    return {event["key"] for event in events if event["kind"] == "call"}


def killed(process):
    """Wait until the process has killed itself."""
    _, err = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, err


@pytest.mark.parametrize("name", ["mipro", "tgd", "gepa"])
def test_killed_and_resumed_is_as_if_never_killed(name, tmp_path):
    rng = random.Random(f"{name} 1")
    journal = tmp_path / "killed" / "journal.jsonl"
    kills, seen = 3, []
    with serving() as server:  # one for both runs: the endpoint belongs to the key of a call
        whole = finish(start("train", name, server.url, tmp_path / "whole", CONCURRENCY, 0))
        sent = len(server.keys)
        unique = set(server.keys)
        assert sent == len(unique)  # nothing is sent twice without a kill either
        total = lines(tmp_path / "whole" / "journal.jsonl")
        for kill in range(kills):
            events = rng.randrange(3, total // (kills + 1))  # all together less than the whole run writes
            killed(start("train", name, server.url, tmp_path / "killed", CONCURRENCY, events, hash_seed=kill % 2))
            seen.append((Counter(server.keys[sent:]), journalled(journal)))
        resumed = finish(start("train", name, server.url, tmp_path / "killed", CONCURRENCY, 0, hash_seed=1))
        keys = server.keys[sent:]

    assert resumed["state"] == whole["state"]
    assert resumed["outcome"] == whole["outcome"]
    assert resumed["digest"] == whole["digest"]
    assert set(keys) == unique
    assert len(keys) <= len(unique) + kills * CONCURRENCY
    assert resumed["lost"] <= kills * CONCURRENCY
    assert resumed["lost"] == lost_in(journal)
    after = Counter(keys)
    for before, paid in seen:
        assert all(after[key] == before[key] for key in paid)  # no journalled call was sent again
    assert resumed["calls"] == whole["calls"] == len(unique)


def lost_in(journal):
    """Calls that were sent and of which nothing more was written before the process was killed."""
    flying, lost = Counter(), 0
    for line in journal.read_bytes().splitlines():
        event = json.loads(line)
        if event["kind"] == "send":
            flying[event["key"]] += 1
        elif event["kind"] in ("call", "fail"):
            del flying[event["key"]]
        elif event["kind"] == "process":
            lost += flying.total()
            flying.clear()
    return lost
