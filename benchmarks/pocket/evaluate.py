"""The ability table of the pocket model: `python benchmarks/pocket/evaluate.py` writes JSON and Markdown.

Everything runs on the exported folder through `transformers`. `--split test` (the published table) uses texts and
instruction sentences that no training has seen and is meant to be run once; `--split dev` draws fresh texts of the
training part.
Every cell has its number of samples and a 95 % Wilson interval.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from promptgrad.data import pocket  # noqa: E402
from promptgrad.data.pocket import _episodes as ep  # noqa: E402
from promptgrad.data.pocket._ops import (  # noqa: E402
    FAMILIES,
    HELD_OUT_COMPOSITIONS,
    HELD_OUT_FAMILIES,
    OPS,
    Fields,
    LabelMap,
    Operation,
    make_map,
)
from promptgrad.data.pocket._phrases import IT_IS_RIGHT, instruction, names_op  # noqa: E402

Prompt = list[str]
SINGLE = [
    op.name
    for op in OPS.values()
    if op.hops == 1 and op.family not in HELD_OUT_FAMILIES and op.neutral and op.name not in HELD_OUT_COMPOSITIONS
]
TWO = [
    op.name
    for op in OPS.values()
    if op.hops == 2 and op.family not in HELD_OUT_FAMILIES and op.name not in HELD_OUT_COMPOSITIONS
]
HELD = [name for family in HELD_OUT_FAMILIES for name in FAMILIES[family]]


class Pocket:
    """The exported model: token lists in, token lists out."""

    def __init__(self, folder: Path, batch: int = 100) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.net: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.batch = batch
        self.generated = 0

    def __call__(self, prompts: Sequence[Prompt], *, sample: bool = False, longest: int = 40) -> list[Prompt]:
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        answers: list[Prompt] = [[] for _ in prompts]
        for at in range(0, len(order), self.batch):
            rows = order[at : at + self.batch]
            batch = self.tokenizer(
                [" ".join(prompts[i]) for i in rows], padding=True, return_tensors="pt", add_special_tokens=False
            )
            how = {"do_sample": True, "temperature": 1.0, "top_k": 0} if sample else {"do_sample": False}
            with torch.inference_mode():
                out = self.net.generate(**batch, max_new_tokens=longest, **how)
            for i, ids in zip(rows, out[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
                words = self.tokenizer.convert_ids_to_tokens(ids)
                answers[i] = words[: words.index("<|end|>")] if "<|end|>" in words else words
                self.generated += len(answers[i]) + 1
        return answers


def prompt(
    system: str, user: Prompt, marker: str, demos: Sequence[tuple[Prompt, list[tuple[str, Prompt]]]] = ()
) -> Prompt:
    episode = ep.Episode(system)
    for shown, output in demos:
        episode.turn(shown, output)
    return [*episode.tokens, *user, f"[[{marker}]]"]


def part_of(words: Prompt, marker: str) -> Prompt:
    """What follows a marker, up to the next one; everything before the first marker if it is not there."""
    if f"[[{marker}]]" in words:
        words = words[words.index(f"[[{marker}]]") + 1 :]
    end = next((i for i, word in enumerate(words) if word.startswith("[[")), len(words))
    return words[:end]


class Table:
    """Rows of (group, ability, hits of n), with Wilson intervals."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, group: str, ability: str, hits: Sequence[bool]) -> float:
        n, k, z = len(hits), sum(hits), 1.96
        p = k / n
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        low, high = max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))
        row = {"group": group, "ability": ability, "value": p, "low": low, "high": high, "n": n}
        self.rows.append({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()})
        print(f"{group:24s} {ability:62s} {p:.3f} [{low:.2f}, {high:.2f}] n={n}", flush=True)
        return p

    def markdown(self) -> str:
        lines, group = [], ""
        for row in self.rows:
            if row["group"] != group:
                group = row["group"]
                lines += ["", f"| {group} | share right | 95 % interval | n |", "|---|---|---|---|"]
            lines.append(f"| {row['ability']} | {row['value']:.2f} | {row['low']:.2f}-{row['high']:.2f} | {row['n']} |")
        return "\n".join(lines).strip() + "\n"


class Bench:
    def __init__(self, model: Pocket, split: str, n: int, seed: int) -> None:
        self.model, self.n, self.seed, self.table = model, n, seed, Table()
        self.notes: dict[str, list[str]] = {}
        self.part = "test" if split == "test" else "train"

    def random(self, name: str) -> Random:
        return Random(f"{self.part} {self.seed} {name}")

    # --- tasks ---

    def solve(self, items: Sequence[tuple[Prompt, Prompt]], **kwargs: Any) -> list[bool]:
        """Items are (prompt, right answer)."""
        written = self.model([p for p, _ in items], **kwargs)
        return [part_of(words, "answer") == gold for words, (_, gold) in zip(written, items, strict=True)]

    def items(
        self,
        name: str,
        draw: Callable[[Random], Operation],
        level: str,
        shots: int = 0,
        *,
        reason: bool = False,
        rival: bool = False,
        wrong: int = 0,
        n: int | None = None,
    ) -> list[tuple[Prompt, Prompt]]:
        r, items = self.random(name), []
        while len(items) < (n or self.n):
            op = draw(r)
            other = r.choice(ep.rivals(op)) if ep.rivals(op) else None
            if (rival or wrong) and other is None:
                continue
            system = instruction(r, other if rival and other else op, level, self.part)
            demos = []
            for i in range(shots):
                fields = op.draw(r, self.part)
                output = ep.outputs(op, fields, reason=reason)
                if i < wrong and other:
                    output[-1] = ("answer", other.solve(fields).answer)
                demos.append((ep.render(fields), output))
            r.shuffle(demos)
            fields = op.draw(r, self.part)
            gold = op.solve(fields).answer
            if rival and other and other.solve(fields).answer == gold:
                continue
            items.append((prompt(system, ep.render(fields), "reasoning" if reason else "answer", demos), gold))
        return items

    def obedience(self) -> None:
        groups = (
            ("one-step tasks", SINGLE),
            ("two-step tasks", TWO),
            ("families held out of meta", HELD),
            ("compositions never trained", list(HELD_OUT_COMPOSITIONS)),
        )
        for group, names in groups:
            self.obeys(group, names)

    def obeys(self, group: str, names: Sequence[str]) -> None:
        def cell(ability: str, level: str, shots: int = 0, **kwargs: Any) -> None:
            items = self.items(f"{group} {ability}", lambda r: OPS[r.choice(names)], level, shots, **kwargs)
            self.table.add(group, ability, self.solve(items))

        cell("precise instruction, unseen sentence", "precise")
        cell("precise instruction, with a reasoning field", "precise", reason=True)
        cell("precise instruction of a rival task (should be near 0)", "precise", rival=True)
        cell("partial instruction", "partial")
        for k in (0, 1, 2, 4, 7):
            cell(f"vague instruction, {k} demos", "vague", k)
        cell("vague instruction, 4 demos, 2 of them wrong", "vague", 4, wrong=2)

    def reasoning(self) -> None:
        families = (
            "sum", "sum-parity", "count-kind", "count-color", "count-even", "second-largest", "range",
            "odd", "attr-of-odd", "attr-of-kind", "attr-of-pick", "attr-of-name", "attr-lookup",
        )  # fmt: skip
        for family in families:
            names = [name for name in FAMILIES[family] if name not in HELD_OUT_COMPOSITIONS]

            def draw(r: Random, names: list[str] = names) -> Operation:
                return OPS[r.choice(names)]

            for reason in (False, True):
                items = self.items(f"reasoning {family}", draw, "precise", reason=reason)
                ability = f"{family}: {'with' if reason else 'without'} reasoning"
                self.table.add("does reasoning pay?", ability, self.solve(items))
        for reason in (False, True):
            items = self.items("long sum", lambda r: OPS["sum"], "precise", reason=reason, n=self.n * 5)
            long = [item for item in items if sum(word in ep.words.DIGITS for word in item[0]) >= 6]
            ability = f"sum of 6 or 7 digits: {'with' if reason else 'without'} reasoning"
            self.table.add("does reasoning pay?", ability, self.solve(long))

    def maps(self) -> None:
        group = "new label maps"
        for k in (0, 2, 4, 8):
            items = self.items(f"map {k}", make_map, "vague", k)
            self.table.add(group, f"vague instruction, {k} demos", self.solve(items))
        self.table.add(group, "precise instruction", self.solve(self.items("map precise", make_map, "precise")))
        items = [i for i in self.items("map is", make_map, "precise", n=self.n * 5) if " is " in " ".join(i[0])]
        items = [i for i in items if " if it is " not in " ".join(i[0])]
        self.table.add(group, "precise instruction worded `class is label`", self.solve(items[: self.n]))
        r, items = self.random("words"), []
        while len(items) < self.n:
            episode = ep.word_map_episode(r)
            shown = [(a, b) for a, b in episode.spans if episode.mask[a]]
            if shown:
                start, end = shown[-1]
                items.append((episode.tokens[:start], episode.tokens[start : end - 1]))
        self.table.add(group, "word to label, shown before", self.solve(items))

    # --- meta ---

    def accuracy(self, op: Operation, system: str, texts: Sequence[Fields]) -> list[tuple[Prompt, Prompt]]:
        return [(prompt(system, ep.render(fields), "answer"), op.solve(fields).answer) for fields in texts]

    def induction(self) -> None:
        for label, names in (("trained", [*SINGLE, *TWO]), ("held-out", HELD)):
            group = f"induction, {label} families"
            for k in (1, 2, 4, 6):
                r = self.random(f"{group} {k}")
                ops = [OPS[r.choice(names)] for _ in range(self.n)]
                episodes = [ep.induct_episode(r, op, k, part=self.part) for op in ops]
                written = [" ".join(w) for w in self.model([e.tokens[: e.spans[0][0]] for e in episodes])]
                hits = [op.name in names_op(text) for op, text in zip(ops, written, strict=True)]
                self.table.add(group, f"the instruction names the task, {k} examples", hits)
                if k != 4:
                    continue
                texts = [[op.draw(r, self.part) for _ in range(2)] for op in ops]
                systems = {
                    "vague": ["answer the question"] * len(ops),
                    "induced (4 examples)": written,
                    "precise": [instruction(r, op, "precise", self.part) for op in ops],
                }
                for name, each in systems.items():
                    items = [i for o, s, t in zip(ops, each, texts, strict=True) for i in self.accuracy(o, s, t)]
                    self.table.add(group, f"accuracy under the {name} instruction", self.solve(items))
        r = self.random("induct maps")
        maps = [make_map(r) for _ in range(self.n)]
        episodes = [ep.induct_episode(r, op, 6, part=self.part) for op in maps]
        written = [" ".join(w) for w in self.model([e.tokens[: e.spans[0][0]] for e in episodes])]
        items = [i for o, s in zip(maps, written, strict=True) for i in self.accuracy(o, s, [o.draw(r, self.part)])]
        self.table.add(
            "induction, label maps", "accuracy under the induced instruction (6 examples)", self.solve(items)
        )

    def critique(self) -> None:
        for label, names in (("trained", [*SINGLE, *TWO]), ("held-out", HELD)):
            group = f"critique, {label} families"
            r = self.random(group)
            ops = [OPS[r.choice(names)] for _ in range(self.n)]
            fails = []
            for op in ops:
                while True:
                    failure = ep.fail(r, op, part=self.part)
                    if failure.bad is not None or not ep.is_precise(failure.current, op):
                        break
                fails.append(failure)
            written = self.model([prompt(pocket.CRITIQUE_INSTRUCTION, f.render(), "critique") for f in fails])
            hits = [op.name in names_op(" ".join(w)) for op, w in zip(ops, written, strict=True)]
            self.table.add(group, "names the right task, from one failure (ambiguous: below 1)", hits)
        group = "critique, trained families"
        r = self.random("precise critique")
        fails = []
        while len(fails) < self.n:
            op = OPS[r.choice([*SINGLE, *TWO])]
            failure = ep.fail(r, op, part=self.part)
            if failure.bad is None and ep.is_precise(failure.current, op):
                fails.append(failure)
        written = self.model([prompt(pocket.CRITIQUE_INSTRUCTION, f.render(), "critique") for f in fails])
        self.table.add(
            group, "leaves a precise instruction alone (`it is right`)", [" ".join(w) == IT_IS_RIGHT for w in written]
        )
        group = "critique of a chain's second call"
        r = self.random(group)
        episodes = [ep.chain_critique_episode(r, part=self.part) for _ in range(2 * self.n)]
        written = self.model([e.tokens[: e.spans[0][0]] for e in episodes])
        golds = [e.tokens[e.spans[0][0] : e.spans[0][1] - 1] for e in episodes]
        own = [(part_of(g, "none"), part_of(w, "none")) for g, w in zip(golds, written, strict=True)]
        right = IT_IS_RIGHT.split()
        hits = [w == g if g == right else bool(names_op(" ".join(w)) & names_op(" ".join(g))) for g, w in own]
        self.table.add(group, "blames the instruction rightly, or calls it right", hits)
        other = [
            (part_of(g, "input_critique"), part_of(w, "input_critique")) for g, w in zip(golds, written, strict=True)
        ]
        self.table.add(group, "calls a right input right", [w == g for g, w in other if g == right])
        self.table.add(group, "says what a wrong input should have been", [w == g for g, w in other if g != right])
        group = "critique of a chain's first call"
        r = self.random(group)
        ops = [OPS[r.choice([*FAMILIES["pick"], "odd"])] for _ in range(self.n)]
        fails = []
        for op in ops:
            while True:
                failure = ep.fail(r, op, part=self.part, partly=True)
                if failure.bad is not None:
                    break
            fails.append(failure)
        written = self.model([prompt(pocket.CRITIQUE_INSTRUCTION, f.render(), "critique") for f in fails])
        hits = [op.name in names_op(" ".join(w)) for op, w in zip(ops, written, strict=True)]
        self.table.add(group, "names the right task from `the answer should be a grey thing`", hits)

    def improve(self) -> None:
        for label, names in (("trained", [*SINGLE, *TWO]), ("held-out", HELD)):
            group = f"improving, {label} families"
            for n, wrong in ((1, 0), (3, 0), (3, 1), (6, 2)):
                r = self.random(f"{group} {n} {wrong}")
                ops, prompts = [], []
                while len(ops) < self.n:
                    op = OPS[r.choice(names)]
                    others = ep.rivals(op)
                    if wrong and len(others) <= wrong:
                        continue
                    bad, *noise = r.sample(others, 1 + wrong) if others else [None]
                    critiques = [ep.blame(r, op.phrase(r), bad) for _ in range(n - wrong)]
                    critiques += [ep.blame(r, o.phrase(r), bad) for o in noise]
                    r.shuffle(critiques)
                    user = ["[[instruction]]", *instruction(r, bad or op, "vague").split()]
                    user += [word for c in critiques for word in ("[[critique]]", *c.split())]
                    ops.append(op)
                    prompts.append(prompt(pocket.IMPROVE_INSTRUCTION, user, "instruction"))
                hits = [op.name in names_op(" ".join(w)) for op, w in zip(ops, self.model(prompts), strict=True)]
                name = f"{n} critique{'s' * (n > 1)}" + (f", {wrong} of them wrong" if wrong else "")
                self.table.add(group, f"the new instruction names the task, {name}", hits)
        r = self.random("improve maps")
        maps: list[LabelMap] = [make_map(r) for _ in range(self.n)]
        episodes = [ep.improve_episode(r, op, 4) for op in maps]
        written = [" ".join(w) for w in self.model([e.tokens[: e.spans[0][0]] for e in episodes])]
        items = [i for o, s in zip(maps, written, strict=True) for i in self.accuracy(o, s, [o.draw(r, self.part)])]
        self.table.add("improving, label maps", "accuracy, rules collected from 4 critiques", self.solve(items))

    def loop(self, tasks_each: int = 60) -> None:
        """Vague instruction -> failures -> critiques -> new instructions -> accuracy on fresh texts."""
        for label, names in (("trained", [*SINGLE, *TWO]), ("held-out", HELD), ("label maps", [])):
            self.one_step(f"closed loop, {label} families" if names else "closed loop, label maps", names, tasks_each)

    def one_step(self, group: str, names: Sequence[str], n: int) -> None:
        r = self.random(group)
        ops: list[Operation] = [OPS[r.choice(names)] if names else make_map(r) for _ in range(n)]
        train = [[op.draw(r, "train") for _ in range(12)] for op in ops]
        test = [[op.draw(r, self.part) for _ in range(8)] for op in ops]
        starts = [instruction(r, op, "vague") for op in ops]
        items = [self.accuracy(*row) for row in zip(ops, starts, train, strict=True)]
        given = iter(self.model([p for row in items for p, _ in row]))
        asks: list[list[Prompt]] = []
        for start, fields, row in zip(starts, train, items, strict=True):
            failures = [
                ep.Failure(start, f, said, ep.feedback(gold), None)
                for f, (_, gold) in zip(fields, row, strict=True)
                if (said := part_of(next(given), "answer")) != gold
            ]
            asks.append([prompt(pocket.CRITIQUE_INSTRUCTION, f.render(), "critique") for f in failures[:6]])
        torch.manual_seed(0)
        rounds: list[list[str]] = []
        for attempt in range(6):
            chosen = [a if attempt == 0 else r.sample(a, min(len(a), 3)) for a in asks]
            critiques = iter(self.model([p for a in chosen for p in a], sample=attempt > 0))
            improve = [
                self.ask(start, [next(critiques) for _ in a]) if a else []
                for start, a in zip(starts, chosen, strict=True)
            ]
            written = iter(self.model([p for p in improve if p], sample=attempt > 0))
            rounds.append([" ".join(next(written)) if p else start for p, start in zip(improve, starts, strict=True)])
        scores = [self.score(ops, systems, train) for systems in rounds]
        best = [max(range(6), key=lambda k, t=t: sum(scores[k][t])) for t in range(n)]
        final = [rounds[k][t] for t, k in enumerate(best)]
        for ability, systems in (
            ("before (vague instruction)", starts),
            ("after one step: critiques of 6 failures, greedy", rounds[0]),
            ("after one step: best of 6 candidates on 12 training texts", final),
        ):
            self.table.add(group, ability, [hit for row in self.score(ops, systems, test) for hit in row])
        self.notes[group] = [f"{op.name}: {text}" for op, text in zip(ops, final, strict=True)]

    def score(
        self, ops: Sequence[Operation], systems: Sequence[str], texts: Sequence[Sequence[Fields]]
    ) -> list[list[bool]]:
        """Hits of each task on its texts."""
        items = [self.accuracy(*row) for row in zip(ops, systems, texts, strict=True)]
        hits = iter(self.solve([item for row in items for item in row]))
        return [[next(hits) for _ in row] for row in items]

    def chains(self, steps: int = 3) -> None:
        """Two calls, both vague: blame flows from the answer through the second call into the first."""
        group = "two-call programs"
        r = self.random(group)
        tasks = [
            pocket.task(name)
            for name in pocket.families()["chain"]
            if "-of-" in name and not pocket.task(name).held_out
        ]
        train = [task.split(12, 0, 8)[0] for task in tasks]
        test = [task.split(12, 0, 8)[2] for task in tasks]
        vague = [instruction(r, OPS["first"], "vague") for _ in tasks]
        systems = [(v, v) for v in vague]
        before = self.run_chains(systems, test)[0]
        self.table.add(group, "before (both instructions vague)", [h for row in before for h in row])
        hits, middles, answers = self.run_chains(systems, train)
        for step in range(1, steps + 1):
            rows, second = [], []
            for t, (first_system, second_system) in enumerate(systems):
                bad = [i for i, hit in enumerate(hits[t]) if not hit][:6]
                for i in bad:
                    e, middle, said = train[t][i], middles[t][i], answers[t][i]
                    failure = ep.Failure(second_system, {"text": middle}, said, ep.feedback(e.answer.split()), None)
                    rows.append((t, e, middle, first_system))
                    second.append(prompt(pocket.CRITIQUE_WITH_INPUT_INSTRUCTION, failure.render(), "critique"))
            blamed = self.model(second)
            first = []
            for (_, e, middle, first_system), words in zip(rows, blamed, strict=True):
                about_input = " ".join(part_of(words, "input_critique"))
                failure = ep.Failure(first_system, {"text": e.text.split()}, middle, about_input, None)
                first.append(prompt(pocket.CRITIQUE_INSTRUCTION, failure.render(), "critique"))
            upstream = self.model(first)
            asks, owners = [], []
            for t, pair in enumerate(systems):
                mine = [k for k, row in enumerate(rows) if row[0] == t]
                if mine:
                    asks += [
                        self.ask(pair[0], [upstream[k] for k in mine]),
                        self.ask(pair[1], [part_of(blamed[k], "none") for k in mine]),
                    ]
                    owners.append(t)
            written = [" ".join(words) for words in self.model(asks)]
            proposed = list(systems)
            for k, t in enumerate(owners):
                proposed[t] = (written[2 * k], written[2 * k + 1])
            new = self.run_chains(proposed, train)
            for t in owners:
                if sum(new[0][t]) >= sum(hits[t]):
                    systems[t] = proposed[t]
                    hits[t], middles[t], answers[t] = (new[0][t], new[1][t], new[2][t])
            if step in (1, steps):
                after = self.run_chains(systems, test)[0]
                ability = f"after {step} step{'s' * (step > 1)}, kept if not worse on 12 training texts"
                self.table.add(group, ability, [h for row in after for h in row])
        self.notes[group] = [f"{task.name}: {a} | {b}" for task, (a, b) in zip(tasks, systems, strict=True)]

    def run_chains(
        self, systems: Sequence[tuple[str, str]], data: Sequence[Sequence[Any]]
    ) -> tuple[list[list[bool]], list[list[Prompt]], list[list[Prompt]]]:
        """Hits, intermediate words and answers of each chain on its examples."""
        first = [
            prompt(a, ["[[text]]", *e.text.split()], "answer")
            for (a, _), rows in zip(systems, data, strict=True)
            for e in rows
        ]
        middle = [part_of(words, "answer") for words in self.model(first)]
        owners = [b for (_, b), rows in zip(systems, data, strict=True) for _ in rows]
        second = [prompt(b, ["[[text]]", *m], "answer") for b, m in zip(owners, middle, strict=True)]
        answer = [part_of(words, "answer") for words in self.model(second)]
        middles, answers = iter(middle), iter(answer)
        grouped = [([next(middles) for _ in rows], [next(answers) for _ in rows]) for rows in data]
        hits = [
            [w == e.answer.split() for w, e in zip(a, rows, strict=True)]
            for (_, a), rows in zip(grouped, data, strict=True)
        ]
        return hits, [m for m, _ in grouped], [a for _, a in grouped]

    def ask(self, system: str, critiques: Sequence[Prompt]) -> Prompt:
        user = ["[[instruction]]", *system.split(), *[word for c in critiques for word in ("[[critique]]", *c)]]
        return prompt(pocket.IMPROVE_INSTRUCTION, user, "instruction")

    # --- fine-tuning ---

    def finetune(self, steps: int = 60, batch: int = 32) -> None:
        """LoRA (rank 8, all linear layers) on 200 examples of a task under a vague instruction."""
        import copy

        from peft import LoraConfig, get_peft_model

        base = self.model.net
        plans = [(f"label map {s}", pocket.label_map(1000 + s)) for s in range(5)]
        plans += [(name, pocket.task(name)) for name in ("color-of-last", "sum")]
        for name, task in plans:
            torch.manual_seed(0)
            train, _, test = task.split(200, 0, 200)
            system = "answer the question"

            def as_item(example: Any, system: str = system) -> tuple[Prompt, Prompt]:
                return prompt(system, ["[[text]]", *example.text.split()], "answer"), example.answer.split()

            before = self.solve([as_item(e) for e in test])
            net = get_peft_model(
                copy.deepcopy(base), LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear")
            )
            weights = [p for p in net.parameters() if p.requires_grad]
            optimizer, r, began = torch.optim.AdamW(weights, 5e-3, weight_decay=0), Random(3), time.time()
            net.train()
            for step in range(steps):
                rows = [as_item(e) for e in r.sample(train, batch)]
                lines = [" ".join([*p, *gold, "<|end|>"]) for p, gold in rows]
                data = self.model.tokenizer(lines, padding=True, return_tensors="pt", add_special_tokens=False)
                labels = data["input_ids"].clone()
                width = labels.shape[1]
                for i, (_, gold) in enumerate(rows):
                    labels[i, : width - len(gold) - 1] = -100
                for group in optimizer.param_groups:
                    group["lr"] = 5e-3 * min(1, (step + 1) / 5) * (1 - step / steps)
                net(**data, labels=labels).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            seconds = time.time() - began
            self.model.net = net.eval()
            after = self.solve([as_item(e) for e in test])
            self.model.net = base
            self.table.add("LoRA on 200 examples", f"{name}: vague, before", before)
            self.table.add("LoRA on 200 examples", f"{name}: vague, after {seconds:.0f} s", after)


def fill_in(card: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->` in the model card."""
    before, rest = card.read_text().split(f"<!-- {name} -->")
    after = rest.split(f"<!-- /{name} -->")[1]
    card.write_text(f"{before}<!-- {name} -->\n{text.strip()}\n<!-- /{name} -->{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=pocket.model_path())
    parser.add_argument("--split", choices=("dev", "test"), default="test")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names of the sections")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = Pocket(args.model)
    bench, began = Bench(model, args.split, args.n, args.seed), time.time()
    sections = ("obedience", "reasoning", "maps", "induction", "critique", "improve", "loop", "chains", "finetune")
    for section in args.only or sections:
        getattr(bench, section)()
    args.out.mkdir(parents=True, exist_ok=True)
    report = {
        "split": args.split,
        "seed": args.seed,
        "seconds": round(time.time() - began),
        "generated_tokens": model.generated,
        "parameters": sum(p.numel() for p in model.net.parameters()),
        "rows": bench.table.rows,
        "written": bench.notes,
    }
    (args.out / f"abilities-{args.split}.json").write_text(json.dumps(report, indent=1) + "\n")
    (args.out / f"abilities-{args.split}.md").write_text(bench.table.markdown())
    if args.split == "test" and not args.only:
        fill_in(args.model / "README.md", "abilities", bench.table.markdown())
    print(f"{report['seconds']} s, {model.generated} tokens generated")


if __name__ == "__main__":
    main()
