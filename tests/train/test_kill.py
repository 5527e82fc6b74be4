"""A training run in a process of its own is killed at random moments and resumed, against a real server."""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

WORLD = Path(__file__).with_name("world.py")
ROOT = WORLD.parents[2]
CONCURRENCY = 6


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, str(WORLD), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )


class Server:
    """The server process; `keys` asks it what it has received."""

    def __init__(self, process):
        self.process = process
        self.url = process.stdout.readline().strip()
        self.port = int(self.url.rsplit(":", 1)[1].split("/")[0])

    @property
    def keys(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextmanager
def serving(port=0):
    process = start("serve", 0.004, port)
    try:
        yield Server(process)
    finally:
        process.stdin.close()
        process.kill()
        process.wait(timeout=10)
        process.stdout.close()
        process.stderr.close()


def finish(process):
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return json.loads(out)


def lines(journal):
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def journalled(journal):
    events = [json.loads(line) for line in journal.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    return {event["key"] for event in events if event["kind"] == "call"}


def kill_at(process, journal, wanted):
    """Kill the process once the journal has so many lines; says whether it was still running."""
    deadline = time.monotonic() + 60
    while lines(journal) < wanted and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    alive = process.poll() is None
    process.kill()
    process.communicate(timeout=10)
    return alive


@pytest.mark.parametrize("name", ["mipro", "tgd"])
def test_killed_and_resumed_is_as_if_never_killed(name, tmp_path):
    with serving() as server:
        whole = finish(start("train", name, server.url, tmp_path / "whole", CONCURRENCY))
        unique = set(server.keys)
        assert len(server.keys) == len(unique)  # nothing is sent twice without a kill either
    total = lines(tmp_path / "whole" / "journal.jsonl")

    rng = random.Random(f"{name} 1")
    moments = sorted(rng.randrange(3, total) for _ in range(3))
    journal = tmp_path / "killed" / "journal.jsonl"
    kills, seen = 0, []
    with serving(server.port) as server:  # the endpoint belongs to the key of a call
        for moment in moments:
            process = start("train", name, server.url, tmp_path / "killed", CONCURRENCY)
            kills += kill_at(process, journal, moment)
            seen.append((Counter(server.keys), journalled(journal)))
        resumed = finish(start("train", name, server.url, tmp_path / "killed", CONCURRENCY))
        keys = server.keys

    assert kills >= 2
    assert resumed["state"] == whole["state"]
    assert resumed["outcome"] == whole["outcome"]
    assert resumed["digest"] == whole["digest"]
    assert set(keys) == unique
    assert len(keys) <= len(unique) + kills * CONCURRENCY
    assert resumed["lost"] <= kills * CONCURRENCY
    after = Counter(keys)
    for before, paid in seen:
        assert all(after[key] == before[key] for key in paid)  # no journalled call was sent again
    assert resumed["calls"] == whole["calls"] == len(unique)
