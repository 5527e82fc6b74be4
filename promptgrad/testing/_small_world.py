"""A small world for the contract suite of optimizers: a program, data, a metric, and a language model for all roles.

The program has two steps, and the right answer is the last word of a text, reversed. The scripted model picks the first
word and copies it, unless an instruction, or two consistent demos, show the right way; it also plays critic and writer.
Its answers are a function of the messages.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from promptgrad import nn
from promptgrad.data import Example, Score
from promptgrad.testing._fields import asked_of, default_answer, inputs_of, text_of

HINTS = ("Take the last word.", "Reverse the word.")
"""The text that an instruction needs, for the first step and for the second."""

DECOYS = ("Take the word in the middle.", "Copy the word.", "Think step by step.", "Be brief.")
"""Further texts that a writer may propose, which do not help."""

_WORDS = ("red", "green", "blue", "lime", "grey", "pink", "gold", "teal", "plum", "navy", "ruby", "sand")
_HELD = 1 / 16  # share of the calls that wait until others are answered


class SmallProgram(nn.Module):
    """Two steps with several inputs, one of them a set, whose order depends on the hash seed."""

    def __init__(self) -> None:
        super().__init__()
        self.pick = nn.Predict("text, hint -> word")
        self.spell = nn.Predict("word, hint, seen: set[str] -> answer")

    def forward(self, text: str, hint: str) -> Any:
        """Answer."""
        hint = "none" if hint in {"", "no", "nothing", "empty"} else hint
        word = self.pick(text=text, hint=hint).word
        return self.spell(word=word, hint=hint, seen={*text.split()})


def metric(example: Example, output: Any) -> Score:
    """Full for the right answer, half for the right letters, with feedback and a part for each."""
    right = output.answer == example.answer
    letters = sorted(output.answer) == sorted(example.answer)
    parts = {"letters": float(letters), "order": float(right)}
    if right:
        return Score(1.0, parts=parts)
    return Score(0.5 * letters, feedback=f"the answer should be {example.answer}", parts=parts)


def examples(count: int, seed: int = 0) -> list[Example]:
    """Examples with different texts, the answer of the first step among the labels; they depend on the seed."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        words = [*rng.sample(_WORDS, 3), f"w{seed}x{number}"]
        fields = {"text": " ".join(words), "hint": ("", "look", "nothing")[number % 3]}
        made.append(Example(**fields, word=words[-1], answer=words[-1][::-1]).with_inputs("text", "hint"))
    return made


class Scripted:
    """The model, as an async function of the messages for `lm.FunctionLM`; replies come in a mixed order.

    Args:
        answers: Function of the messages that answers first; where it returns None, the small world answers.
        garbage: Share of prompts, by their digest, whose reply lacks the requested fields.
        garbled: Function of the names of the requested fields; where it is true, the reply lacks them as well.
        failing: Share of prompts, by their digest, that raise `error`.
        error: Function that makes the error.
        at: Function that is called with the number of each call before its answer.
        order: Seed of the order in which calls in flight are answered.
    """

    def __init__(
        self,
        answers: Callable[[Sequence[Any]], str | None] = lambda messages: None,
        *,
        garbage: float = 0.0,
        garbled: Callable[[Sequence[str]], bool] = lambda names: False,
        failing: float = 0.0,
        error: Callable[[], Exception] = RuntimeError,
        at: Callable[[int], None] = lambda number: None,
        order: int = 0,
    ) -> None:
        self.calls = 0
        self._held = 0
        self._answered = 0
        self._order = random.Random(order)
        self._answers = answers
        self._garbage = garbage
        self._garbled = garbled
        self._failing = failing
        self._error = error
        self._at = at

    async def __call__(self, messages: Sequence[Any]) -> str:
        """Answer the messages."""
        self.calls += 1
        self._at(self.calls)
        try:
            return await self._reply(messages)
        finally:
            self._answered += 1

    async def _overtaken(self) -> None:
        """Wait until a block of other calls was answered, or nothing else is in flight for a while."""
        until, idle = self._answered + 40, 0
        self._held += 1
        while self._answered < until and idle < 5:
            idle = idle + 1 if self.calls - self._answered <= self._held else 0
            await asyncio.sleep(0.0005)
        self._held -= 1

    async def _reply(self, messages: Sequence[Any]) -> str:
        drawn = hashlib.sha256(
            f"{text_of(messages[0])} {_asked_with(messages)}".encode("utf-8", "surrogatepass")
        ).digest()
        if self._order.random() < _HELD:
            await self._overtaken()
        if drawn[5] < 256 * self._failing:
            raise self._error()
        if drawn[2] < 256 * self._garbage or self._garbled([name for name, _ in asked_of(messages)]):
            return ("", "I would rather not.", "[[ ## nothing ## ]]\nat all", '{"half": ', "\ud83d")[drawn[3] % 5]
        own = self._answers(messages)
        return answer(messages, drawn[4]) if own is None else own


def answer(messages: Sequence[Any], drawn: int = 0) -> str:
    """The answer of the small world's model.

    Args:
        messages: The prompt.
        drawn: Number that chooses among the texts that a writer may propose.
    """
    system = text_of(messages[0])
    instruction = system.split("\n\nYou are given")[0].lower()
    shown = [(inputs_of(messages[place]), inputs_of(messages[place + 1])) for place in range(1, len(messages) - 1, 2)]
    given = _asked_with(messages)
    sections = []
    for name, kind in asked_of(messages):
        value = _field(name, instruction, shown, given)
        if value is None:
            known = default_answer(kind, "")
            value = known or _written(given, repr(given), drawn)
        sections.append(f"[[ ## {name} ## ]]\n{value}")
    return "\n\n".join([*sections, "[[ ## completed ## ]]"])


def _asked_with(messages: Sequence[Any]) -> dict[str, str]:
    """The inputs of a prompt; those of the first prompt where this is a re-ask."""
    found = (inputs_of(message) for message in reversed(messages) if message["role"] == "user")
    return next((inputs for inputs in found if inputs), {})


def _field(
    name: str, instruction: str, shown: Sequence[tuple[Mapping[str, str], Mapping[str, str]]], given: Mapping[str, str]
) -> str | None:
    if name == "word" and "text" in given:
        words = given["text"].split()
        last = "last" in instruction or _learnt(shown, lambda i, o: o.get("word") == i["text"].split()[-1])
        return words[-1] if last else words[0]
    if name == "answer" and "word" in given:
        turn = "reverse" in instruction or _learnt(shown, lambda i, o: o.get("answer") == i["word"][::-1])
        return given["word"][::-1] if turn else given["word"]
    if name == "findings":
        return _findings(given)
    if name == "revisions":
        return _revisions(given)
    if name.endswith("to_blame"):
        part = name.removesuffix("to_blame").removesuffix("_")
        return str(bool(_critique(f"critique_of_{part}" if part else "critique", given))).lower()
    if name.startswith("critique"):
        return _critique(name, given)
    return None


def _learnt(
    shown: Sequence[tuple[Mapping[str, str], Mapping[str, str]]],
    holds: Callable[[Mapping[str, str], Mapping[str, str]], bool],
) -> bool:
    return len(shown) >= 2 and all(holds(inputs, outputs) for inputs, outputs in shown)


def _critique(name: str, given: Mapping[str, str]) -> str:
    """What is wrong with one part of a step; empty if it is not to blame."""
    gold = _gold(given.get("feedback", ""))
    try:
        inputs, outputs = json.loads(given.get("inputs", "{}")), json.loads(given.get("outputs", "{}"))
    except ValueError:
        return ""
    if name == "critique_of_word":
        word = inputs.get("word", "")
        return f"the word should be {gold[::-1]}" if word[::-1] != gold else ""
    if name != "critique":
        return ""
    if "text" in inputs:
        return HINTS[0] if outputs.get("word") != gold else ""
    return "" if outputs.get("answer") == inputs.get("word", "")[::-1] else HINTS[1]


def _findings(given: Mapping[str, str]) -> str:
    """What is wrong with the parameters, according to whole runs."""
    found: dict[tuple[str, str], list[int]] = {}
    for run in json.loads(given.get("runs", "[]")):
        gold = _gold(run.get("feedback", ""))[::-1]
        for call in run["calls"] if run["result"] == "wrong" else ():
            name = next((name for name in call.get("follows", ()) if name.endswith("instruction")), "")
            inputs, outputs = call["inputs"], call.get("outputs", {})
            if "text" in inputs and outputs.get("word") != gold:
                found.setdefault((name, HINTS[0]), []).append(run["run"])
            elif "text" not in inputs and outputs.get("answer") != inputs.get("word", "")[::-1]:
                found.setdefault((name, HINTS[1]), []).append(run["run"])
    return json.dumps(
        [
            {"runs": runs, "parameter": name, "critique": hint, "to_blame": True}
            for (name, hint), runs in found.items()
            if name
        ]
    )


def _revisions(given: Mapping[str, str]) -> str:
    """The new text of each parameter that whole runs speak against."""
    texts = json.loads(given.get("parameters", "{}"))
    found: dict[str, str] = {}
    for run in json.loads(given.get("runs", "[]")):
        gold = _gold(run.get("feedback", ""))[::-1]
        for call in run.get("calls", ()) if run.get("score", 1) < 1 and gold else ():
            inputs, outputs, first = call["inputs"], call.get("outputs", {}), "text" in call["inputs"]
            name = f"{call['call'].partition('[')[0]}.instruction"
            wrong = outputs.get("word") != gold if first else outputs.get("answer") != inputs.get("word", "")[::-1]
            if wrong and name in texts:
                found[name] = f"{texts[name]} {HINTS[0] if first else HINTS[1]}".strip()
    return json.dumps([{"parameter": name, "new_text": text} for name, text in found.items()])


def _gold(feedback: str) -> str:
    found = re.search(r"should be (\w+)", feedback)
    return found.group(1) if found else ""


def _written(given: Mapping[str, str], prompt: str, drawn: int) -> str:
    """A text: the present one with the hints that the prompt holds; without a hint, any of the texts."""
    hints = [hint for hint in HINTS if hint in prompt]
    if not hints:
        texts = (*HINTS, *DECOYS)
        return texts[drawn % len(texts)]
    present = given.get("instruction", given.get("text", ""))
    return " ".join([present, *(hint for hint in hints if hint not in present)]).strip()
