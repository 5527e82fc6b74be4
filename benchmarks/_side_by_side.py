"""Contestants side by side: each in a process of its own, one block at a time in turn, medians as JSON lines.

A benchmark is a script with a dict of contestants: name -> `prepare(params) -> block`, where `block()` does some work
and returns how many operations that was. `Fed(feed, work)` is a block whose data is made by `feed` before the clock
starts. The parent starts each contestant as a child process, lets them run their blocks in turn, and so gives all of
them the same weather. The server, where there is one, is a process of its own on another CPU. A contestant whose
package is not installed is skipped with the reason.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works in a checkout that is not installed

Block = Callable[[], int]
Prepare = Callable[[dict[str, Any]], Block]


class Fed:
    """A block of work on data that is new for each block and is there before the clock starts."""

    def __init__(self, feed: Callable[[], Any], work: Callable[[Any], int]) -> None:
        self.feed = feed
        self.work = work
        self.data: Any = None

    def prepare(self) -> None:
        """Make the data of the next block."""
        self.data = self.feed()

    def __call__(self) -> int:
        """Do the work."""
        return self.work(self.data)


CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
CLIENT, SERVER = (CPUS[0], CPUS[1]) if len(CPUS) > 1 else (None, None)


def options(description: str, blocks: int) -> argparse.Namespace:
    """Read the command line that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--blocks", type=int, default=blocks, help="blocks for each contestant")
    parser.add_argument("--quick", action="store_true", help="one tiny block of our own rows, to see that it runs")
    parser.add_argument("--only", default="", help="contestants whose name contains this")
    parser.add_argument("--child", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--params", default="{}", help=argparse.SUPPRESS)
    found = parser.parse_args()
    if found.quick:
        found.blocks = 1
    return found


def serve_blocks(contestants: Mapping[str, Prepare], name: str, params: dict[str, Any]) -> None:
    """Be a contestant: prepare, then run a block for each line on standard input."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what peers print is not ours
    if CLIENT is not None:
        os.sched_setaffinity(0, {CLIENT})

    def reply(**fields: Any) -> None:
        replies.write(json.dumps(fields) + "\n")
        replies.flush()

    try:
        block = contestants[name](params)
        feed = block.prepare if isinstance(block, Fed) else lambda: None
        feed()
        block()  # warms up
    except ImportError as error:
        reply(skipped=f"not installed: {error}")
        return
    except Exception as error:  # noqa: BLE001 - a peer that fails is a row that says so
        traceback.print_exc()
        reply(skipped=f"failed: {type(error).__name__}: {error}")
        return
    reply(ready=True)
    for _ in sys.stdin:
        feed()
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        count = block()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        reply(n=count, cpu=cpu, wall=wall, rss=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    replies.close()
    sys.stdout.flush()
    os._exit(0)  # peers' threads are not waited for


class Child:
    """A contestant's process, seen from the parent."""

    def __init__(self, script: str, name: str, params: dict[str, Any]) -> None:
        self.name = name
        self.blocks: list[dict[str, float]] = []
        self.skipped = ""
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - a pipe that nobody reads would fill
        command = [sys.executable, script, "--child", name, "--params", json.dumps(params)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True
        )
        first = self._read()
        if "skipped" in first:
            self.skipped = str(first["skipped"])

    def _read(self) -> dict[str, Any]:
        line = self.process.stdout.readline() if self.process.stdout else ""
        if line:
            return dict(json.loads(line))
        self.errors.seek(0)
        last = self.errors.read().strip().splitlines() or ["without a word"]
        return {"skipped": f"ended: {last[-1]}"}

    def block(self) -> None:
        """Run one block."""
        if self.process.stdin is not None and not self.skipped:
            try:
                self.process.stdin.write("\n")
                self.process.stdin.flush()
            except BrokenPipeError:
                self.skipped = "its process ended"
                return
            reply = self._read()
            if "skipped" in reply:
                self.skipped = str(reply["skipped"])
            else:
                self.blocks.append(reply)

    def close(self) -> None:
        """End the process."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.errors.close()

    def per_operation(self, what: str) -> list[float]:
        """Seconds an operation in each block: `what` is "cpu" or "wall"."""
        return [block[what] / block["n"] for block in self.blocks]


def contest(
    script: str,
    names: list[str],
    params: dict[str, Any],
    blocks: int,
    only: str = "",
    most: Mapping[str, int] | None = None,
) -> dict[str, Child]:
    """Run the named contestants block by block in turn; return them with what they measured.

    `most` says how many blocks at most some of them run: those that would take minutes.
    """
    fewer = most or {}
    children: dict[str, Child] = {}
    try:
        for name in names:
            if only in name:
                children[name] = Child(script, name, params)
        for number in range(blocks):
            for name, child in children.items():
                if number < fewer.get(name, blocks):
                    child.block()
    finally:
        for child in children.values():
            child.close()
    return children


def calibration() -> float:
    """Milliseconds that a fixed piece of pure Python takes now: how busy the machine is."""
    times = []
    for _ in range(5):
        start = time.process_time()
        total = 0
        for number in range(20_000):
            total += number * number % 7
        times.append(time.process_time() - start)
    return round(1e3 * statistics.median(times), 3)


def commit() -> str:
    """The commit that is measured."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def installed(*packages: str) -> dict[str, str]:
    """The versions of the packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def say(**fields: Any) -> None:
    """Print one JSON line."""
    print(json.dumps(fields), flush=True)


def header(bench: str, **more: Any) -> None:
    """Print what was measured, where and when."""
    say(
        bench=bench,
        commit=commit(),
        python=platform.python_version(),
        versions=installed("aiohttp", "dspy", "litellm", "httpx", "openai", "pydantic", "optuna", "textgrad"),
        cpus=len(CPUS) or os.cpu_count(),
        load=round(os.getloadavg()[0], 2),
        calibration_ms=calibration(),
        **more,
    )


def median(values: list[float]) -> float:
    """The median."""
    return statistics.median(values)


def report(
    bench: str,
    case: str,
    children: Mapping[str, Child],
    *,
    what: str = "cpu",
    unit: str = "us",
    base: str | None = None,
    less: str | None = None,
    targets: Mapping[str, tuple[str, Callable[[float, float], bool]]] | None = None,
) -> None:
    """Print one line a contestant.

    `ratio` is to `base`: the median, over the rounds, of the two blocks that ran next to each other. With `less` it is
    that of what both need beyond this contestant in the same round, and a line has its median (`over_us`). `targets`
    maps a contestant to the words of its target and a test of (median in `unit`, ratio).
    """
    scale, digits = {"us": (1e6, 1), "ms": (1e3, 2), "s": (1.0, 3)}[unit]
    floor = children[less].per_operation(what) if less in children else []

    def beyond(child: Child) -> list[float]:
        each = child.per_operation(what)
        return [mine - least for mine, least in zip(each, floor, strict=False)] if floor else each

    reference = beyond(children[base]) if base in children else []
    for name, child in children.items():
        if child.skipped:
            say(bench=bench, case=case, who=name, skipped=child.skipped)
            continue
        each = child.per_operation(what)
        middle = median(each) * scale
        line: dict[str, Any] = {
            "bench": bench,
            "case": case,
            "who": name,
            f"{what}_{unit}": round(middle, digits),
            "low": round(min(each) * scale, digits),
            "high": round(max(each) * scale, digits),
            f"{'wall' if what == 'cpu' else 'cpu'}_{unit}": round(
                median(child.per_operation("wall" if what == "cpu" else "cpu")) * scale, 2
            ),
            "n": int(child.blocks[0]["n"]),
            "blocks": len(child.blocks),
            "rss_mb": round(child.blocks[-1]["rss"] / 1024),
        }
        ratio = float("nan")
        if floor and name != less:
            line[f"over_{unit}"] = round(median(beyond(child)) * scale, digits)
        if reference and name != less:
            ratio = median([mine / theirs for mine, theirs in zip(beyond(child), reference, strict=False)])
            line[f"x_{base}"] = round(ratio, 3)
        if targets and name in targets:
            words, test = targets[name]
            line["target"], line["meets"] = words, bool(test(middle, ratio))
        say(**line)
