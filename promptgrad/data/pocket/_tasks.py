"""The task world as a data set: tasks by name, seeded splits, a metric with feedback, and the words of the world."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from promptgrad.data._example import Example
from promptgrad.data._score import Score
from promptgrad.data.pocket._episodes import SPECIALS, build_vocabulary, feedback
from promptgrad.data.pocket._ontology import CLASSES
from promptgrad.data.pocket._ops import FAMILIES, HELD_OUT_FAMILIES, INDEX, OPS, Operation, make_map
from promptgrad.data.pocket._phrases import instruction as say
from promptgrad.errors import DataError

LEVELS = ("vague", "partial", "precise")
_MAPS = tuple(f"label-map-{feature}" for feature in CLASSES)
_CHAINS = {
    f"chain-{op.name}": (_first, op.name.split("-of-")[0])
    for op in OPS.values()
    if op.family in ("attr-of-pick", "attr-of-kind", "attr-of-odd")
    for _first in [op.name.split("-of-")[1]]
}


def _step_name(word: str) -> str:
    return word if word in INDEX or word == "odd" else f"find-{word}"


def tasks() -> tuple[str, ...]:
    """Names of all tasks: operations, label maps (`label-map-...`) and chains of two calls (`chain-...`)."""
    return (*OPS, *_MAPS, *_CHAINS)


def families() -> dict[str, tuple[str, ...]]:
    """Names of the tasks of each family."""
    found = {family: tuple(names) for family, names in FAMILIES.items()}
    return {**found, "label-map": _MAPS, "chain": tuple(_CHAINS)}


def held_out_families() -> tuple[str, ...]:
    """Families whose tasks the model does by instruction and demos, but has never criticised or worded.

    A better instruction for one of them is therefore never recalled from the training.
    """
    return HELD_OUT_FAMILIES


def metric(example: Example, output: Any) -> Score:
    """Exact match of the answer's words, with feedback where it is wrong.

    Args:
        example: An example of any task of this world.
        output: The answer as text, or an object or mapping with `answer`.
    """
    if isinstance(output, Mapping):
        output = output.get("answer", "")
    elif not isinstance(output, str):
        output = getattr(output, "answer", "")
    gold = str(example["answer"]).split()
    if str(output).split() == gold:
        return Score(1.0)
    return Score(0.0, feedback=feedback(gold))


@dataclass(frozen=True)
class Task:
    """One task: texts, a metric, and instructions of three levels.

    Attributes:
        name: Its name, e.g. "color-of-last".
        family: The group of tasks that are taught and held out together, e.g. "attr-of-pick".
        hops: 1, or 2 where an intermediate result (a reasoning field) helps.
        held_out: The model was never trained to criticise or word instructions for it (in a chain: for its first step).
        steps: For a chain, the tasks that its two calls do; otherwise the name itself.
        seed: Draws the texts, and the mapping of a label map.
    """

    name: str
    family: str
    hops: int
    held_out: bool
    steps: tuple[str, ...]
    seed: int
    op: Operation

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the input fields: "text", for texts about people also "question"."""
        return ("text", "question") if self.op.texts == "pair" else ("text",)

    @property
    def metric(self) -> Any:
        """Exact match with feedback `the answer should be ...`: `metric(example, output) -> Score`."""
        return metric

    def split(
        self, train: int = 64, val: int = 64, test: int = 200
    ) -> tuple[list[Example], list[Example], list[Example]]:
        """Seeded training, validation and test examples; no text occurs twice.

        Test texts come from the fifth of the text space that the model was never trained on, in any task. No test set
        holds single words (there are only 80): label maps and attributes are tested on short sentences about them, so
        the sentence is new there, not the object.

        Raises:
            DataError: There are not that many different texts.
        """
        taken: set[str] = set()
        parts = (("train", "train", train), ("val", "train", val), ("test", "test", test))
        drawn = [self._draw(name, part, n, taken) for name, part, n in parts]
        return drawn[0], drawn[1], drawn[2]

    def _draw(self, stream: str, part: str, n: int, taken: set[str]) -> list[Example]:
        r = Random(f"{self.name} {self.seed} {stream}")
        found: list[Example] = []
        idle = 0
        while len(found) < n:
            fields = self.op.draw(r, part)
            values = {name: " ".join(words) for name, words in fields.items()}
            key = " | ".join(values.values())
            if key in taken:
                idle += 1
                if idle > 2000:
                    raise DataError(
                        f"{self.name} has only {len(found)} different texts left for {stream!r}, {n} are wanted: "
                        "ask for smaller splits"
                    )
                continue
            taken.add(key)
            idle = 0
            answer = " ".join(self.op.solve(fields).answer)
            found.append(Example(**values, answer=answer).with_inputs(*values))
        return found

    def instruction(self, level: str = "vague", *, seed: int = 0, step: int | None = None) -> str:
        """An instruction for the task, or for one step of a chain.

        Args:
            level: "precise" says what to do, in a sentence that no training has seen (a tenth of all are held out);
                "partial" says what kind of answer is wanted; "vague" says nothing about the task.
            seed: Draws the wording.
            step: For a chain, 0 or 1: the call that is instructed.

        Raises:
            DataError: There is no such level or step.
        """
        if level not in LEVELS:
            raise DataError(f"no level {level!r}: the levels are {', '.join(LEVELS)}")
        if step is not None and not 0 <= step < len(self.steps):
            raise DataError(f"{self.name} has {len(self.steps)} step(s), got step={step}")
        op = self.op if step is None or len(self.steps) == 1 else OPS[self.steps[step]]
        return say(Random(f"{op.name} {seed} {level}"), op, level, "test")

    def reasoning(self, example: Example) -> str:
        """The intermediate result that leads to the answer, as the model was taught to write it."""
        fields = {name: str(example[name]).split() for name in self.inputs}
        return " ".join(self.op.solve(fields).reasoning)

    def __repr__(self) -> str:
        return f"pocket.task({self.name!r}, seed={self.seed})"


def task(name: str, *, seed: int = 0) -> Task:
    """The task of this name.

    Raises:
        DataError: There is no task of this name.

    >>> task("color-of-last").metric(Example(text="cat wolf", answer="grey"), "black").feedback
    'the answer should be grey'
    """
    if name in _CHAINS:
        op = OPS[name.removeprefix("chain-")]
        first, second = _CHAINS[name]
        steps = (_step_name(first), second)
        return Task(name, "chain", 2, OPS[steps[0]].family in HELD_OUT_FAMILIES, steps, seed, op)
    if name in _MAPS:
        op = make_map(Random(f"{name} {seed}"), name.removeprefix("label-map-"))
        return Task(name, "label-map", 2, held_out=False, steps=(name,), seed=seed, op=op)
    if name not in OPS:
        near = difflib.get_close_matches(name, tasks(), 3)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise DataError(f"no pocket task {name!r}.{hint} All names: promptgrad.data.pocket.tasks()")
    op = OPS[name]
    held_out = op.family in HELD_OUT_FAMILIES
    return Task(name, op.family, op.hops, held_out, (name,), seed, op)


def label_map(seed: int = 0) -> Task:
    """A fresh task that no model has seen: two or three classes of a random feature, each with a meaningless label."""
    return task(Random(f"label-map {seed}").choice(_MAPS), seed=seed)


@cache
def vocabulary() -> tuple[str, ...]:
    """Every token of the model, in the order of its ids."""
    return tuple(build_vocabulary())


@cache
def _known() -> frozenset[str]:
    return frozenset(vocabulary()) - {"<unk>"}


def unknown_words(prompt: str | Iterable[Any]) -> list[str]:
    """Words of a prompt that the model cannot read (it sees `<unk>`), each once, in order of appearance.

    Args:
        prompt: Text, or chat messages (mappings or objects with `content`).
    """
    if isinstance(prompt, str):
        texts = [prompt]
    else:
        texts = [str(m["content"] if isinstance(m, Mapping) else getattr(m, "content", m)) for m in prompt]
    words = dict.fromkeys(word for text in texts for word in text.split())
    return [word for word in words if word not in _known()]


def say_unknown(unknown: list[str]) -> str:
    """The text of a warning of words that the model cannot read."""
    shown = ", ".join(map(repr, unknown[:12])) + (" ..." if len(unknown) > 12 else "")
    return f"the pocket model does not know these words, and reads each as <unk>: {shown}."


def inside(prompt: str | Iterable[Any]) -> bool:
    """Whether a prompt is written in words of this world only; outside it, the model's replies mean nothing."""
    return not unknown_words(prompt)


def words() -> tuple[str, ...]:
    """The vocabulary without special tokens and field markers."""
    return tuple(w for w in vocabulary() if w not in SPECIALS and not w.startswith("[["))


def model_path() -> Path:
    """Folder of the model: an ordinary Hugging Face folder for `from_pretrained`."""
    return Path(__file__).resolve().parent / "model"
