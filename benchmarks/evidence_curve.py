"""The evidence curve: how much a perfect learner can know from what the prompts of optimizers show it.

    .venv-bench/bin/python benchmarks/evidence_curve.py --seeds 1000:1008 --rows 8,24 --only tgd,gepa-peer
    .venv-bench/bin/python benchmarks/evidence_curve.py --table

Every optimizer runs as it is, with its defaults, in the simulated world W2 (worlds/README.md), and has the same n
training rows. A server keeps each prompt that asks for a new instruction, and stops the search after the second
proposal. Then the world's learner, who misses nothing, concludes the rules from the prompt alone, and these are scored
on fresh rows. So a figure says what the prompt is worth, not what a model makes of it. Prompts of critics are scored in
the same way, and `rows` is the figure to reach: the n rows of the start side by side, in plain text and with nothing
else.

One JSON line a seed, number of rows and contestant; lines that are there are not made again. Seeds 0 to 99 are for
reported runs; develop on 1000 and up.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any

from _study import numbers, options, read, study
from bench_optimizers import CLASSES, interval
from worlds import CRITIC, STUDENT, WRITER, Call, Refused, Server, World, make
from worlds._prompt import Prompt
from worlds._rows import find_rows
from worlds._rules import decide
from worlds._rules import read as read_rules
from worlds._tickets import find

ROWS = (3, 8, 16, 24, 40)
SEARCHES = ("auto", "tgd", "gepa", "mipro", "gepa-peer", "mipro-peer", "textgrad")
CRITICS = ("critic-local", "critic-joint")
CONTESTANTS = ("rows", *SEARCHES, *CRITICS)
ONE_AT_A_TIME = ("gepa", "gepa-peer", "textgrad")
"""Searches that write one text a proposal."""

PROPOSALS = 2
"""Proposals of each search that are looked at; one of MIPROv2, which makes no second."""

PATIENCE = 200
"""Calls of the student after which no further proposal is waited for."""


BUDGET = 600
FRESH = 400
DEFAULT_OUT = Path(__file__).resolve().parent / "results" / "evidence_curve.jsonl"

Job = tuple[str, int, int]  # contestant, seed, rows
Messages = list[dict[str, Any]]

_WRITES = re.compile(r"^(new_\w+|proposed_instruction|hunks)$")
_PIECE = re.compile(r"\w+|[^\w\s]+")


def asks_for_text(prompt: Prompt) -> bool:
    """Whether a prompt asks for a new instruction, whoever wrote it."""
    return prompt.form in ("tags", "fence") or any(_WRITES.match(asked.name) for asked in prompt.asked)


class Watch:
    """Answers as a world does, and keeps the prompts of each proposal and of the critics.

    What is asked for between two calls of the student is one proposal, if several texts may be written at once, else
    each text is one. After so many proposals everything is refused.
    """

    def __init__(self, world: World, most: int, *, several: bool) -> None:
        self.world, self.most, self.several = world, most, several
        self.proposals: list[list[Messages]] = []
        self.critics: list[Messages] = []
        self._writing, self._idle = False, 0

    def answer(self, call: Call) -> Any:
        """The reply of the world.

        Raises:
            Refused: Enough is known.
        """
        prompt = Prompt(call.messages)
        if asks_for_text(prompt):
            if not self._writing:
                self._refuse()
                self.proposals.append([])
            self._writing, self._idle = self.several, 0
            self.proposals[-1].append(call.messages)
        elif call.model == STUDENT:
            self._writing = False
            self._idle += bool(self.proposals)
            self._refuse()
        elif call.model == CRITIC:
            self.critics.append(call.messages)
        return self.world.answer(call)

    def _refuse(self) -> None:
        if len(self.proposals) == self.most or self._idle > PATIENCE:
            raise Refused(403, "enough")


def run_ours(watch: Watch, url: str, name: str, seed: int) -> None:
    """Train with one of our optimizers."""
    import promptgrad as pg
    from promptgrad import optim
    from promptgrad.errors import PromptgradError

    world = watch.world
    program, writer = world.program(url), world.lm(url, WRITER)
    optimizer = getattr(optim, CLASSES[name])(program.parameters(), lm=writer)
    trainer = pg.Trainer(
        program,
        optimizer,
        metric=world.metric,
        budget=pg.Budget(calls=BUDGET),
        seed=seed,
        progress=False,
    )
    with contextlib.suppress(PromptgradError), warnings.catch_warnings():  # it is stopped by an LM that answers no more
        warnings.simplefilter("ignore")
        trainer.fit(world.train, world.val)


def run_critic(watch: Watch, url: str, engine: str) -> None:
    """Ask our critic about the runs of the start, one call at a time or in groups."""
    from promptgrad import nn

    world = watch.world
    program, rows = world.program(url), world.train
    nn.MetricLoss(world.metric)(program.map(rows), rows).backward(world.lm(url, CRITIC), engine=engine)


def run_peer(watch: Watch, url: str, name: str, seed: int) -> None:
    """Train with a peer."""
    from _peers import PEERS

    PEERS[name](watch.world, url, seed, BUDGET)


def plain(world: World) -> Messages:
    """The training rows with what the start answers, side by side."""
    shown = []
    for row in world.rows["train"]:
        messages = [{"role": "system", "content": world.start}, {"role": "user", "content": row["ticket"]}]
        answer = world.answer(Call(STUDENT, messages, 0.0, {}))
        shown.append(f"ticket: {row['ticket']}\ncode: {answer}\nfeedback: {world.judge(row, answer)[1]}")
    return [{"role": "user", "content": "\n\n".join(shown)}]


def shown_by(name: str, world: World, seed: int) -> dict[int, list[Messages]]:
    """What a contestant shows: the prompts of each proposal, from 1; those of a critic, or the plain rows, as 1."""
    if name == "rows":
        return {1: [plain(world)]}
    watch = Watch(world, 1 if name == "mipro-peer" else PROPOSALS, several=name not in ONE_AT_A_TIME)
    with Server(watch.answer) as url:
        if name in CRITICS:
            run_critic(watch, url, name.removeprefix("critic-"))
            return {1: watch.critics}
        (run_ours if name in CLASSES else run_peer)(watch, url, name, seed)
    return dict(enumerate(watch.proposals, 1))


def accuracy(world: World, messages: Messages) -> float:
    """The share of fresh rows that are right by the rules which the perfect learner concludes from a prompt."""
    rules = read_rules(world.conclude(Prompt(messages)).text)
    rows = world.rows["test"]
    return mean(decide(rules, find(row["ticket"])[0][0]) == row["code"] for row in rows)


def lines_of(job: Job) -> list[dict[str, Any]]:
    """Let one contestant have some rows of one world, and score what it shows of them."""
    name, seed, rows = job
    world = make("W2", seed, train=rows, test=FRESH)
    lines = []
    for number, shown in shown_by(name, world, seed).items():
        texts = ["\n".join(message["content"] for message in messages) for messages in shown]
        known = [sum(row.label is not None for row in find_rows(text)) for text in texts]
        line = {
            "world": "W2",
            "seed": seed,
            "rows": rows,
            "contestant": name,
            "proposal": number,
            "prompts": len(texts),
        }
        if shown:
            line["accuracy"] = round(mean(accuracy(world, messages) for messages in shown), 4)
            line["labels"] = round(mean(known), 1)
            line["tokens"] = round(mean(len(_PIECE.findall(text)) for text in texts))
        lines.append({**line, "simulated": True})
    return lines


def is_ours(line: dict[str, Any]) -> bool:
    """Whether our optimizers or critics made a line."""
    return line["contestant"] in (*CLASSES, *CRITICS)


def table(lines: Iterable[dict[str, Any]]) -> str:
    """A Markdown table: the accuracy of each prompt by the number of rows, its labels and tokens at the most rows.

    A search that was done after its first proposal counts with that one where the second is shown.
    """
    groups: dict[tuple[str, int], dict[int, dict[int, dict[str, Any]]]] = {}
    for line in lines:
        if "accuracy" in line:
            group = groups.setdefault((line["contestant"], line["proposal"]), {})
            group.setdefault(line["rows"], {})[line["seed"]] = line
    for (name, number), group in groups.items():
        if number == 1 and (second := groups.get((name, 2))):
            for rows, first in group.items():
                second[rows] = {**first, **second.get(rows, {})}  # a search that ended before has its first
    counts = sorted({rows for group in groups.values() for rows in group})
    head = ["prompt", *(f"{rows} rows" for rows in counts), "labels", "tokens"]
    found = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for name, number in sorted(groups, key=lambda key: (CONTESTANTS.index(key[0]), key[1])):
        group, cells = groups[name, number], [f"{name}, {number}" if name in SEARCHES else name]
        for rows in counts:
            shares = [line["accuracy"] for line in group.get(rows, {}).values()]
            if len(shares) > 1:
                low, high = interval(shares)
                cells.append(f"{mean(shares):.2f} [{low:.2f}, {high:.2f}]")
            else:
                cells.append("".join(f"{share:.2f}" for share in shares))
        most = group[max(group)].values()
        cells += [f"{mean(line['labels'] for line in most):.0f}", f"{mean(line['tokens'] for line in most):.0f}"]
        found.append("| " + " | ".join(cells) + " |")
    return "\n".join(found)


def main() -> int:
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.add_argument("--seeds", default="1000:1004", help="first:end")
    about.add_argument("--rows", default=",".join(map(str, ROWS)), help="numbers of training rows")
    about.add_argument("--only", default=",".join(CONTESTANTS), help="names of contestants")
    options(about, DEFAULT_OUT, "table")
    given = about.parse_args()
    if given.table:
        print(table(read(given.out)))
        return 0
    names = given.only.split(",")
    if unknown := set(names) - set(CONTESTANTS):
        about.error(f"unknown: {', '.join(sorted(unknown))}")
    jobs = [(name, seed, rows) for rows in numbers(given.rows) for seed in numbers(given.seeds) for name in names]
    failed = study(
        lines_of,
        jobs,
        given.out,
        given.jobs,
        job_key=lambda job: job,
        line_key=lambda line: (line["contestant"], line["seed"], line["rows"]),
        ours=is_ours,
        mixed=given.mixed,
        noun="jobs",
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
