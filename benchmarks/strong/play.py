"""Train the programs of `tasks.py` with a strong language model as critic and writer.

    python benchmarks/strong/play.py                 what the kept exchanges come to, as JSON lines; no LM is asked
    python benchmarks/strong/play.py --renew         the same, after a prompt got other words: see below
    python benchmarks/strong/play.py --url URL       ask the model "strong" of a server, and keep the exchanges

A cassette in `cassettes/` holds what one run asked the strong LM, and what it replied; the answers of the student are
computed again. `--renew` writes cassettes anew: each request gets the reply that was written for the request in its
place. That is for prompts that say or show much the same as before; one that asks for something else needs `--url`.
With it a run stops at an instruction that the student does not know, prints it, and goes on from there when it is
started again: write down in `says.py` what the instruction says, no more and no less.
"""

import argparse
import json
import re
import sys
import tempfile
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import says
import student
import tasks

import promptgrad as pg
from promptgrad import lm, optim
from promptgrad.train import FitResult

CASSETTES = Path(__file__).parent / "cassettes"
STEPS = 2
_FIELD = re.compile(r"^\[\[ ## (\w+) ## \]\]$", re.M)
_PLACE = re.compile(r"^\[\[ ## role ## \]\]\n(\w+)", re.M)


@dataclass(frozen=True)
class Played:
    """What one run came to.

    Attributes:
        result: The result of `Trainer.fit`.
        steps: For each step the texts that were proposed, by the path of their parameter; not those that were refused.
        refused: Why proposals were refused.
        texts: The instructions of the program afterwards.
    """

    result: FitResult
    steps: list[dict[str, str]]
    refused: list[str]
    texts: dict[str, str]


def student_lm() -> lm.LM:
    """The student as a language model."""

    def reply(messages: Sequence[lm.Message]) -> str:
        return student.answer(str(messages[0].content), str(messages[-1].content), says.says)

    return lm.FunctionLM(reply, "student")


def instructions(model: Any) -> dict[str, Any]:
    """The parameters of a program that hold instructions, by path."""
    return {path: value for path, value in model.named_parameters() if path.endswith(".instruction")}


def play(name: str, strong: lm.LM, pupil: lm.LM | None = None) -> Played:
    """Run `Trainer.fit(TGD)` on a task: the strong LM writes, and is the critic where there is something to divide.

    Args:
        name: Name of the task.
        strong: The strong LM.
        pupil: The LM of the program; by default the student.
    """
    task = tasks.task(name)
    model = task.program().to(pupil or student_lm())
    # the exchanges were recorded with a critic; `blame="writer"`, the default over several texts, is another prompt
    optimizer = optim.TGD(instructions(model).values(), lm=strong, proposals=1, steps=STEPS, blame="critic")
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        trainer = pg.Trainer(
            model, optimizer, metric=task.metric, budget=pg.Budget(calls=300), run_dir=run, seed=0, progress=False
        )
        result = trainer.fit(task.train, task.val)
        journal = [json.loads(line) for line in (run / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    made = [entry for entry in journal if entry["kind"] == "proposal"]
    steps: dict[int, dict[str, str]] = defaultdict(dict)
    for entry in made:
        if not entry["refused"]:
            steps[entry["step"]][entry["path"]] = entry["text"]
    texts = {path: str(value.data) for path, value in instructions(model).items()}
    return Played(result, list(steps.values()), [e["refused"] for e in made if e["refused"]], texts)


def score(name: str, texts: dict[str, str]) -> float:
    """Mean score of the student on the test rows of a task, with these instructions."""
    task = tasks.task(name)
    model = task.program().to(student_lm())
    for path, value in instructions(model).items():
        value.data = texts.get(path, value.data)
    return float(pg.evaluate(model, task.test, task.metric, progress=False).score)


def kept(name: str) -> list[dict[str, Any]]:
    """The exchanges of a run with the strong LM, in JSON types."""
    lines = (CASSETTES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry for entry in map(json.loads, lines) if entry["kind"] == "call"]


@contextmanager
def replayed(name: str) -> Iterator[tuple[Any, lm.LM]]:
    """The cassette of a run and its strong LM, which refuses what it has no reply to."""
    with lm.replay(CASSETTES / f"{name}.jsonl", strict=False) as cassette:  # the student answers for itself
        yield cassette, cassette.lm("strong")


def purpose(messages: Sequence[Any]) -> tuple[str, ...]:
    """What a request is for: the fields that it asks for, and the step of the program that it is about."""
    system, user = str(messages[0]["content"]), str(messages[-1]["content"])
    place = _PLACE.search(user)
    return (*_FIELD.findall(system), *(place.groups() if place else ()))


@contextmanager
def recording(name: str) -> Iterator[None]:
    """Write the cassette of a run anew, without what the student was asked; as far as it came, if it is stopped."""
    path = CASSETTES / f"{name}.jsonl"
    new = path.with_suffix(".new")
    try:
        with lm.record(new):
            yield
    finally:
        lines = [json.loads(line) for line in new.read_text(encoding="utf-8").splitlines()]
        new.unlink()
        names = [entry["name"] for entry in lines if entry["kind"] == "lm"]
        own = [e for e in lines if e["kind"] == "cassette" or e.get("name", names[e.get("lm", 0)]) == "strong"]
        own.sort(key=lambda e: ("cassette", "lm").index(e["kind"]) if e["kind"] in ("cassette", "lm") else 2)
        text = "".join(json.dumps({**e, "lm": 0} if "lm" in e else e, separators=(",", ":")) + "\n" for e in own)
        path.write_text(text, encoding="utf-8")


def ask(name: str, url: str) -> None:
    """Run a task with the strong LM of a server; what is on record is not asked again."""
    with ExitStack() as stack:
        if (CASSETTES / f"{name}.jsonl").exists():
            stack.enter_context(lm.replay(CASSETTES / f"{name}.jsonl", strict=False))
        stack.enter_context(recording(name))
        play(name, lm.HTTP("strong", url, timeout=36000))


def renew(name: str) -> None:
    """Write the cassette of a run anew: each request gets the reply of the old one in its place."""
    left: dict[tuple[str, ...], deque[str]] = defaultdict(deque)
    for entry in kept(name):
        left[purpose(entry["request"]["messages"])].append(entry["reply"]["text"])

    def reply(messages: Sequence[lm.Message]) -> str:
        waiting = left[purpose(messages)]
        if not waiting:
            raise SystemExit(f"{name}: one more reply is needed, for {purpose(messages)}: ask for it with --url")
        return waiting.popleft()

    old = (CASSETTES / f"{name}.jsonl").read_text(encoding="utf-8")
    try:
        with recording(name):
            play(name, lm.FunctionLM(reply, "strong"))
    except BaseException:
        (CASSETTES / f"{name}.jsonl").write_text(old, encoding="utf-8")
        raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(tasks.POLICIES)}")
    parser.add_argument("--renew", action="store_true")
    parser.add_argument("--url")
    asked = parser.parse_args()
    for name in asked.names or tasks.POLICIES:
        if asked.url:
            ask(name, asked.url)
        elif asked.renew:
            renew(name)
        with replayed(name) as (_, strong):
            played = play(name, strong)
        exchanges = kept(name)
        line = {
            "task": name,
            "start": score(name, {}),
            "steps": [round(score(name, texts), 3) for texts in played.steps],
            "outcome": played.result.outcome,
            "end": round(score(name, played.texts), 3),
            "refused": played.refused,
            "strong": len(exchanges),
            "prompt_tokens": sum(entry["reply"]["usage"]["input_tokens"] for entry in exchanges),
        }
        sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
