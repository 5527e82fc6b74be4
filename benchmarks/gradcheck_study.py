"""Does a step along a textual gradient go downhill? A study on the embedded model, with everything fixed beforehand.

Two parts for each task and seed, from a vague instruction:

- `train`: textual gradient descent in an explicit loop, its steps gated on validation data. Three arms differ in what
  the loss says of a failed sample: the *true* feedback, the texts *shuffled* among the failed samples of the batch, or
  a *blank* "the output is wrong". Same start, batches, steps, proposals and gate; test accuracy before and after.
- `one-step`: `promptgrad.gradcheck`, one ungated step from each of several batches, measured on fresh examples.

What was chosen, and how, before anything was run on the tasks of the study:

- The tasks: one of each of the two families that the model has never criticised or worded (`held_out_families`), and
  one of each of the six largest other families, the earlier of equally large ones; drawn in each family with
  `random.Random(2026)`. None was replaced.
- The seeds: 0 to 7. A seed draws the texts of all splits, the wording of the vague instruction, the batches, the
  permutations, and what a step's further proposals hear.
- The settings (`Settings`), tried on the tasks of `TUNING` alone, which belong to none of the families of the study,
  with seeds from 100 on. They were left as first written; only the numbers of seeds and of test examples were then
  set, by how long the runs took.

`--follow-up` was designed after the study had been seen, to test one explanation of it: that shuffled feedback does as
well where the kind of the right answer gives the task away (a size, a color, a number), and not where right answers of
different tasks look alike. Its tasks are all whose answer is one of the words of the text by its place
(`FOLLOW_UP_FAMILIES`), less those of `TUNING`; its seeds are the first five, its settings the same.

`--every-family` was fixed after both had been seen, and before it was run. It leaves nothing to choose: one task of
each family of the world, drawn with `random.Random(2027)` from those that are not of `TUNING` (`topic` is all of its
family, and drops out), with the same settings and eight seeds that nothing was run with before. It gives each kind of
task the same weight, where the study, by its rule, took six of the large families, which all tell the task by the kind
of the answer. What it is to say: whether over all tasks the interval of true - shuffled lies above zero, in training
and for single steps.

An interval of one task resamples its seeds, and the examples of each; one over tasks resamples the tasks, and the
seeds of each (`evaluation.grouped_interval`, 95 %). Prints one JSON line a row, then the summary; `--out` keeps the
rows, and `--table FOLDER` makes the tables of docs/gradcheck.md of them without running anything.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works in a checkout that is not installed

SEEDS = tuple(range(8))
ARMS = ("true", "shuffled", "blank")
LARGEST = 6
TUNING = ("last", "largest", "last-thing", "topic")
TUNING_SEEDS = (100, 101)
NEW_SEEDS = tuple(range(8, 16))
FOLLOW_UP_FAMILIES = ("pick", "pick-number", "pick-name", "thing-of-name")


@dataclass(frozen=True)
class Settings:
    """How each arm is run."""

    steps: int = 4
    batch_size: int = 8
    proposals: int = 3
    gate: float = 0.8
    train: int = 48
    val: int = 40
    test: int = 150
    repeats: int = 6
    fresh: int = 40


def study_tasks() -> tuple[str, ...]:
    """The tasks of the study, by the rule above."""
    from promptgrad.data import pocket

    families, held_out = pocket.families(), pocket.held_out_families()
    others = sorted((name for name in families if name not in held_out), key=lambda name: -len(families[name]))
    rng = Random(2026)
    return tuple(rng.choice(families[name]) for name in (*held_out, *others[:LARGEST]))


def follow_up_tasks() -> tuple[str, ...]:
    """The tasks of the follow-up."""
    from promptgrad.data import pocket

    families = pocket.families()
    return tuple(name for family in FOLLOW_UP_FAMILIES for name in families[family] if name not in TUNING)


def family_tasks() -> tuple[str, ...]:
    """One task of each family."""
    from promptgrad.data import pocket

    rng = Random(2027)
    left = [[name for name in names if name not in TUNING] for names in pocket.families().values()]
    return tuple(rng.choice(names) for names in left if names)


def make_program(task: Any, seed: int) -> Any:
    """One call, or two for a chain, with vague instructions."""
    from promptgrad import nn

    signature = f"{', '.join(task.inputs)} -> answer"
    if len(task.steps) == 1:
        return nn.Predict(signature, instruction=task.instruction("vague", seed=seed))

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Predict(signature, instruction=task.instruction("vague", seed=seed, step=0))
            self.second = nn.Predict("text -> answer", instruction=task.instruction("vague", seed=seed, step=1))

        async def forward(self, **inputs: Any) -> Any:
            found = await self.first.acall(**inputs)
            return await self.second.acall(text=found.answer)

        def input_names(self) -> tuple[str, ...]:
            return tuple(task.inputs)

    return Chain()


def fresh_lm() -> Any:
    """The embedded model with a cache of its own, so that each arm pays for what it asks."""
    import promptgrad as pg

    return pg.lm.Cache(pg.lm.pocket())


def scores_on(model: Any, data: Sequence[Any], metric: Any) -> list[float]:
    """The score of each example; 0 where the program failed."""
    import promptgrad as pg

    report = pg.evaluate(model, data, metric)
    return [0.0 if row.error is not None else float(row.score) for row in report.rows]


def run_arm(task: Any, arm: str, seed: int, settings: Settings, splits: Any) -> dict[str, Any]:
    """Train with the feedback of one arm."""
    import promptgrad as pg
    from promptgrad import nn, optim
    from promptgrad.run import rng
    from promptgrad.train._gradcheck import with_feedback

    train, val, test = splits
    pg.manual_seed(seed)
    model = make_program(task, seed).to(fresh_lm())
    criterion = nn.MetricLoss(task.metric)
    optimizer = optim.TGD(model.parameters(), proposals=settings.proposals, gate=settings.gate)
    loader = pg.data.DataLoader(train, batch_size=settings.batch_size, shuffle=True, seed=seed, drop_last=True)
    batches = [batch for _ in range(settings.steps) for batch in loader][: settings.steps]
    before = scores_on(model, test, task.metric)

    def closure() -> Any:
        return criterion(model.map(val), val)

    begun, kept, failed, changed = time.perf_counter(), 0, 0, 0
    with pg.track_usage() as usage:
        for step, batch in enumerate(batches):
            optimizer.zero_grad()
            loss, fails, others = with_feedback(arm, criterion(model.map(batch), batch), rng(seed, "study", step))
            failed, changed = failed + fails, changed + others
            loss.backward()
            report = optimizer.step(closure)
            kept += bool(report.accepted)
    seconds = time.perf_counter() - begun
    after = scores_on(model, test, task.metric)
    return {
        "part": "train",
        "arm": arm,
        "before": fmean(before),
        "after": fmean(after),
        "kept": kept,
        "failed": failed,
        "changed": changed,
        "calls": usage.total.calls,
        "tokens": usage.total.tokens,
        "seconds": round(seconds, 2),
        "texts": {path: p.data for path, p in model.named_parameters() if p.kind == "instruction"},
        "scores": ["".join(str(round(score)) for score in scores) for scores in (before, after)],
    }


def run_gradcheck(task: Any, seed: int, settings: Settings, splits: Any) -> dict[str, Any]:
    """One ungated step from each of several batches."""
    import promptgrad as pg

    train, _, test = splits
    pg.manual_seed(seed)
    model = make_program(task, seed).to(fresh_lm())
    report = pg.gradcheck(
        model,
        train,
        test[: settings.fresh],
        task.metric,
        batch_size=settings.batch_size,
        repeats=settings.repeats,
        seed=seed,
        progress=False,
    )
    return {
        "part": "one-step",
        "passed": report.passed,
        "verdict": report.verdict,
        "before": report.start,
        "gains": {arm: [round(fmean(row), 6) for row in report.arms[arm].gains] for arm in ARMS},
        "idle": {arm: report.arms[arm].idle for arm in ARMS},
        "failed": report.failed,
        "changed": report.shuffled,
        "calls": report.usage.calls,
        "tokens": report.usage.tokens,
        "seconds": round(report.seconds, 2),
    }


def run_unit(name: str, seed: int, settings: Settings) -> list[dict[str, Any]]:
    """All rows of one task and seed."""
    import torch

    from promptgrad.data import pocket

    torch.set_num_threads(1)
    task = pocket.task(name, seed=seed)
    splits = task.split(settings.train, settings.val, settings.test)
    about = {"bench": "gradcheck", "task": name, "family": task.family, "held_out": task.held_out, "seed": seed}
    rows = [run_arm(task, arm, seed, settings, splits) for arm in ARMS]
    rows.append(run_gradcheck(task, seed, settings, splits))
    return [{**about, **row} for row in rows]


# ------------------------------------------------------------------------------------------------------ the summary


def estimate(groups: Iterable[Sequence[float]]) -> list[float]:
    """Mean of group means, and its interval over groups and their members."""
    from promptgrad.evaluation import grouped_interval

    kept = [list(group) for group in groups if group]
    low, high = grouped_interval(kept)
    return [round(fmean(map(fmean, kept)), 4), round(low, 4), round(high, 4)]


def digits(text: str) -> list[float]:
    """Scores from their compact form."""
    return [float(digit) for digit in text]


class Found:
    """The rows of a study by part, task, seed and arm."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = rows
        self.tasks = list(dict.fromkeys(row["task"] for row in rows))
        self.held_out = {row["task"]: row["held_out"] for row in rows}
        self.train = {(r["task"], r["seed"], r["arm"]): r for r in rows if r["part"] == "train"}
        self.one_step = {(r["task"], r["seed"]): r for r in rows if r["part"] == "one-step"}
        self.seeds = sorted({row["seed"] for row in rows})

    def gains(self, task: str, arm: str, less: str | None = None) -> list[list[float]]:
        """Gain of an arm (less that of another) on each test example, by seed."""
        found = []
        for seed in self.seeds:
            before, after = map(digits, self.train[task, seed, arm]["scores"])
            base = before if less is None else digits(self.train[task, seed, less]["scores"][1])
            found.append([new - old for old, new in zip(base, after, strict=True)])
        return found

    def steps(self, task: str, arm: str, less: str | None = None) -> list[list[float]]:
        """Gain of an arm's single steps (less that of another's), by seed and repeat."""
        found = []
        for seed in self.seeds:
            gains = self.one_step[task, seed]["gains"]
            base = [0.0] * len(gains[arm]) if less is None else gains[less]
            found.append([new - old for old, new in zip(base, gains[arm], strict=True)])
        return found

    def summary(self, only: Collection[str] = ()) -> list[dict[str, Any]]:
        """A line for each task and for groups of tasks, in both parts; of these names only, if any are given."""
        lines = []
        trained = [task for task in self.tasks if not self.held_out[task]]
        held = [task for task in self.tasks if self.held_out[task]]
        for part, table in (("train", self.gains), ("one-step", self.steps)):
            for name, tasks in (
                *((task, [task]) for task in self.tasks),
                ("trained families", trained),
                ("held-out families", held),
                ("all", self.tasks),
            ):
                if not tasks or (only and name not in only):
                    continue
                line: dict[str, Any] = {"bench": "gradcheck", "summary": name, "part": part, "seeds": len(self.seeds)}
                before = self.train if part == "train" else self.one_step
                line["before"] = round(fmean(row["before"] for key, row in before.items() if key[0] in tasks), 4)
                for label, arm, less in (
                    *((arm, arm, None) for arm in ARMS),
                    *((f"true - {arm}", "true", arm) for arm in ARMS[1:]),
                ):
                    if len(tasks) == 1:
                        line[label] = estimate(table(tasks[0], arm, less))
                    else:
                        line[label] = estimate([list(map(fmean, table(task, arm, less))) for task in tasks])
                chosen = [row for row in self.rows if row["part"] == part and row["task"] in tasks]
                if part == "train":
                    line["calls"] = {arm: sum(r["calls"] for r in chosen if r["arm"] == arm) for arm in ARMS}
                    line["kept"] = {arm: sum(r["kept"] for r in chosen if r["arm"] == arm) for arm in ARMS}
                else:
                    line["calls"] = sum(row["calls"] for row in chosen)
                    line["passed"] = sum(row["passed"] for row in chosen)
                lines.append(line)
        return lines


def markdown(summary: Sequence[dict[str, Any]]) -> str:
    """The tables of docs/gradcheck.md."""
    columns = (*ARMS, *(f"true - {arm}" for arm in ARMS[1:]))
    out = []
    for part, last in (("train", "steps kept (true / shuffled / blank)"), ("one-step", "checks passed")):
        out += [f"| {part} | start | {' | '.join(columns)} | {last} |", "|---" + "|---:" * (len(columns) + 2) + "|"]
        for line in summary:
            if line["part"] != part:
                continue
            cells = [f"{line[name][0]:+.2f} [{line[name][1]:+.2f}, {line[name][2]:+.2f}]" for name in columns]
            kept = " / ".join(str(line["kept"][arm]) for arm in ARMS) if part == "train" else str(line["passed"])
            bold = "**" if line["summary"] in ("all", "trained families", "held-out families") else ""
            out.append(f"| {bold}{line['summary']}{bold} | {line['before']:.2f} | {' | '.join(cells)} | {kept} |")
        out.append("")
    return "\n".join(out)


def say(**fields: Any) -> None:
    """Print one JSON line."""
    print(json.dumps(fields), flush=True)


def main() -> None:
    """Run the study, or make its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for rows.jsonl and summary.jsonl")
    parser.add_argument("--table", type=Path, help="print the tables of such a folder, and run nothing")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--tuning", action="store_true", help="run on the tuning tasks instead")
    parser.add_argument("--follow-up", action="store_true", help="run the follow-up instead")
    parser.add_argument("--every-family", action="store_true", help="run on one task of each family instead")
    parser.add_argument("--quick", action="store_true", help="one tiny run on one tuning task, to see that it works")
    chosen = parser.parse_args()
    if chosen.table is not None:
        lines = (chosen.table / "summary.jsonl").read_text().splitlines()
        print(markdown([json.loads(line) for line in lines]))
        return
    from _side_by_side import commit

    import promptgrad as pg

    settings, tasks, seeds = Settings(), study_tasks(), SEEDS
    if chosen.tuning:
        tasks, seeds = TUNING, TUNING_SEEDS
    if chosen.follow_up:
        tasks, seeds = follow_up_tasks(), SEEDS[:5]
    if chosen.every_family:
        tasks, seeds = family_tasks(), NEW_SEEDS
    if chosen.quick:
        settings = replace(settings, steps=1, batch_size=4, train=8, val=8, test=8, repeats=2, fresh=8)
        tasks, seeds = TUNING[:1], TUNING_SEEDS[:1]
    say(bench="gradcheck", commit=commit(), version=pg.__version__, tasks=tasks, seeds=seeds, **asdict(settings))
    units = [(name, seed) for seed in seeds for name in tasks]
    rows: list[dict[str, Any]] = []
    begun = time.perf_counter()
    if chosen.quick:
        rows += [row for name, seed in units for row in run_unit(name, seed, settings)]
    else:
        with ProcessPoolExecutor(chosen.workers, mp_context=get_context("spawn")) as pool:
            for made in pool.map(run_unit, *zip(*units, strict=True), [settings] * len(units)):
                rows += made
                for row in made:
                    say(**row)
    summary = Found(rows).summary()
    for line in summary:
        say(**line)
    say(bench="gradcheck", seconds=round(time.perf_counter() - begun, 1), rows=len(rows))
    if chosen.out is not None:
        chosen.out.mkdir(parents=True, exist_ok=True)
        for name, lines in (("rows", rows), ("summary", summary)):
            (chosen.out / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
