"""W1, item response: phrases in the instruction help or harm, items differ in difficulty, and the rest is noise."""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

from worlds import _advice
from worlds._advice import Advice
from worlds._noise import digest, gumbel, pick, uniform
from worlds._prompt import Asked, Prompt
from worlds._rows import is_right
from worlds._world import World

PHRASES = {
    "convert all units": "The units were mixed.",
    "check the sign": "The sign was wrong.",
    "round only at the end": "It was rounded too early.",
    "write down what is given": "A number from the text was overlooked.",
    "name the unknown": "It was not clear what was asked for.",
    "estimate the size first": "The size of the result is implausible.",
    "read the question twice": "Another question was answered.",
    "draw a table": "The cases were confused.",
    "work backwards": "The steps were taken in the wrong order.",
    "test a small case": "It fails already in a small case.",
    "look for a pattern": "The pattern was not seen.",
    "count the cases": "A case was counted twice.",
    "use fractions": "A fraction was cut off.",
    "keep both sides equal": "The two sides do not balance.",
    "watch the percent sign": "A percentage was taken for a number.",
    "list the assumptions": "An assumption was made that is not given.",
    "give only the number": "There were words around the number.",
    "compare with the text": "The result contradicts the text.",
    "think step by step": "A step was skipped.",
    "be concise": "It was too long.",
    "double the care": "It was careless.",
    "take the larger value": "The smaller value was taken.",
    "ignore the first sentence": "The first sentence misled.",
    "trust the first idea": "It was changed at the end.",
}
"""What an instruction can say, and the symptom of its absence in the feedback."""

TOPICS = ("ratios", "dates", "prices", "speeds")
_PHRASE = re.compile("|".join(map(re.escape, PHRASES)), re.IGNORECASE)
_SYMPTOM = re.compile("|".join(re.escape(symptom.rstrip(".")) for symptom in PHRASES.values()), re.IGNORECASE)
_OF_SYMPTOM = {symptom.rstrip(".").lower(): phrase for phrase, symptom in PHRASES.items()}
_ITEM = re.compile(r"Item (\d+) on (\w+)")
_SCORED = re.compile(r"^(.*?)[\s|,]*\bScore:\s*(\d+(?:\.\d+)?)", re.IGNORECASE | re.DOTALL | re.MULTILINE)
_ATTEMPTS = re.compile(r"attempt|previous|rejected|tried|promising|worse", re.IGNORECASE)

HINTED, TRUE_HINT, GRASP = 0.6, 0.8, 0.85
"""How often feedback has a hint; how often it is a good one; how often the writer understands it."""
MOST = 8
"""Phrases that an instruction can have before each further one costs something."""


class ItemWorld(World):
    """W1: answer items; a logistic model of ability and difficulty says whether the answer is right.

    Of 24 phrases that an instruction can hold, seven help (three everywhere, one for each topic), six harm, the rest
    does nothing; from the ninth on each costs something. Demos help by topic, or not at all, and a reasoning field
    helps, does nothing or harms, as the seed draws. Each item has a difficulty, each (prompt, item) a noise of its own.
    The writer adds phrases for the symptoms that feedback in its prompt names, by scored attempts that it is shown, and
    some by habit.

    Args:
        seed: Draws everything.
        hints: How often feedback on a wrong answer has a hint.
        **sizes: Numbers of rows, as for `World`.
    """

    name = "W1"
    inputs = ("question",)
    outputs = ("answer",)
    start = "Answer the question."

    def __init__(self, seed: int, *, hints: float = HINTED, **sizes: int) -> None:
        super().__init__(seed, **sizes)
        self.hints = hints
        rng = self.rng("phrases")
        order = list(PHRASES)
        rng.shuffle(order)
        self.everywhere = {phrase: rng.uniform(0.4, 0.8) for phrase in order[:3]}
        self.by_topic = {topic: (order[3 + i], rng.uniform(1.0, 1.8)) for i, topic in enumerate(TOPICS)}
        self.harmful = {phrase: -rng.uniform(0.4, 1.0) for phrase in order[7:13]}
        self.neutral = order[13:]
        self.ability = rng.uniform(-1.3, -0.6)
        self.demo = rng.choice((0.0, 0.3, 0.45))
        self.reasoning = rng.choice((-0.4, 0.0, 0.6))
        self._student = lru_cache(maxsize=512)(self._study)

    def row(self, number: int, rng: random.Random) -> dict[str, Any]:
        """Draw an item: its topic, its numbers and its answer."""
        topic = rng.choice(TOPICS)
        a, b = rng.randint(2, 99), rng.randint(2, 99)
        return {"question": f"Item {number} on {topic}: what follows from {a} and {b}?", "answer": self.key(number)}

    def key(self, number: int) -> str:
        """The right answer to an item."""
        return str(100 + pick(900, self.seed, "key", number))

    def judge(self, row: Any, answer: str) -> tuple[float, str]:
        """1 for the right answer; else what was expected, and perhaps a symptom."""
        label = row["answer"]
        if answer.strip().rstrip(".") == label:
            return 1.0, "right"
        found = _ITEM.search(row["question"])
        hint = self.hint(int(found[1]), found[2]) if found else None
        return 0.0, f"expected {label}." + (f" {PHRASES[hint]}" if hint else "")

    def hint(self, number: int, topic: str) -> str | None:
        """The phrase that feedback on an item hints at; None where it has no hint."""
        if uniform(self.seed, "hinted", number) >= self.hints:
            return None
        if uniform(self.seed, "true hint", number) < TRUE_HINT:
            good = [*self.everywhere, self.by_topic[topic][0], self.by_topic[topic][0]]
            return good[pick(len(good), self.seed, "hint", number)]
        other = [*self.harmful, *self.neutral]
        return other[pick(len(other), self.seed, "hint", number)]

    # -- the student ----------------------------------------------------------------------------------------------

    def act(self, prompt: Prompt, drawn: Sequence[object]) -> str:
        """Answer right or wrong, as ability, difficulty and noise have it."""
        number, topic = item_of(prompt.user)
        answer = self.answer_to(number, topic, prompt.instruction, tuple(prompt.demos), len(prompt.asked) > 1, drawn)
        return prompt.reply(partial(self._field, answer), answer)

    def _field(self, answer: str, asked: Asked) -> Any:
        return answer if asked.name == self.outputs[-1] else f"From what is given it follows that it is {answer}."

    def answer_to(
        self,
        number: int,
        topic: str,
        instruction: str,
        demos: tuple[tuple[str, str], ...] = (),
        reasons: bool = False,  # noqa: FBT001, FBT002 - one of two forms of a prompt
        drawn: Sequence[object] = (),
    ) -> str:
        """The student's answer to an item."""
        key = self.key(number)
        base, specific, shown, name = self._student(instruction, demos)
        logit = base + specific.get(topic, 0.0) + (self.reasoning if reasons else 0.0)
        near = shown[topic]
        logit += self.demo * min(4, near) + 0.3 * self.demo * min(4, sum(shown.values()) - near)
        difficulty = 1.1 * _normal(self.seed, "difficulty", number)
        u = uniform(self.seed, "noise", name, reasons, number, *drawn)
        if logit - difficulty + 0.6 * math.log(u / (1 - u)) > 0:
            return key
        return str(int(key) + 1 + pick(9, self.seed, "wrong", number, *drawn))

    def _study(
        self, instruction: str, demos: tuple[tuple[str, str], ...]
    ) -> tuple[float, dict[str, float], Counter[str], str]:
        said = set(phrases(instruction))
        base = self.ability + sum(weight for phrase, weight in self.everywhere.items() if phrase in said)
        base += sum(weight for phrase, weight in self.harmful.items() if phrase in said)
        base -= 0.15 * max(0, len(said) - MOST)
        specific = {topic: weight for topic, (phrase, weight) in self.by_topic.items() if phrase in said}
        text = "\n".join([instruction, *(f"{ask}\n{answer}" for ask, answer in demos)])
        shown = Counter(
            found[2]
            for found in _ITEM.finditer(text)
            if self.key(int(found[1])) in text[found.end() : found.end() + 160]
        )
        return base, specific, shown, digest(instruction, *demos)

    # -- writer and critic ------------------------------------------------------------------------------------------

    def advise(self, prompt: Prompt, temperature: float, drawn: Sequence[object]) -> str:
        """Phrases for the symptoms that the prompt names, in whatever form it asks for."""
        key = (self.seed, digest(prompt.system, prompt.user), *drawn)
        text = prompt.user
        symptoms = Counter(_OF_SYMPTOM[found.lower()] for found in _SYMPTOM.findall(text))
        blame = bool(symptoms) or "expected" in text or not is_right(text)
        words = [PHRASES[phrase] for phrase, _ in symptoms.most_common()]
        critique = " ".join(words) if words else "It may be said more precisely how to work." if blame else ""
        wrong = {}
        for run, shown in enumerate(_advice.runs(prompt), 1):
            said = [PHRASES[_OF_SYMPTOM[found.lower()]] for found in _SYMPTOM.findall(shown)]
            if said or "expected" in shown:
                wrong[run] = " ".join(said) or "The answer is not the one expected."
        instruction = self.propose(prompt, symptoms, temperature, key)
        return _advice.write(prompt, Advice(instruction, critique or "The answer is right.", blame, wrong))

    def propose(self, prompt: Prompt, symptoms: Counter[str], temperature: float, key: Sequence[object]) -> str:
        """A new instruction: what is there, phrases for symptoms, what attempts speak for, and one or two by habit."""
        kept = list(phrases(_advice.current(prompt)))
        effect = _effects(prompt)
        dropped = {p for p, gain in effect.items() if gain < -0.01 and uniform(*key, "drop", p) < 0.7}
        chosen = [phrase for phrase in kept if phrase not in dropped]
        # what is named more often weighs more; a strong writer follows up most of what it reads
        order = sorted(symptoms, key=lambda p: -(symptoms[p] + (0.3 + temperature) * gumbel(*key, "order", p)))
        everything = list(PHRASES)
        for phrase in order[:5]:
            grasped = uniform(*key, "grasp", phrase) < GRASP
            chosen.append(phrase if grasped else everything[pick(len(everything), *key, "mistake", phrase)])
        chosen += [p for p, gain in effect.items() if gain > 0.01 and uniform(*key, "keep", p) < 0.7]
        habits = 1 if symptoms else 3
        weights = {p: 0.6 * gumbel(*key, "habit", p) for p in PHRASES}
        for phrase in [*self.everywhere, *(phrase for phrase, _ in self.by_topic.values())]:
            weights[phrase] += 0.4  # an LM knows a little of what helps
        chosen += sorted(weights, key=lambda p: -weights[p])[:habits]
        said = [phrase for phrase in dict.fromkeys(chosen) if phrase not in dropped][: MOST + 2]
        return " ".join([self.start, *(f"{phrase[0].upper()}{phrase[1:]}." for phrase in said)])


def item_of(text: str) -> tuple[int, str]:
    """Number and topic of the last item in a text."""
    found = _ITEM.findall(text)
    return (int(found[-1][0]), found[-1][1]) if found else (0, TOPICS[0])


def phrases(text: str) -> tuple[str, ...]:
    """The phrases that a text holds, in its order."""
    return tuple(dict.fromkeys(found.lower() for found in _PHRASE.findall(text)))


def _effects(prompt: Prompt) -> dict[str, float]:
    """What each phrase seems to do, from the scored attempts that a prompt shows: mean with it less mean without."""
    scored: list[tuple[tuple[str, ...], float]] = []
    for name, text in prompt.sections.items():
        if not _ATTEMPTS.search(name):
            continue
        try:
            listed = json.loads(text)
        except ValueError:
            scored += [(phrases(said), float(score)) for said, score in _SCORED.findall(text)]
            continue
        for each in listed if isinstance(listed, list) else []:
            if isinstance(each, dict):
                numbers = [v for k, v in each.items() if "score" in k and isinstance(v, (int, float))]
                if numbers:
                    scored.append((phrases(json.dumps(each)), float(numbers[0])))
    if len(scored) < 2:
        return {}
    top = max(score for _, score in scored)
    scale = 100.0 if top > 1.0 else 1.0
    found = {}
    for phrase in dict.fromkeys(p for said, _ in scored for p in said):
        with_it = [score for said, score in scored if phrase in said]
        without = [score for said, score in scored if phrase not in said]
        if without:
            found[phrase] = (sum(with_it) / len(with_it) - sum(without) / len(without)) / scale
    return found


def _normal(*parts: object) -> float:
    u, v = uniform(*parts, 0), uniform(*parts, 1)
    return math.sqrt(-2 * math.log(u)) * math.cos(2 * math.pi * v)
