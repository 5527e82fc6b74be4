"""What whole runs ship, report and spend: `Trainer.fit` in simulated worlds, where fresh rows are not scarce.

    python benchmarks/calibrate_runs.py --seeds 1000:1020 --out runs.jsonl       # also prints the summary
    python benchmarks/calibrate_runs.py --summary --out runs.jsonl
    python benchmarks/calibrate_runs.py --latency 0.05 --seeds 1000:1004 --optimizers tgd,gepa,mipro --out busy.jsonl

The language models are simulated, see worlds/README.md. `calibrate_ship.py` simulates searches; here they are real, and
the program is scored on 1,000 fresh rows before and after. One JSON line a world, and one of all:

- `worse`: share of the runs that leave the program with fewer of the fresh rows right than it began with. In N1, where
  no prompt is better or worse than another, that is half of the runs that ship.
- `reported minus true`: the reported gain less that on the fresh rows, mean over the runs that shipped.
- `overshoot`: most calls beyond the budget, as the server counted them.
- `busy`: with `--latency`, the share of the time from the first call of `fit` to the last in which at least one call
  was at the server, mean over runs, by optimizer, as it would be on a machine without other load: a stretch without
  calls counts with the CPU that the process took in it, one with calls with that or the latency, whichever is longer.
  `busy on the clock` is the same by the clock of the machine as it was.

Every run appends one line to the file; runs that have one are not repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from statistics import mean
from typing import Any

from _study import numbers, options, read, study
from bench_optimizers import CLASSES, available, train
from worlds import make

Run = tuple[str, int, int, str, float, int]  # world, seed, budget, optimizer, latency, fresh rows


def one_run(run: Run) -> list[dict[str, Any]]:
    """Do one run and give its line."""
    import promptgrad as pg

    name, seed, budget, optimizer, latency, fresh = run
    world = make(name, seed)
    with (server := world.serve(latency=latency)) as url:
        program, result, seconds = train(world, url, optimizer, seed, budget, concurrency=64)
        spent, stretches = server.total, server.stretches
        server.latency = 0.0

        def score(module: Any) -> float:
            return float(pg.evaluate(module, world.test[:fresh], metric=world.metric, progress=False).score)

        true = 0.0
        if result.shipped and fresh:  # else the program is what it was
            start = world.program(url)
            true = score(result.program or program) - score(start)
    means = [trial.score for trial in result.history if trial.candidate.key == result.candidate.key]
    line = {
        "simulated": True,
        "world": name,
        "seed": seed,
        "budget": budget,
        "optimizer": optimizer,
        "latency": latency,
        "outcome": result.outcome,
        "shipped": result.shipped,
        "chance": None if result.gain is None else round(result.gain.chance, 4),
        "reported": None if result.gain is None else round(result.gain.mean, 4),
        "measured": None if result.before is None or not means else round(means[-1] - result.before.mean, 4),
        "true": round(true, 4),
        "spent": spent,
        "seconds": round(seconds, 3),
        "busy": _share([(busy, max(latency, cpu) if busy else cpu) for busy, _, cpu in stretches]),
        "busy on the clock": _share([(busy, wall) for busy, wall, _ in stretches]),
        "notes": [note for note in result.notes if note.startswith("scores vary")],
    }
    return [line]


def _share(stretches: Sequence[tuple[bool, float]]) -> float:
    """The share of the busy ones in the time of all stretches."""
    return round(sum(time for busy, time in stretches if busy) / max(1e-9, sum(time for _, time in stretches)), 3)


def summary(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line for each world, and one for all."""
    lines = list(lines)
    names = dict.fromkeys(sorted(line["world"] for line in lines))
    groups = {name: [line for line in lines if line["world"] == name] for name in names}
    return [_summed(name, group) for name, group in ({**groups, "all": lines}).items() if group]


def _summed(world: str, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    shipped = [line for line in lines if line["shipped"]]
    found: dict[str, Any] = {
        "simulated": True,
        "world": world,
        "runs": len(lines),
        "ships": round(len(shipped) / len(lines), 4),
        "worse": round(mean(line["true"] < 0 for line in lines), 4),
        "gain": round(mean(line["true"] for line in lines), 4),
        "reported minus true": round(mean(line["reported"] - line["true"] for line in shipped), 4) if shipped else None,
        "overshoot": max(0, *(line["spent"] - line["budget"] for line in lines)),
        "spent": round(mean(line["spent"] / line["budget"] for line in lines), 3),
    }
    waited = [line for line in lines if line["latency"]]
    if waited:
        kinds = dict.fromkeys(sorted(line["optimizer"] for line in waited))
        for name in ("busy", "busy on the clock"):
            found[name] = {
                kind: round(mean(line[name] for line in waited if line["optimizer"] == kind), 3) for kind in kinds
            }
    return found


def _key(line: dict[str, Any]) -> tuple[str, int, int, str, float]:
    return line["world"], line["seed"], line["budget"], line["optimizer"], line["latency"]


def main() -> int:
    """Do the runs, and print one JSON line a world."""
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("--world", default="W1,W2,W4,N1,N2")
    about.add_argument("--budget", default="200,600", help="LM calls")
    about.add_argument("--seeds", default="1000:1004", help="first:end or a list; 0 to 99 are for reported runs")
    about.add_argument("--optimizers", default="tgd,gepa,auto", help=f"of {', '.join(CLASSES)}")
    about.add_argument("--latency", type=float, default=0.0, help="seconds before every reply")
    about.add_argument("--fresh", type=int, default=1000, help="rows that are scored before and after")
    options(about, None, "summary")
    given = about.parse_args()
    failed = 0
    if not given.summary:
        runs = [
            (world, seed, budget, name, given.latency, given.fresh)
            for seed in numbers(given.seeds)
            for budget in numbers(given.budget)
            for world in given.world.split(",")
            for name in available(given.optimizers.split(","))
        ]
        failed = study(
            one_run,
            runs,
            given.out,
            given.jobs,
            job_key=lambda run: run[:5],
            line_key=_key,
            ours=lambda line: True,
            mixed=given.mixed,
        )
    for line in summary(read(given.out)):
        print(json.dumps(line))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
