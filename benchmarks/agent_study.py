"""Agents, trained: the instruction and the descriptions of three tools in a simulated office, and agents by code.

    python benchmarks/agent_study.py --seeds 0:40 --out agents.jsonl        # also prints the summary
    python benchmarks/agent_study.py --summary --out agents.jsonl

`nn.ReAct` with calls as text and native ones, the same in a harder office ("hard", `_hard_agent_world.py`), where how
an argument is written is to be learned too, `nn.CodeAct` ("code") and `nn.RLM` ("binder"), by `TGD` and `GEPA` as
their defaults are, with a budget of LM calls, on 40 training and 40 validation rows. What was left in the program is
scored on fresh rows, and so is the start. One JSON line for each optimizer, mode, and set of trained texts ("all", or
the "instruction" of the steps alone): the mean gain, and its paired bootstrap interval over the seeds. The language
models are simulated (`_agent_world.py`, `_code_worlds.py`): 0 to 99 are reported runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from _agent_world import AgentWorld
from _code_worlds import Binder, OfficeByCode
from _hard_agent_world import Counters
from _study import numbers, options, read, study

Run = tuple[int, str, str, str, int, int]  # seed, optimizer, mode, trained texts, budget, fresh rows
OUT = Path(__file__).resolve().parent / "results" / "agents.jsonl"
OPTIMIZERS = ("TGD", "GEPA")
MODES = ("text", "native", "code", "binder", "hard", "hard native")
TEXTS = ("all", "instruction")


def one_run(run: Run) -> list[dict[str, Any]]:
    """Train one agent and give its line."""
    import promptgrad as pg
    from promptgrad import optim

    seed, name, mode, texts, budget, fresh = run
    kind = {"code": OfficeByCode, "binder": Binder, "hard": Counters, "hard native": Counters}.get(mode, AgentWorld)
    world = kind(seed, native=mode.endswith("native"), test=fresh)

    def score(program: Any) -> float:
        return float(pg.evaluate(program, world.rows["test"], metric=world.metric, progress=False).score)

    program = world.program(describe=texts == "all")
    before = score(program)
    first = _descriptions(program)
    optimizer = getattr(optim, name)(program.parameters(), lm=world.writer())
    trainer = pg.Trainer(
        program, optimizer, metric=world.metric, budget=pg.Budget(calls=budget), seed=seed, progress=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = trainer.fit(world.rows["train"], world.rows["val"])
    trained = result.program or program
    line = {
        "simulated": True,
        "seed": seed,
        "optimizer": name,
        "mode": mode,
        "texts": texts,
        "budget": budget,
        "fresh": fresh,
        "before": round(before, 4),
        "after": round(score(trained), 4),
        "calls": result.spent.calls,
        "descriptions": sum(text != first[path] for path, text in _descriptions(trained).items()),
        "outcome": result.outcome,
    }
    return [line]


def _descriptions(program: Any) -> dict[str, str]:
    return {path: str(parameter) for path, parameter in program.named_parameters() if parameter.kind == "description"}


def summary(lines: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """A line for each optimizer, mode and set of texts."""
    from promptgrad.evaluation import paired_interval

    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in sorted(lines, key=lambda line: line["seed"]):
        groups.setdefault((line["optimizer"], line["mode"], line["texts"], line["budget"]), []).append(line)
    for (name, mode, texts, budget), found in sorted(groups.items()):
        before, after = ([line[key] for line in found] for key in ("before", "after"))
        low, high = paired_interval(before, after)
        yield {
            "simulated": True,
            "optimizer": name,
            "mode": mode,
            "texts": texts,
            "budget": budget,
            "seeds": len(found),
            "before": round(mean(before), 4),
            "after": round(mean(after), 4),
            "gain": round(mean(after) - mean(before), 4),
            "interval": [round(low, 4), round(high, 4)],
            "worse": sum(line["after"] < line["before"] for line in found),
            "descriptions": round(mean(line["descriptions"] for line in found), 2),
            "calls": round(mean(line["calls"] for line in found), 1),
        }


def _key(line: dict[str, Any]) -> tuple[Any, ...]:
    return line["seed"], line["optimizer"], line["mode"], line["texts"], line["budget"]


def main() -> int:
    """Do the runs, and print one JSON line a group."""
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("--seeds", default="1000:1004", help="first:end or a list; 0 to 99 are for reported runs")
    about.add_argument("--budget", default="600", help="LM calls")
    about.add_argument("--fresh", type=int, default=200, help="rows that are scored before and after")
    about.add_argument("--optimizers", default=",".join(OPTIMIZERS))
    about.add_argument("--modes", default=",".join(MODES))
    options(about, OUT, "summary")
    given = about.parse_args()
    failed = 0
    if not given.summary:
        runs = [
            (seed, name, mode, texts, budget, given.fresh)
            for seed in numbers(given.seeds)
            for budget in numbers(given.budget)
            for name in given.optimizers.split(",")
            for mode in given.modes.split(",")
            for texts in TEXTS
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
