"""`optim.GEPA(parity=True)` beside the package gepa: the same seed, data, scores and texts; are the decisions the same?

    python benchmarks/parity_gepa.py                  # needs the package gepa, 0.1.4
    python benchmarks/parity_gepa.py --write tests/optim/gepa_sequences.json

SIMULATED: the program of three texts, the writer and the scores are functions of this script, so that both make the
same proposals. Each step of both searches is written down (the parent, the minibatch, the sums on it before and after,
whether the child joined the pool; the sides, the ancestor, the examples and the verdict of a merge; the metric calls so
far), and the two sequences are compared. The last line is JSON. `--write` keeps the package's sequences of a few seeds,
which the tests replay without it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import promptgrad as pg
from promptgrad import aio, nn, optim, run
from promptgrad.search import Session
from promptgrad.testing import Fields

NAMES = ("a", "b", "c")
SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "all texts": {"components": "all"},
    "minibatch 4": {"minibatch_size": 4},
    "parts": {"fronts": "part"},
    "rows and parts": {"fronts": "both"},
    "no merges": {"max_merges": 0},
}
Sequence = list[dict[str, Any]]


class World:
    """Scores that depend on the texts, the example and a seed, and on nothing else."""

    def __init__(self, seed: int, train: int = 11, val: int = 17) -> None:
        self.seed = seed
        self.train = [f"train {number}" for number in range(train)]
        self.val = [f"val {number}" for number in range(val)]

    def draw(self, *what: object) -> float:
        digest = hashlib.sha256(json.dumps([self.seed, *what]).encode()).digest()
        return int.from_bytes(digest[:4], "big") / 2**32

    def parts(self, texts: dict[str, str], example: str) -> dict[str, float]:
        """How well each text does on an example: 0, a half or 1; later texts are better, most of the time."""
        parts = {}
        for name, text in texts.items():
            skill = self.draw("skill", text) * min(1.0, 0.4 + int(text.split("v")[1]) / 60)
            parts[name] = round(2 * min(1.0, skill + 0.5 * self.draw("luck", text, example))) / 2
        return parts

    def score(self, texts: dict[str, str], example: str) -> float:
        """One text decides on an example; on every fourth all do."""
        parts = self.parts(texts, example)
        if self.draw("all", example) < 0.25:
            return sum(parts.values()) / len(parts)
        return parts[NAMES[int(3 * self.draw("which", example))]]


class Program(nn.Module):
    """Three calls whose answers say by which instruction they were made."""

    def __init__(self) -> None:
        super().__init__()
        for name in NAMES:
            setattr(self, name, nn.Predict(f"text -> said_{name}", instruction=f"{name} v0"))

    def forward(self, text: str) -> dict[str, str]:
        return {name: getattr(self, name)(text=text)[f"said_{name}"] for name in NAMES}


def ours(world: World, steps: int, **options: Any) -> Sequence:
    """The steps of our search."""
    written = 0

    def write(inputs: dict[str, str]) -> str:
        nonlocal written
        written += 1
        return f"{inputs['instruction'].split()[0]} v{written}"

    def answer(messages: Any) -> str:
        said = re.match(r"[abc] v\d+", messages[0].content)
        known = {f"said_{name}": said[0] if said else "" for name in NAMES}
        return Fields(new_instruction=write, analysis="none", **known)(messages)

    def metric(example: pg.Example, output: dict[str, str]) -> pg.Score:
        texts = {name: str(output[name]) for name in NAMES}
        score = world.score(texts, example.text)
        return pg.Score(score, feedback=f"{score:g}", parts=world.parts(texts, example.text))

    model, journal = Program().to(pg.lm.FunctionLM(answer, name="simulated")), run.Journal()
    train, val = ([pg.Example(text=text).with_inputs("text") for text in rows] for rows in (world.train, world.val))
    session = Session(
        model=model,
        train=train,
        val=val,
        metric=metric,
        seed=world.seed,
        journal=journal,
        ledger=run.Ledger(run.Budget(), journal),
        progress=False,
    )

    async def work() -> None:
        with run.active(journal=journal, ledger=session.ledger):
            session.baseline = await session.evaluate(session.base, session.val, scope="baseline")
            await optim.GEPA(model.parameters(), steps=steps, parity=True, **options).fit(session)

    aio.run(work())
    number = {example.id: index for index, example in enumerate(val)}
    steps_made = []
    for event in journal.events():
        if event["kind"] == "gepa":
            keys = ("parent", "minibatch", "merge", "examples", "before", "after", "accepted", "metric_calls")
            step = {key: event[key] for key in keys if key in event}
            if "examples" in step:
                step["examples"] = [number[key] for key in step["examples"]]
            steps_made.append(step)
    return steps_made


def theirs(world: World, steps: int, **options: Any) -> Sequence:
    """The steps of the package gepa."""
    import gepa
    from gepa.core.adapter import EvaluationBatch

    written, paid = 0, []
    ended: dict[str, Any] = {}

    class Adapter:
        propose_new_texts = None

        def evaluate(self, batch: list[str], candidate: dict[str, str], capture_traces: bool = False) -> Any:  # noqa: FBT001, FBT002 - theirs
            scores = [world.score(candidate, example) for example in batch]
            parts = [world.parts(candidate, example) for example in batch]
            traces = list(scores) if capture_traces else None
            return EvaluationBatch(outputs=list(batch), scores=scores, trajectories=traces, objective_scores=parts)

        def make_reflective_dataset(self, candidate: Any, batch: Any, components: list[str]) -> dict[str, Any]:
            return {name: [{"Feedback": f"{score:g}"} for score in batch.scores] for name in components}

    class Watch:
        def on_iteration_end(self, event: Any) -> None:
            paid.append(event["state"].total_num_evals)

        def on_optimization_end(self, event: Any) -> None:
            ended["trace"] = event["final_state"].full_program_trace

    class Silent:
        def log(self, message: str) -> None:
            pass

    def write(prompt: str) -> str:
        nonlocal written
        written += 1
        found = re.search(r"([abc]) v\d+", prompt)
        return f"```\n{found[1] if found else 'none'} v{written}\n```"

    merges = options.get("max_merges", 5)
    gepa.optimize(
        {name: f"{name} v0" for name in NAMES},
        world.train,
        world.val,
        adapter=Adapter(),
        reflection_lm=write,
        reflection_minibatch_size=options.get("minibatch_size", 3),
        module_selector=options.get("components", "round_robin"),
        frontier_type={"example": "instance", "part": "objective", "both": "hybrid"}[options.get("fronts", "example")],
        use_merge=merges > 0,
        max_merge_invocations=merges,
        stop_callbacks=lambda state: state.i + 1 >= steps,
        callbacks=[Watch()],
        logger=Silent(),
        seed=world.seed,
    )
    return [_plain(entry, calls) for entry, calls in zip(ended["trace"], paid, strict=True)]


def _plain(entry: dict[str, Any], calls: int) -> dict[str, Any]:
    """A step of the package's trace under our names."""
    if "merged_entities" in entry:
        before = [sum(entry["id1_subsample_scores"]), sum(entry["id2_subsample_scores"])]
        after = sum(entry["new_program_subsample_scores"])
        step = {"merge": list(entry["merged_entities"]), "examples": entry["subsample_ids"], "before": before}
        return {**step, "after": after, "accepted": "new_program_idx" in entry, "metric_calls": calls}
    tried = entry["tasks"][0]
    step = {"parent": entry["selected_program_candidate"], "minibatch": entry["subsample_ids"]}
    if "new_subsample_scores" in tried:
        step |= {"before": sum(tried["subsample_scores"]), "after": sum(tried["new_subsample_scores"])}
    return {**step, "accepted": "new_program_idx" in entry, "metric_calls": calls}


def differs(mine: Sequence, given: Sequence) -> str:
    """The first difference between two sequences; empty where there is none."""
    if len(mine) != len(given):
        return f"{len(mine)} steps and {len(given)}"
    for number, (step, other) in enumerate(zip(mine, given, strict=True)):
        if {key: step.get(key) for key in other} != other or ("after" in step) is not ("after" in other):
            return f"step {number}: {step} and {other}"
    return ""


def main() -> None:
    """Compare, or write the package's sequences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--write", type=Path, help="keep the sequences of the package for the tests")
    args = parser.parse_args()
    if args.write is not None:
        kept = {
            name: {str(seed): theirs(World(seed), args.steps, **options) for seed in range(args.first, args.first + 2)}
            for name, options in SETTINGS.items()
        }
        lines = [f"{json.dumps(name)}: {json.dumps(sequences)}" for name, sequences in kept.items()]
        args.write.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        return
    import gepa  # noqa: F401 - fails early

    same = compared = merges = accepts = 0
    for name, options in SETTINGS.items():
        for seed in range(args.first, args.first + args.seeds):
            mine, given = ours(World(seed), args.steps, **options), theirs(World(seed), args.steps, **options)
            why = differs(mine, given)
            print(f"{name:<16} seed {seed}: {why or f'{len(given)} steps are the same'}")
            same, compared = same + (not why), compared + 1
            merges += sum("merge" in step for step in given)
            accepts += sum(step["accepted"] for step in given)
    counts = {"runs": compared, "same": same, "steps": args.steps, "merges": merges, "accepted": accepts}
    print(json.dumps({"benchmark": "parity_gepa", "simulated": True, "gepa": "0.1.4", **counts}))


if __name__ == "__main__":
    main()
