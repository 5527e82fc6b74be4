"""Optimizers at equal LM calls, in simulated worlds: ours and the real dspy, gepa and textgrad packages.

    make bench-optimizers ARGS="--world W2 --budget 600 --seeds 1000:1008 --optimizers tgd,gepa-peer"
    make bench-optimizers ARGS="--table --out results.jsonl"

Every run appends one JSON line: the held-out score of what the optimizer left in the program, on fresh rows, the calls
that the server counted, the seconds, and those of CPU, the world's included. Runs that have a line are not repeated, so
a killed study goes on where it stopped, unless promptgrad or the worlds have changed (`--mixed`). Simulated LMs: see
worlds/README.md. Seeds 0 to 99 are for reported runs; develop on 1000 and up.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from statistics import mean
from typing import Any

from _study import numbers, options, read, study
from worlds import NAMES, World, make

OURS = ("auto", "tgd", "tgd-critic", "gepa", "mipro", "random", "bootstrap")
PEERS = ("gepa-peer", "gepa-peer-8", "mipro-peer", "random-peer", "textgrad", "textgrad-8")
BUDGETS = (200, 600, 2000)
CLASSES = {
    "auto": "Auto",
    "tgd": "TGD",
    "tgd-critic": "TGD",
    "gepa": "GEPA",
    "mipro": "MIPRO",
    "random": "RandomSearch",
    "bootstrap": "BootstrapFewShot",
}
OPTIONS: dict[str, dict[str, Any]] = {"tgd-critic": {"blame": "critic"}}
DEFAULT_OUT = Path(__file__).resolve().parent / "results" / "optimizers" / "runs.jsonl"

Answer = Callable[[Any], str]
Run = tuple[str, int, int, str, int]  # world, seed, budget, optimizer, fresh rows


def held_out(world: World, answer: Answer, fresh: int) -> float:
    """The mean score on fresh rows, which are asked side by side."""
    rows = world.rows["test"][:fresh]
    contexts = [copy_context() for _ in rows]  # what a peer has set holds in threads too
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda context, row: context.run(answer, row), contexts, rows))
    return mean(world.judge(row, given)[0] for row, given in zip(rows, answers, strict=True))


def train(world: World, url: str, name: str, seed: int, budget: int, **options: Any) -> Any:
    """Train with one of our optimizers, as its defaults are; the program, the result, and the seconds that it took."""
    import promptgrad as pg
    from promptgrad import optim

    program = world.program(url)
    writer = world.lm(url, "writer")  # who writes also criticises, as with the peers: no critic is named
    made = getattr(optim, CLASSES[name])
    writers = {} if name in ("random", "bootstrap") else {"lm": writer, **OPTIONS.get(name, {})}
    optimizer = made(program.parameters(), **writers)
    trainer = pg.Trainer(
        program,
        optimizer,
        metric=world.metric,
        budget=pg.Budget(calls=budget),
        seed=seed,
        progress=False,
        **options,
    )
    began = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = trainer.fit(world.train, world.val)
    return program, result, time.monotonic() - began


def run_ours(world: World, url: str, server: Any, name: str, seed: int, budget: int, fresh: int) -> dict[str, Any]:
    """Train with one of our optimizers."""
    import promptgrad as pg

    program, result, _ = train(world, url, name, seed, budget)
    calls = dict(server.counts)
    rows = world.test[:fresh]

    def score(module: Any) -> float:
        return float(pg.evaluate(module, rows, metric=world.metric, progress=False).score)

    return {
        "calls": calls,
        "score": score(result.program or program),
        "best_found": score(result.best_program),
        "outcome": result.outcome,
        "claimed": None if result.gain is None else result.gain.mean,
    }


def run_peer(world: World, url: str, server: Any, name: str, seed: int, budget: int, fresh: int) -> dict[str, Any]:
    """Train with a peer, which is stopped at the budget."""
    from _peers import PEERS as RUNS

    server.budget = budget
    answer = RUNS[name](world, url, seed, budget)
    calls = dict(server.counts)
    server.budget = None
    score = held_out(world, answer, fresh)
    return {"calls": calls, "score": score, "best_found": score}


def one_run(run: Run) -> list[dict[str, Any]]:
    """Do one run and give its line."""
    name, seed, budget, optimizer, fresh = run
    world = make(name, seed)
    do = run_ours if optimizer in OURS else run_peer
    line: dict[str, Any] = {"world": name, "seed": seed, "budget": budget, "optimizer": optimizer, "fresh": fresh}
    with (server := world.serve()) as url:
        began, busy = time.monotonic(), time.process_time()
        found = do(world, url, server, optimizer, seed, budget, fresh)
        line |= {"seconds": round(time.monotonic() - began, 2), "cpu": round(time.process_time() - busy, 2)}
    found = {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}
    spent = sum(found["calls"].values())
    return [{**line, "start": round(world.score_of_start(fresh), 4), **found, "spent": spent, "simulated": True}]


def done(line: dict[str, Any]) -> None:
    """Tell of a run."""
    shown = ("world", "seed", "budget", "optimizer", "start", "score", "spent", "seconds", "cpu")
    print(json.dumps({key: line[key] for key in shown}))


def _key(line: dict[str, Any]) -> tuple[str, int, int, str]:
    return line["world"], line["seed"], line["budget"], line["optimizer"]


def is_ours(line: dict[str, Any]) -> bool:
    """Whether one of our optimizers made a line."""
    return line["optimizer"] in OURS


# -- the table --------------------------------------------------------------------------------------------------------


def interval(differences: Sequence[float], draws: int = 10_000) -> tuple[float, float]:
    """The 95 % bootstrap interval of a mean of paired differences."""
    rng = random.Random(0)
    means = sorted(mean(rng.choices(differences, k=len(differences))) for _ in range(draws))
    return means[int(0.025 * draws)], means[int(0.975 * draws) - 1]


Group = dict[str, dict[int, dict[str, Any]]]  # the lines of one world and budget, by optimizer and seed


def against(group: Group, name: str, peer: str, draws: int) -> tuple[float, float, float] | None:
    """How far one of ours is above a peer in points, paired by seed, with its interval; None without two pairs."""
    if name not in OURS or name not in group or peer not in group:
        return None
    both = sorted(group[name].keys() & group[peer].keys())
    if len(both) < 2:
        return None
    apart = [100 * (group[name][seed]["score"] - group[peer][seed]["score"]) for seed in both]
    return mean(apart), *interval(apart, draws)


def mark(found: tuple[float, float, float] | None) -> str:
    """+ for ahead, - for behind, 0 where the interval holds zero, a dot where nothing is known."""
    if found is None:
        return "."
    _, low, high = found
    return "+" if low > 0 else "-" if high < 0 else "0"


def table(lines: Iterable[dict[str, Any]], draws: int = 10_000) -> str:
    """Markdown: who of ours is ahead of which peer, and for each world and budget the scores and the differences."""
    groups: dict[tuple[str, int], Group] = {}
    for line in lines:
        group = groups.setdefault((line["world"], line["budget"]), {})
        group.setdefault(line["optimizer"], {})[line["seed"]] = line
    groups = dict(sorted(groups.items()))
    apart = {
        (key, name, peer): against(group, name, peer, draws)
        for key, group in groups.items()
        for name in OURS
        for peer in PEERS
    }
    parts = ["Held-out score in points on a simulated LM; in brackets the 95 % interval of the paired difference."]
    ours = [name for name in OURS if any(found for (_, mine, _), found in apart.items() if mine == name)]
    rivals = [peer for peer in PEERS if any(found for (_, _, other), found in apart.items() if other == peer)]
    if ours:
        parts.append(
            "\n### Ours against the peers: + ahead, 0 level, - behind\n\n"
            f"A mark for each peer: {', '.join(rivals)}. It is 0 where the interval holds zero, . without two pairs.\n"
        )
        rows = [["optimizer", *(f"{world}, {budget} calls" for world, budget in groups)]]
        rows += [[name, *("".join(mark(apart[key, name, peer]) for peer in rivals) for key in groups)] for name in ours]
        parts += markdown(rows)
    for (world, budget), group in groups.items():
        peers = [name for name in PEERS if name in group]
        rows = [["optimizer", "runs", "score", "best found", "worse than start", "calls", "seconds", *peers]]
        names = [name for name in (*OURS, *PEERS) if name in group]
        for name in sorted(names, key=lambda each: -mean(line["score"] for line in group[each].values())):
            mine = list(group[name].values())
            cells = [
                name,
                str(len(mine)),
                f"{100 * mean(line['score'] for line in mine):.1f}",
                f"{100 * mean(line['best_found'] for line in mine):.1f}",
                f"{sum(line['score'] < line['start'] - 0.005 for line in mine)}",
                f"{mean(line['spent'] for line in mine):.0f}",
                f"{mean(line['seconds'] for line in mine):.1f}",
            ]
            for peer in peers:
                found = apart.get(((world, budget), name, peer))
                cells.append("{:+.1f} [{:+.1f}, {:+.1f}]".format(*found) if found else "")
            rows.append(cells)
        parts += [f"\n### {world}, {budget} calls\n", *markdown(rows)]
    return "\n".join(parts)


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table, the first row its head."""
    head, *rest = (f"| {' | '.join(row)} |" for row in rows)
    return [head, "|---" * len(rows[0]) + "|", *rest]


def available(names: Sequence[str]) -> list[str]:
    """Those of our optimizers that this version has, and all peers."""
    from promptgrad import optim

    return [name for name in names if name not in CLASSES or hasattr(optim, CLASSES[name])]


def main() -> int:
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("--world", default="W1,W2,W4", help=f"names, of {', '.join(NAMES)}")
    about.add_argument("--budget", default="600", help="LM calls, such as 200,600,2000")
    about.add_argument("--seeds", default="1000:1004", help="first:end or a list")
    about.add_argument("--optimizers", default=",".join((*OURS, *PEERS)))
    about.add_argument("--fresh", type=int, default=400, help="rows of the held-out score")
    options(about, DEFAULT_OUT, "table")
    given = about.parse_args()
    if given.table:
        print(table(read(given.out)))
        return 0
    worlds, asked = given.world.split(","), given.optimizers.split(",")
    unknown = [*(set(worlds) - set(NAMES)), *(set(asked) - {*OURS, *PEERS})]
    if unknown:
        about.error(f"unknown: {', '.join(sorted(unknown))}")
    optimizers = available(asked)
    runs = [
        (world, seed, budget, name, given.fresh)
        for budget in numbers(given.budget)
        for seed in numbers(given.seeds)
        for world in worlds
        for name in optimizers
    ]
    failed = study(
        one_run,
        runs,
        given.out,
        given.jobs,
        job_key=lambda run: run[:4],
        line_key=_key,
        ours=is_ours,
        mixed=given.mixed,
        done=done,
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
