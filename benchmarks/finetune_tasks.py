"""Prompts, weights, and both, at one budget of LM calls; and GRPO where training on successes stalls.

    python benchmarks/finetune_tasks.py --seeds 1020:1025
    python benchmarks/finetune_tasks.py --table

The language model is the embedded one, really run, and what is held out are fresh texts. Every run appends one JSON
line, and runs that have a line are not repeated, so a killed study goes on where it stopped. The end is one JSON line:
for each task and method the mean score, and the paired differences with their 95 % bootstrap intervals over seeds.
Seeds 0 to 99 are for reports; develop on 1000 and up.

Together (`TASKS`): `MIPRO` over instruction and demos ("prompts"), `BootstrapFinetune` from the vague instruction
("weights"), and `BetterTogether("p -> w")`, each in `Trainer.fit` with the same data and at most `--budget` calls,
those of the writer counted. The score is that of the program which ships.

Skill (`SKILL`): tasks of the embedded model's world on texts of 8 to 10 words, where it has learned 3 to 7. So with the
right instruction it is right sometimes, and without it hardly ever. The three ways as above, with `TGD` for prompts, as
demos of such texts do harm, 160 training rows and `--skill-budget` calls.

Stall (`STALL`): a program that knows a part of its task. Training on its successes (`finetune.sft` with a metric) from
greedy runs of as many examples as there are runs ("sft-greedy"), or from sampled ones, several of each example
("sft-sampled"), on the best sampled runs of each example, right or not ("sft-best"), and `finetune.grpo`, each with
`--rollouts` runs of the program. In `each-color` and the like a program says the color of each of six words, one call
for each, from an instruction that says no more than that a property is wanted; its score is the share of right ones,
and a run is right where all six are.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from _study import numbers, options, read, study
from bench_optimizers import interval, markdown

TASKS = ("label-map-color", "count-fruit", "color-of-odd")
SKILL = ("long-rest", "long-count-fruit", "long-count-red", "long-count-even")
STALL = ("each-color", "each-size", "each-place")
TOGETHER = ("prompts", "weights", "p -> w")
AFTER = ("sft-greedy", "sft-sampled", "sft-best", "grpo")
PAIRS = (("p -> w", "prompts"), ("p -> w", "weights"), *(("grpo", method) for method in AFTER[:-1]))
DEFAULT_OUT = Path(__file__).resolve().parent / "results" / "finetune_tasks.jsonl"

TRAIN, VAL = 64, 40
SAMPLES = 8  # runs of one example, where replies are sampled
EACH = 6  # words of a text of `each-...`
STEPS, BATCH = 32, 16  # of a training on successes
LONG = 8, 10  # words of a text of `long-...`
LONG_TRAIN, LONG_STEPS = 160, 60  # of `long-...`

Run = tuple[str, str, int, int, int]  # method, task, seed, budget or rollouts, fresh rows


def made(task: Any, level: str) -> Any:
    """A program for a task on a model of its own."""
    import promptgrad as pg
    from promptgrad import nn

    signature = f"{', '.join(task.inputs)} -> answer"
    return nn.Predict(signature, instruction=task.instruction(level, seed=task.seed)).to(pg.lm.pocket())


def score(program: Any, rows: Sequence[Any], task: Any) -> float:
    """The held-out score; a row without a reply that can be read has none."""
    import promptgrad as pg

    report = pg.evaluate(program, rows, metric=task.metric, progress=False)
    return sum(float(row.score) for row in report.rows if row.error is None) / len(rows)


def together(method: str, task: Any, seed: int, budget: int, fresh: int) -> dict[str, Any]:
    """Train by prompts, weights, or both, within the budget."""
    import promptgrad as pg
    from promptgrad import optim

    long = isinstance(task, Long)
    train, val, test = task.split(LONG_TRAIN if long else TRAIN, VAL, fresh)
    program = made(task, "vague")
    start = score(program, test, task)
    spare = {"num_trials": 24} if method == "prompts" else {"num_trials": 6, "num_candidates": 4, "num_demo_sets": 3}
    prompts = optim.MIPRO(program.parameters(), minibatch_size=16, full_eval_every=4, **spare)
    weights = optim.BootstrapFinetune(
        program, steps=STEPS, batch_size=BATCH, max_rounds=3 if method == "weights" else 1
    )
    if long:
        prompts = optim.TGD(program.parameters(), steps=None if method == "prompts" else 2)
        runs = {} if method == "weights" else {"max_labeled_demos": 0, "max_rounds": 1}  # as what was found says
        weights = optim.BootstrapFinetune(program, steps=LONG_STEPS, batch_size=BATCH, **{"max_rounds": 4, **runs})
    optimizer = {"prompts": prompts, "weights": weights}.get(method) or optim.BetterTogether(
        method, p=prompts, w=weights
    )
    trainer = pg.Trainer(
        program, optimizer, metric=task.metric, budget=pg.Budget(calls=budget), seed=seed, progress=False
    )
    with pg.lm.track_usage() as used:
        try:
            result = trainer.fit(train, val)
        except pg.errors.DataError as error:  # no run went right
            return {
                "start": start,
                "score": start,
                "outcome": "nothing to learn",
                "spent": used.calls,
                "notes": [str(error)],
            }
    return {
        "start": start,
        "score": score(result.program or program, test, task),
        "best_found": score(result.best_program, test, task),
        "outcome": result.outcome,
        "spent": result.spent.calls,
        "notes": list(result.notes),
    }


class Long:
    """A task of `long-...`: that of the rest of its name, on longer texts.

    Args:
        name: Its name.
        seed: Draws the texts.
    """

    inputs = ("text",)

    def __init__(self, name: str, seed: int) -> None:
        from promptgrad.data import pocket

        self.task = pocket.task(name.removeprefix("long-"), seed=seed)
        self.name, self.seed = name, seed
        self.instruction, self.metric = self.task.instruction, self.task.metric

    def split(self, train: int, val: int, test: int) -> tuple[list[Any], list[Any], list[Any]]:
        """Texts of usual length, joined and cut; no text occurs twice."""
        from promptgrad.data import Example

        draw, found = random.Random(f"{self.name} {self.seed}"), dict[str, Any]()
        while len(found) < train + val + test:
            length, words = draw.randint(*LONG), list[str]()
            while len(words) < length:
                words += self.task.op.draw(draw, "any")["text"]
            text, answer = " ".join(words[:length]), self.task.op.solve({"text": words[:length]}).answer
            found[text] = Example(text=text, answer=" ".join(answer)).with_inputs("text")
        rows = list(found.values())
        return rows[:train], rows[train : train + val], rows[train + val :]


class Each:
    """A task of `each-...`: one word after the other, and the share of right answers.

    Args:
        name: Its name: `each-` and a property of things.
        seed: Draws the texts.
    """

    def __init__(self, name: str, seed: int) -> None:
        from promptgrad.data import pocket

        self.task = pocket.task(name.removeprefix("each-"), seed=seed)
        self.name, self.seed = name, seed

    def program(self) -> Any:
        """One call for each word, on a model of its own."""
        from promptgrad import nn

        class Program(nn.Module):
            def __init__(self, say: Any) -> None:
                super().__init__()
                self.say = say

            def forward(self, text: str) -> Any:
                return " ".join(str(self.say(text=word).answer) for word in text.split())

        return Program(made(self.task, "partial"))

    def metric(self, example: Any, output: Any) -> float:
        """The share of right answers."""
        right, said = example.answer.split(), str(output).split()
        return sum(a == b for a, b in zip(right, said, strict=False)) / max(len(right), len(said))

    def split(self, train: int, val: int, test: int) -> tuple[list[Any], list[Any], list[Any]]:
        """Texts of six things each; no text occurs twice."""
        from promptgrad.data import Example, pocket

        shown = pocket.task("reverse", seed=self.seed).split(400, 1, 1)[0]
        things = sorted({word for example in shown for word in example.text.split()})
        draw, found = random.Random(f"{self.name} {self.seed}"), dict[str, Any]()
        while len(found) < train + val + test:
            words = draw.sample(things, EACH)
            answer = " ".join(self.task.op.solve({"text": [word]}).answer[0] for word in words)
            found[" ".join(words)] = Example(text=" ".join(words), answer=answer).with_inputs("text")
        rows = list(found.values())
        return rows[:train], rows[train : train + val], rows[train + val :]


def best(found: Any) -> Any:
    """Of the runs of each example the best ones, if they are better than others."""
    scores: dict[str, list[float]] = {}
    for sample in found:
        scores.setdefault(sample.example_id, []).append(sample.score)
    return found.filter(lambda one: min(scores[one.example_id]) < one.score == max(scores[one.example_id]))


def after(method: str, task: Any, seed: int, rollouts: int, fresh: int) -> dict[str, Any]:
    """Train the weights on successes, or by policy gradient, with as many runs of the program."""
    import promptgrad as pg
    from promptgrad import finetune

    train, _, test = task.split(rollouts, 1, fresh)
    program = task.program() if isinstance(task, Each) else made(task, "partial")
    start = score(program, test, task)
    few = train[: rollouts // SAMPLES]
    if method == "grpo":
        result = finetune.grpo(
            program,
            few,
            task.metric,
            n=SAMPLES,
            batch_size=4,
            rollouts=rollouts,
            steps=rollouts,
            seed=seed,
            progress=False,
        )
        runs: Any = result.collected
        return {
            "start": start,
            "score": score(result.program, test, task),
            "spent": runs.runs,
            "right": mean(runs.rewards),
        }
    how: dict[str, Any] = {} if method == "sft-greedy" else {"teacher": pg.lm.pocket(temperature=1.0), "n": SAMPLES}
    if method == "sft-best":
        how["threshold"] = 0.0
    got = finetune.collect(program, train if method == "sft-greedy" else few, task.metric, **how)
    samples = best(got) if method == "sft-best" else got
    right = len(samples) / len(got) if method == "sft-best" else got.right / got.runs  # the share of what is learned
    found = {"start": start, "score": start, "spent": got.runs, "right": right, "samples": len(samples)}
    if samples:  # else there is nothing to learn
        tuned = finetune.sft(program, samples, steps=STEPS, batch_size=BATCH, seed=seed, progress=False)
        found["score"] = score(tuned.program, test, task)
    return found


def one_run(run: Run) -> list[dict[str, Any]]:
    """Do one run and give its line."""
    import torch

    from promptgrad.data import pocket

    torch.set_num_threads(1)
    method, name, seed, budget, fresh = run
    began, busy = time.monotonic(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        do = together if method in TOGETHER else after
        kinds = {"each": Each, "long": Long}
        task = kinds.get(name.partition("-")[0], lambda name, seed: pocket.task(name, seed=seed))(name, seed)
        found = do(method, task, seed, budget, fresh)
    found = {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}
    clock = {"seconds": round(time.monotonic() - began, 1), "cpu": round(time.process_time() - busy, 1)}
    return [{"task": name, "method": method, "seed": seed, "budget": budget, "fresh": fresh, **found, **clock}]


def shown(line: dict[str, Any]) -> None:
    """Tell of a run."""
    keys = ("task", "method", "seed", "start", "score", "spent", "seconds", "cpu")
    print(json.dumps({key: line[key] for key in keys}), file=sys.stderr)


def key(line: dict[str, Any]) -> tuple[Any, ...]:
    """What tells a line from others."""
    return line["method"], line["task"], line["seed"], line["budget"]


# -- the table --------------------------------------------------------------------------------------------------------


def summary(lines: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """By task: runs, means and paired differences in points, over the seeds that have a line of every method."""
    groups: dict[str, dict[str, dict[int, dict[str, Any]]]] = {}
    for line in lines:
        groups.setdefault(line["task"], {}).setdefault(line["method"], {})[line["seed"]] = line
    found: dict[str, Any] = {}
    for task, by in groups.items():
        seeds = sorted(set.intersection(*(set(each) for each in by.values())))
        if not seeds:
            continue
        methods = [method for method in (*TOGETHER, *AFTER) if method in by]
        scores = {method: [100 * by[method][seed]["score"] for seed in seeds] for method in methods}
        differences = {}
        for one, other in PAIRS:
            if one in by and other in by and len(seeds) > 1:
                apart = [a - b for a, b in zip(scores[one], scores[other], strict=True)]
                low, high = interval(apart)
                differences[f"{one} minus {other}"] = [round(mean(apart), 1), round(low, 1), round(high, 1)]
        found[task] = {
            "seeds": seeds,
            "start": round(mean(100 * by[method][seed]["start"] for method in methods for seed in seeds), 1),
            "score": {method: round(mean(each), 1) for method, each in scores.items()},
            "calls": {method: round(mean(by[method][seed]["spent"] for seed in seeds)) for method in methods},
            "differences": differences,
        }
    return found


def table(lines: Iterable[dict[str, Any]]) -> str:
    """Markdown of the summary: a table for what is together, and one for what comes after successes."""
    found = summary(lines)
    parts = []
    for methods in (TOGETHER, AFTER):
        mine = {task: each for task, each in found.items() if methods[-1] in each["score"]}
        if not mine:
            continue
        pairs = [f"{one} minus {other}" for one, other in PAIRS if one == methods[-1]]
        rows = [["task", "seeds", "start", *methods, *pairs, f"calls of {', '.join(methods)}"]]
        for task, each in mine.items():
            scores = [f"{each['score'][method]:.1f}" if method in each["score"] else "" for method in methods]
            apart = [each["differences"].get(pair) for pair in pairs]
            cells = ["{:+.1f} [{:+.1f}, {:+.1f}]".format(*three) if three else "" for three in apart]
            calls = ", ".join(str(each["calls"].get(method, "")) for method in methods)
            rows.append([task, str(len(each["seeds"])), f"{each['start']:.1f}", *scores, *cells, calls])
        parts += [*markdown(rows), ""]
    return "\n".join(parts)


def main() -> int:
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("--tasks", default=",".join(TASKS), help="of prompts, weights and both")
    about.add_argument("--skill", default=",".join(SKILL), help="of the three, on long texts")
    about.add_argument("--stall", default=",".join(STALL), help="of GRPO beside training on successes")
    about.add_argument("--seeds", default="1020:1025", help="first:end or a list")
    about.add_argument("--budget", type=int, default=300, help="LM calls of prompts, weights and both")
    about.add_argument("--skill-budget", type=int, default=700, help="LM calls of the three on long texts")
    about.add_argument("--rollouts", type=int, default=480, help="runs of GRPO and of training on successes")
    about.add_argument("--fresh", type=int, default=80, help="rows of the held-out score")
    options(about, DEFAULT_OUT, "table")
    given = about.parse_args()
    if given.table:
        print(table(read(given.out)))
        return 0
    kinds = (
        (given.tasks, TOGETHER, given.budget),
        (given.skill, TOGETHER, given.skill_budget),
        (given.stall, AFTER, given.rollouts),
    )
    runs = [
        (method, task, seed, cost, given.fresh)
        for seed in numbers(given.seeds)
        for tasks, methods, cost in kinds
        for task in filter(None, tasks.split(","))
        for method in methods
    ]
    failed = study(
        one_run,
        runs,
        given.out,
        given.jobs,
        job_key=lambda run: run[:4],
        line_key=key,
        ours=lambda line: True,
        mixed=given.mixed,
        done=shown,
    )
    print(json.dumps(summary(read(given.out))))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
