"""Training runs killed at random moments and resumed: each must end as its twin that was never killed.

    python benchmarks/kills.py [--kills 200] [--optimizers ...] [--seeds 1000] [--jobs 2] [--out FILE]
    python benchmarks/kills.py --table [--out FILE]

A case is an optimizer, one of two programs with several modules and inputs, and drawn settings: `Trainer` or
`compile`, a budget of calls, tokens, money or seconds or none, a disk cache or none, a metric that is judged by a
language model or is not. `BootstrapFinetune` trains the weights of the embedded model on what a teacher at the server
says. It is run twice against a real server on loopback: once undisturbed, and once in processes that are ended by
SIGKILL, until one comes to the end. Each process has another PYTHONHASHSEED and another concurrency. A kill comes at a
moment drawn uniformly from the time that the twin took, every fourth from its first tenth, as when a resumed run is
killed at once. (`--by calls` counts requests at the server instead of seconds, so that no machine is too slow.)

A fifth of the requests meet a fault: status 500, 503, 429 with and without Retry-After, a lost connection, half a
body, a page of HTML, silence for a while. Which ones is drawn anew for each time that a request is sent, so the twin
and the killed run meet others, and retries overcome them all. Two prompts in a hundred are refused for good, one by a
filter and one with "no such model": that depends on the prompt alone, as all that the simulated model answers does.
In a quarter of the cases a request is refused for good when it is sent, not what it asks; in a seventh, two requests in
a hundred are never answered, and the model has a `timeout=`; some have a budget of seconds. Then there is no twin to
compare with, as the run goes on without other replies, or comes less far; it must come to its end, and to the same one
when it is resumed. Where silences, or a machine that is too slow for the `timeout=`, make a run take its language model
for down, it stops, as it should, and is resumed.

What must be the same: all parameter values and the saved files to the byte; the report, with budget and history, but
without times and what was sent, failed or lost on the way; and the canonical journal. And at the server: no request
whose reply was in the journal at a kill comes again; no more is repeated than the report says was lost; and resuming
the finished run sends nothing. The runs of `save` are one process that saves two programs in turn into one place:
whoever loads after a kill must find one of them whole, and the next save must leave nothing else.

Prints one JSON line; --out has a line for each case and is where a stopped study goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _killed import STOPPED
from _study import numbers, options, read, study

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results" / "kills.jsonl"
OPTIMIZERS = ("BootstrapFewShot", "MIPRO", "TGD", "GEPA", "Auto")
TRAINED = ("BootstrapFinetune",)
"""Those that train the weights of a local model."""
SHARE = 0.2
"""Share of requests that meet a fault which passes."""
REFUSED = 0.01
"""Share of prompts that a filter refuses, and of those for which there is no model."""
SILENT = 0.02
"""Share of requests that are never answered, where the language model has a `timeout=`."""
MOST = 8
"""Kills of one run after which it is left to end."""


@dataclass(frozen=True)
class Job:
    """One case: its settings follow from the optimizer's name and the seed."""

    optimizer: str
    seed: int
    by: str = "seconds"
    most: int = MOST

    def case(self) -> dict[str, Any]:
        """The settings."""
        if self.optimizer in TRAINED:
            return self._local()
        rng = random.Random(f"case {self.optimizer} {self.seed}")
        budget = rng.choice([{}, {"calls": rng.randrange(150, 500)}, {"tokens": rng.randrange(15_000, 60_000)}])
        entry = rng.choice(["fit", "compile"])
        case: dict[str, Any] = {
            "optimizer": self.optimizer,
            "seed": self.seed,
            "program": ("chain", "branch")[self.seed % 2],
            "entry": entry,
            "budget": rng.choice([budget, budget, budget, {"usd": rng.uniform(0.02, 0.08)}]),
            "outages": rng.random() < 0.25,
            "cache": rng.random() < 0.3,
            "judged": rng.random() < 0.25,
            "ship": "significant" if entry == "fit" and rng.random() < 0.3 else 0.9,
            "objectives": {"tokens": "min"} if entry == "fit" and rng.random() < 0.3 else {},
            "concurrency": 6,
            "timeout": rng.uniform(0.3, 0.6) if rng.random() < 0.15 else 0.0,
        }
        if rng.random() < 0.12:
            case["budget"] = {"seconds": rng.uniform(1.0, 5.0)}
        return case

    def _local(self) -> dict[str, Any]:
        """A training of the embedded model's weights on what a teacher at the server says."""
        return {
            "optimizer": self.optimizer,
            "seed": self.seed,
            "program": "local",
            "entry": ("fit", "compile")[self.seed % 2],
            "budget": {},
            "outages": False,
            "cache": self.seed % 3 == 0,
            "judged": False,
            "ship": 0.9,
            "objectives": {},
            "concurrency": 6,
            "timeout": 0.0,
        }


def is_free(case: Mapping[str, Any]) -> bool:
    """Whether an undisturbed run may end otherwise: what is refused, or how far it comes, is a matter of time."""
    return bool(case["outages"] or case.get("timeout") or "seconds" in case["budget"])


# -- the server -------------------------------------------------------------------------------------------------------


class Flaky:
    """The server's answers: those of the simulated model, with faults.

    Args:
        seed: What the faults that pass are drawn from.
        outages: Whether a request is refused for good when it is sent, not for what it asks.
        silences: Whether some requests are never answered.

    Attributes:
        fates: What became of each request, in the order of arrival: "" where it was answered.
    """

    def __init__(self, seed: object, *, outages: bool, silences: bool = False) -> None:
        self.seed = seed
        self.outages = outages
        self.silences = silences
        self.fates: list[str] = []
        self._times: Counter[str] = Counter()

    def __call__(self, messages: Sequence[dict[str, Any]]) -> Any:
        from promptgrad.testing import Cut, Delay, Drop, Garbage, Hang, Status

        told = re.sub(r"http://127\.0\.0\.1:\d+", "http://server", json.dumps(messages))  # errors name the server
        digest = hashlib.sha256(told.encode()).hexdigest()
        self._times[digest] += 1
        fixed, drawn = random.Random(digest), random.Random(f"{self.seed} {digest} {self._times[digest]}")
        refused = (drawn if self.outages else fixed).random()
        if refused < REFUSED:
            self.fates.append("filter")
            return Status(400, message="filtered", kind="content_filter")
        if refused < 2 * REFUSED:
            self.fates.append("no model")
            return Status(404, message="no such model", kind="model_not_found")
        if self.silences and drawn.random() < SILENT:
            self.fates.append("silence")
            return Hang()
        reply, wait = answer(messages, fixed.randrange(256)), drawn.uniform(0.001, 0.008)
        faults = {
            "500": Status(500),
            "503": Status(503),
            "429": Status(429),
            "429, Retry-After": Status(429, retry_after=drawn.uniform(0.01, 0.04)),
            "reset": Drop(),
            "half a body": Cut(drawn.random(), reply),
            "HTML": Garbage(),
            "slow": Delay(drawn.uniform(0.02, 0.1), reply),
        }
        fate = drawn.choice(list(faults)) if drawn.random() < SHARE else ""
        self.fates.append(fate)
        return Delay(wait, faults.get(fate, reply))


def answer(messages: Sequence[Any], drawn: int) -> str:
    """The reply of the simulated model: that of the contract suite's small world, and for two fields our own."""
    from promptgrad.testing import _small_world as small
    from promptgrad.testing._fields import asked_of, inputs_of

    asked, given = [name for name, _ in asked_of(messages)], inputs_of(messages[-1])
    if asked == ["route"]:
        value = ("left", "right")[len(given["text"]) % 2]
    elif asked == ["verdict"]:
        value = str(given["given"] == given["expected"]).lower()
    else:
        return small.answer(messages, drawn)
    return f"[[ ## {asked[0]} ## ]]\n{value}\n\n[[ ## completed ## ]]"


# -- processes --------------------------------------------------------------------------------------------------------


@dataclass
class Runs:
    """The processes of one run, in one folder."""

    job: Job
    case: Mapping[str, Any]
    server: Any
    folder: Path
    rng: random.Random
    wrong: list[str] = field(default_factory=list)
    kills: list[str] = field(default_factory=list)
    stops: int = 0

    @property
    def journal(self) -> Path:
        return self.folder / "run" / "journal.jsonl"

    def start(self) -> subprocess.Popen[str]:
        """Start a process that begins the run or goes on with it, and wait until it does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        case = {**self.case, "concurrency": self.rng.randrange(1, 9)}
        arguments = [json.dumps(case), self.server.url, str(self.folder / "run"), str(self.folder)]
        paths = [str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]
        with (self.folder / "stderr").open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, str(FOLDER / "_killed.py"), *arguments],
                stdin=subprocess.PIPE,  # it ends with this process
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                    "PYTHONHASHSEED": str(self.rng.randrange(1 << 32)),
                },
            )
        with process.stdout or open(os.devnull) as told:
            if told.readline() != "ready\n":
                raise RuntimeError(f"the process did not begin: {(self.folder / 'stderr').read_text()[-12000:]}")
        return process

    def end(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """Wait for its end, and return what it told."""
        from promptgrad.run import Journal

        code = _ended(process, 600)
        while code == STOPPED and self.stops < MOST:
            self.stops += 1
            code = _ended(self.start(), 600)
        if code:
            raise RuntimeError(f"a process ended with {code}: {(self.folder / 'stderr').read_text()[-12000:]}")
        told: dict[str, Any] = json.loads((self.folder / "told.json").read_text())
        saved = [self.folder / "state.json", *sorted((self.folder / "program").iterdir())]
        told["files"] = {path.relative_to(self.folder).as_posix(): _content(path) for path in saved if path.is_file()}
        told["canonical journal"] = Journal(self.journal, readonly=True).canonical()
        return told

    def kill(self, process: subprocess.Popen[str], moment: float, by: str) -> bool:
        """Kill a process after so many seconds or requests; False if it came to its end before."""
        if by == "seconds":
            try:
                process.wait(timeout=moment)
            except subprocess.TimeoutExpired:
                process.kill()
        else:
            until = self.server.received + moment
            while process.poll() is None and self.server.received < until:
                time.sleep(0.001)
            process.kill()
        return _ended(process, 60) == -signal.SIGKILL

    def events(self) -> list[dict[str, Any]]:
        """The whole lines of the journal."""
        lines = self.journal.read_bytes().splitlines(keepends=True) if self.journal.exists() else []
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def paid(self) -> set[str]:
        """Keys of the calls whose replies are in the journal."""
        return {event["key"] for event in self.events() if event["kind"] == "call"}


def _ended(process: subprocess.Popen[str], seconds: float) -> int:
    """Wait for the end of a process; its exit status."""
    code = process.wait(timeout=seconds)
    if process.stdin is not None:
        process.stdin.close()
    return code


def _content(path: Path) -> str:
    """The text of a file, or the digest of one with weights."""
    data = path.read_bytes()
    return data.decode() if path.suffix == ".json" else hashlib.sha256(data).hexdigest()


def sent_again(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys of the calls that were sent when their reply was in the journal, also those of a local model."""
    paid: set[str] = set()
    again = []
    for event in events:
        if event["kind"] == "call":
            paid.add(event["key"])
        elif event["kind"] == "send" and event["key"] in paid:
            again.append(event["key"])
    return again


def lost_in(events: Sequence[Mapping[str, Any]]) -> int:
    """Calls that were in flight when their process ended: nothing more was written of them, nor of the run."""
    flying: Counter[str] = Counter()
    lost = given_up = 0
    for event in events:
        if event["kind"] == "send":
            flying[event["key"]] += 1
        elif event["kind"] in ("call", "fail") and "row" not in event:
            flying.pop(event["key"], None)
            given_up += event.get("lost") is True
        elif "seq" in event:  # the run went on without what was given up
            given_up = 0
        elif event["kind"] == "process":
            lost += flying.total() + given_up
            given_up = 0
            flying.clear()
    return lost + given_up


def do(job: Job) -> list[dict[str, Any]]:
    """Run one case; its line."""
    from promptgrad.testing import LoopbackLM

    rng = random.Random(f"{job.optimizer} {job.seed}")
    case = job.case()
    flaky = Flaky(f"{job.optimizer} {job.seed}", outages=case["outages"], silences=case["timeout"] > 0)
    with tempfile.TemporaryDirectory() as folder, LoopbackLM(flaky) as server:
        if job.optimizer == "save":
            line = saved(Runs(job, case, server, Path(folder), rng))
        else:
            twin, killed = (Runs(job, case, server, Path(folder) / name, rng) for name in ("twin", "killed"))
            line = compared(twin, killed, flaky)
    return [{**{name: value for name, value in case.items() if name != "concurrency"}, "by": job.by, **line}]


def compared(twin: Runs, killed: Runs, flaky: Flaky) -> dict[str, Any]:
    """Run the twin, then the run that is killed; what was found."""
    server, job, rng, wrong = twin.server, twin.job, twin.rng, killed.wrong
    process, begun = twin.start(), time.monotonic()
    whole = twin.end(process)
    seconds, calls = time.monotonic() - begun, server.received
    paid: list[tuple[int, set[str]]] = []
    before = server.received
    told: dict[str, Any] | None = None
    while told is None:
        process = killed.start()
        span = seconds if job.by == "seconds" else calls
        moment = rng.uniform(0, span / 10 if rng.random() < 0.25 else span)
        if len(killed.kills) < job.most and killed.kill(process, moment, job.by):
            found = killed.paid()
            paid.append((server.received, found))
            killed.kills.append(_where(killed, len(found), len(twin.paid())))
        else:
            told = killed.end(process)
    asked = [request.headers.get("idempotency-key", "") for request in server.requests]
    for place, keys in paid:
        again = [key for key in asked[place:] if key in keys]
        wrong += [f"{len(again)} journalled calls were sent again, such as {again[0]}"] if again else []
    if found := sent_again(killed.events()):
        wrong.append(f"the journal has {len(found)} calls that were sent after their reply, such as {found[0]}")
    answered = Counter(
        key for key, fate in zip(asked[before:], flaky.fates[before:], strict=True) if fate in ("", "slow")
    )
    repeated = sum(answered.values()) - len(answered)
    lost = lost_in(killed.events())
    if told["lost"] not in (None, lost) or repeated > lost:
        wrong.append(f"{lost} calls were lost and {repeated} answered twice, and the report says {told['lost']}")
    wrong += [] if is_free(twin.case) else differences(whole, told)
    sent = server.received
    again = killed.end(killed.start())
    if server.received != sent:
        wrong.append(f"the finished run sent {server.received - sent} requests when it was resumed")
    wrong += [f"resumed once more: {text}" for text in differences(told, again)]
    fates = Counter(flaky.fates)
    return {
        "kills": len(killed.kills),
        "where": killed.kills,
        "stops": twin.stops + killed.stops,
        "calls": len(twin.paid()),
        "outcome": whole["report"]["outcome"].strip("'"),
        "requests": len(flaky.fates),
        "faults": {name: count for name, count in sorted(fates.items()) if name},
        "lost": lost,
        "repeated": repeated,
        "wrong": wrong,
    }


def _where(run: Runs, done: int, all_of: int) -> str:
    """Where a kill fell: before the run was begun, at which tenth of its calls, or after the last one."""
    if not (run.folder / "run" / "run.json").exists():
        return "start"
    if done < all_of:
        return f"{10 * done // all_of}"
    return "saving" if any(run.folder.glob("program*")) else "end"


def differences(whole: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[str]:
    """Everything in which two runs did not end alike."""
    from promptgrad.testing._runs import difference

    for name in ("files", "report", "canonical journal"):
        if whole[name] != told[name]:
            yield f"{name}: {difference(whole[name], told[name])}"


def saved(run: Runs) -> dict[str, Any]:
    """Kill a process that saves two programs in turn, again and again; what was found."""
    import _killed

    import promptgrad as pg

    wanted = [_killed.state_of(number).state_dict() for number in (0, 1)]
    for _ in range(run.job.most):
        run.kill(run.start(), run.rng.uniform(0, 0.3), "seconds")
        places = [place for place in ("program/state.json", "state.json") if (run.folder / place).exists()]
        run.kills.append("saving" if places else "start")
        for place in places:
            try:
                found = pg.load((run.folder / place).parent if "/" in place else run.folder / place)
            except (OSError, pg.errors.StateDictError) as error:
                run.wrong.append(f"{place}: {type(error).__name__}: {error}"[:500])
                continue
            if found not in wanted:
                run.wrong.append(f"{place} is neither of the two programs")
    pg.save(_killed.state_of(0), run.folder / "program")
    pg.save(_killed.state_of(0).state_dict(), run.folder / "state.json")
    left = sorted(path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file())
    if left != ["program/state.json", "state.json", "stderr"]:
        run.wrong.append(f"after the last save there are {left}")
    return {"kills": len(run.kills), "where": run.kills, "wrong": run.wrong}


# -- the study --------------------------------------------------------------------------------------------------------


def summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The line that is published."""
    trained = [line for line in lines if line["optimizer"] != "save"]
    fates = Counter({"": sum(line["requests"] for line in trained)})
    for line in trained:
        fates.update(line["faults"])
    refused = sum(fates[name] for name in ("filter", "no model"))
    faults = fates.total() - fates[""] - refused - fates["silence"]
    return {
        "bench": "kills",
        "kills": {
            name: sum(line["kills"] for line in lines if line["optimizer"] == name)
            for name in dict.fromkeys(line["optimizer"] for line in lines)
        },
        "all": sum(line["kills"] for line in trained),
        "runs": len(trained),
        "compared with a twin": sum(not is_free(line) for line in trained),
        "limited by seconds": sum("seconds" in line["budget"] for line in trained),
        "with silences": sum(line.get("timeout", 0) > 0 for line in trained),
        "stopped": sum(line.get("stops", 0) for line in trained),
        "where": dict(sorted(Counter(where for line in trained for where in line["where"]).items())),
        "calls": sum(line["calls"] for line in trained),
        "requests": fates[""],
        "faults": round(faults / max(1, fates[""]), 3),
        "refused": round(refused / max(1, fates[""]), 3),
        "lost": sum(line["lost"] for line in trained),
        "repeated": sum(line["repeated"] for line in trained),
        "outcomes": dict(sorted(Counter(line["outcome"] for line in trained).items())),
        "wrong": sum(bool(line["wrong"]) for line in lines),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("--kills", type=int, default=200, help="kills of training runs, over all optimizers")
    about.add_argument("--optimizers", default=",".join((*OPTIMIZERS, *TRAINED)))
    about.add_argument("--seeds", default="1000:1200", help="taken in this order until there are enough kills")
    about.add_argument("--saves", type=int, default=40, help="kills in the middle of `save`")
    about.add_argument("--by", choices=("seconds", "calls"), default="seconds", help="what the moments are drawn from")
    options(about, RESULTS, "table")
    given = about.parse_args(arguments)
    names, failed = given.optimizers.split(","), 0
    if not given.table:
        ways: dict[str, Any] = {
            "job_key": lambda job: (job.optimizer, job.seed),
            "line_key": lambda line: (line["optimizer"], line["seed"]),
            "ours": lambda line: True,
            "mixed": given.mixed,
        }
        jobs = [Job("save", 1000, most=given.saves)] if given.saves else []
        for seed in numbers(given.seeds):
            made = Counter[str]()
            for line in read(given.out):
                made[line["optimizer"]] += line["kills"]
            jobs += [Job(name, seed, given.by) for name in names if made[name] < given.kills / len(names)]
            if jobs:
                failed += study(do, jobs, given.out, given.jobs, **ways, done=_say)
            jobs = []
    lines = read(given.out)
    print(json.dumps(summary(lines)))
    return int(failed > 0 or any(line["wrong"] for line in lines))


def _say(line: Mapping[str, Any]) -> None:
    print(f"{line['optimizer']} {line['seed']}: {line['kills']} kills {line['wrong'] or ''}", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
