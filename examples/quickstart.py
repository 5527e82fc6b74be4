"""A program of two language-model calls gets measurably better, on an LM that runs right here.

    python examples/quickstart.py                              # the embedded model: offline, no key
    python examples/quickstart.py --lm openai/gpt-4o-mini      # the same program on a provider's model

The program picks a word out of a list and then says something about it. Nobody has told it which word, or what to
say. Five optimizers learn that from the same training and validation examples, and each result is measured on test
examples that no optimizer has seen. The task is drawn by the seed out of all chains of two steps in the embedded
model's world.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import promptgrad as pg
from promptgrad import nn, optim
from promptgrad.data import pocket
from promptgrad.evaluation import Report
from promptgrad.lm import Local

console = Console(width=None if sys.stdout.isatty() else 132)


class PickAndDescribe(nn.Module):
    """Two calls in a row: the first picks a word of the list, the second describes it."""

    def __init__(self) -> None:
        super().__init__()
        self.pick = nn.Predict("text -> answer", instruction="pick a word from the list")
        self.describe = nn.Predict("text -> answer", instruction="describe the thing")

    def forward(self, text: str) -> Any:
        """Return what the second call says about the word that the first one picked."""
        return self.describe(text=self.pick(text=text).answer)


OPTIMIZERS: dict[str, Callable[[PickAndDescribe], optim.Optimizer]] = {
    "BootstrapFewShot": lambda model: optim.BootstrapFewShot(model.parameters(), max_labeled_demos=0),
    "MIPRO": lambda model: optim.MIPRO(model.parameters(), num_trials=24),
    "Auto": lambda model: optim.Auto(model.parameters()),
    "TGD": lambda model: optim.TGD(model.parameters()),
    "BootstrapFinetune": lambda model: optim.BootstrapFinetune(model.parameters()),
}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lm", default="pocket", help="'pocket' (embedded, the default) or any model name")
    parser.add_argument("--task", help="a chain of pocket.families()['chain']; drawn by the seed if not given")
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test", type=int, default=200, help="number of test examples")
    parser.add_argument("--reload", metavar="FOLDER", help="only measure the program saved in FOLDER")
    args = parser.parse_args()
    if args.test < 1:
        parser.error(f"--test is at least 1, not {args.test}")
    args.task = args.task or Random(args.seed).choice(pocket.families()["chain"])
    return args


def fresh(name: str) -> pg.LM:
    """The model with a cache of its own, so that what an optimizer costs does not depend on those before it."""
    return pg.lm.Cache(pg.LM(name, cache=False))


def show(table: Table, name: str, report: Report, start: Report | None, cost: str) -> None:
    """Add one line to the table: score, interval, paired difference to the start, cost."""
    low, high = report.interval
    gain = ""
    if start is not None:
        difference = report.compare(start)
        gain = f"{difference.difference:+.3f} [{difference.interval[0]:+.3f}, {difference.interval[1]:+.3f}]"
    table.add_row(name, f"{report.score:.3f}", f"[{low:.3f}, {high:.3f}]", gain, cost, style=None)


def main() -> None:
    """Run the tour, or with ``--reload`` measure a saved program in this new process."""
    args = arguments()
    task = pocket.task(args.task, seed=args.seed)
    train, val, test = task.split(train=64, val=96, test=args.test)
    if args.reload:
        model = PickAndDescribe().to(args.lm)
        pg.load(args.reload, model)
        report = pg.evaluate(model, test, task.metric)
        sys.stdout.write(json.dumps({"score": report.score}) + "\n")
        return

    began = time.perf_counter()
    console.print(
        f"[bold]{args.task}[/bold] on {args.lm}: {len(train)} train, {len(val)} val, {len(test)} test examples"
    )
    console.print(f"  e.g. {test[0]['text']} -> {test[0]['answer']}\n")
    model = PickAndDescribe().to(fresh(args.lm))
    console.print(model)
    start = pg.evaluate(model, test, task.metric)
    table = Table(title=f"{args.task} on {args.lm}, {len(test)} test examples, seed {args.seed}")
    for column in ("program", "score", "95% interval", "paired gain [95%]", "LM calls / tokens / seconds to train"):
        table.add_column(escape(column))
    show(table, "start", start, None, "-")

    best, best_score, best_name = model, -1.0, "start"
    for name in args.optimizers:
        if name == "BootstrapFinetune" and not isinstance(model.pick.lm.transport, Local):
            console.print(f"\n{name} skipped: the weights of {args.lm} are not at hand")
            continue
        program = PickAndDescribe().to(fresh(args.lm))
        result = pg.Trainer(program, OPTIMIZERS[name](program), metric=task.metric, seed=args.seed).fit(train, val)
        console.print(f"\n[bold]{name}[/bold]")
        console.print(result)
        report = pg.evaluate(program, test, task.metric)
        cost = f"{result.calls:,} / {result.tokens:,} / {result.seconds:.0f}"
        show(table, name if result.shipped else f"{name} ({result.outcome})", report, start, cost)
        if result.shipped and result.after is not None and result.after.mean > best_score:
            best, best_score, best_name = program, result.after.mean, name  # chosen on validation data

    console.print()
    console.print(table)
    console.print(f"\nThe prompts of the best program on validation data ({best_name}), exactly as they are sent:")
    for path, inputs in (("pick", {"text": test[0]["text"]}), ("describe", {"text": "wolf"})):
        console.print(f"[bold]{path}[/bold]")
        for message in getattr(best, path).render(**inputs):
            console.print(
                f"  [dim]{message['role']:>9}[/dim]  {escape(message['content'])}", highlight=False, soft_wrap=True
            )

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program"
        pg.save(best, path)
        here = pg.evaluate(best, test, task.metric).score
        command = [sys.executable, __file__, "--reload", str(path), "--lm", args.lm, "--task", args.task]
        command += ["--seed", str(args.seed), "--test", str(args.test)]
        reply = subprocess.run(command, check=True, capture_output=True, text=True)
        again = json.loads(reply.stdout.splitlines()[-1])["score"]
        verdict = "the same" if again == here else "NOT the same"
        console.print(f"\nSaved, and loaded in a new process: {again:.3f}, {verdict} as here ({here:.3f}).")
    console.print(f"All in {time.perf_counter() - began:.0f} s.")


if __name__ == "__main__":
    main()
