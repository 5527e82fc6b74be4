"""W3, the embedded model: a real, tiny LM behind the server, on tasks of twelve families; needs the extra `local`.

Prompts of its own adapter reach it as they are; those of others are put into its own form first, and its reply into
theirs. Requests that arrive together are answered in one batch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

from worlds import _advice
from worlds._advice import Advice
from worlds._noise import pick
from worlds._prompt import Asked, Prompt
from worlds._server import Call
from worlds._world import STUDENT, World

FAMILIES = (
    "pick",
    "attr-of-pick",
    "list",
    "find-kind",
    "attr-of-kind",
    "count-kind",
    "find-value",
    "odd",
    "extreme",
    "sort",
    "label-map",
    "count-color",
)
_OWN = re.compile(r"\[\[\w+\]\]\Z")
_SHOULD = re.compile(r"should be ([a-z0-9 ]+)")
_OUTPUT = re.compile(r"(?:answer|output)\W{1,12}([a-z0-9][a-z0-9 ]*)", re.IGNORECASE)
_MOST = 6
"""Examples that the model can read at once."""


class EmbeddedWorld(World):
    """W3: one task of the pocket world, from a vague instruction; student, writer and critic are the embedded model.

    Seed s is a task of family s modulo 12; the seed draws the task within it, its texts and the vague wording. A task
    with too few texts for the sizes gives way to the next one of its family.

    Args:
        seed: Draws everything.
        **sizes: Numbers of rows, as for `World`.

    Raises:
        DataError: No task of the family has so many texts.
    """

    name = "W3"
    inputs = ("text",)
    outputs = ("answer",)

    def __init__(self, seed: int, **sizes: int) -> None:
        from promptgrad.data import pocket

        super().__init__(seed, **sizes)
        self.family = FAMILIES[seed % len(FAMILIES)]
        names = pocket.families()[self.family]
        self.task, self._parts = self._drawn(names, pick(len(names), seed, "task"))
        self.start = self.task.instruction("vague", seed=seed)
        self._known = set(pocket.words())

    def _drawn(self, names: Sequence[str], first: int) -> tuple[Any, Sequence[Any]]:
        """The first task, from one on, that has texts enough, with its rows."""
        from promptgrad.data import pocket
        from promptgrad.errors import DataError

        for name in (names[(first + n) % len(names)] for n in range(len(names))):
            task = pocket.task(name, seed=self.seed)
            with suppress(DataError):
                return task, task.split(*self.sizes.values())
        raise DataError(f"no task of {self.family!r} has {sum(self.sizes.values())} different texts with this seed")

    @cached_property
    def rows(self) -> dict[str, tuple[dict[str, Any], ...]]:
        """The rows as plain dicts: "train", "val", "test"."""
        made = [tuple({name: str(row[name]) for name in ("text", "answer")} for row in part) for part in self._parts]
        return dict(zip(self.sizes, made, strict=True))

    @cached_property
    def _texts(self) -> list[str]:
        """The texts that a prompt may show, the longest first."""
        shown = (row["text"] for part in ("train", "val") for row in self.rows[part])
        return sorted(shown, key=len, reverse=True)

    def judge(self, row: Any, answer: str) -> tuple[float, str]:
        """1 for the right answer, and "right" or what the answer should be."""
        score = self.task.metric(row, answer)
        return score.value, score.feedback or "right"

    def lm(self, url: str, model: str = STUDENT, **config: Any) -> Any:
        """A model on the wire, written to in the embedded model's own form."""
        return super().lm(url, model, adapter="pocket", **config)

    def score_of_start(self, rows: int) -> float:
        """The mean score of the start on so many fresh rows."""
        from promptgrad import evaluate, nn

        program = nn.Predict("text -> answer", instruction=self.start).to(self.model)
        return float(evaluate(program, self.test[:rows], metric=self.metric, progress=False).score)

    @cached_property
    def model(self) -> Any:
        """The embedded model."""
        from promptgrad import LM

        return LM("pocket")

    async def answer(self, call: Call) -> str:
        """The reply to one call, of any model."""
        options: dict[str, Any] = {}
        if call.temperature > 0:
            key = str([message["content"] for message in call.messages])
            options = {"temperature": call.temperature, "replicate": self._asked[key]}
            self._asked[key] += 1
        if _OWN.search(call.messages[-1]["content"].rstrip()):
            return await self._complete(call.messages, options)
        prompt = Prompt(call.messages)
        names = {asked.name for asked in prompt.asked}
        if self.is_task(names) or (not names and call.model == STUDENT and prompt.form == "plain"):
            return await self._act(prompt, options)
        return await self._advise(prompt, options)

    async def _complete(self, messages: Sequence[dict[str, Any]], options: dict[str, Any]) -> str:
        completion = await self.model.acall([dict(message) for message in messages], **options)
        return str(completion.text)

    async def _ask(self, instruction: str, user: str, options: dict[str, Any], demos: Sequence[Any] = ()) -> str:
        messages = [{"role": "system", "content": self._words(instruction)}]
        for ask, answer in demos:
            messages += [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]
        return await self._complete([*messages, {"role": "user", "content": user}], options)

    def _words(self, text: str) -> str:
        """A text in the model's words: lower case, punctuation apart, without the words that it does not know."""
        found = re.findall(r"[a-z0-9]+|;", text.lower())
        return " ".join(word for word in found if word in self._known)

    # -- the student ----------------------------------------------------------------------------------------------

    async def _act(self, prompt: Prompt, options: dict[str, Any]) -> str:
        reasons = len(prompt.asked) > 1
        first = "[[reasoning]]" if reasons else "[[answer]]"
        text = self._words(prompt.sections.get("text") or prompt.user)
        demos = []
        for ask, reply in prompt.demos:
            shown = self._words(Prompt([{"role": "user", "content": ask}]).sections.get("text") or ask)
            answers = Prompt([{"role": "user", "content": reply}]).sections
            demos.append((f"[[text]] {shown} [[answer]]", self._words(answers.get("answer") or reply)))
        said = await self._ask(prompt.instruction, f"[[text]] {text} {first}", options, demos)
        reasoning, _, answer = said.rpartition("[[answer]]")

        def value(asked: Asked) -> str:
            return answer.strip() if asked.name == "answer" else reasoning.strip() or "it is so"

        return prompt.reply(value, answer.strip())

    # -- writer and critic ------------------------------------------------------------------------------------------

    def shown(self, text: str) -> list[tuple[str, str | None, str]]:
        """The rows that a prompt shows: text, answer given (None where it does not say), right answer ("" likewise)."""
        places: list[tuple[int, int, str]] = []
        for known in self._texts:
            alone = rf"(?:(?<![a-z0-9 ])|(?<=[:>'\"] )){re.escape(known)}(?![a-z0-9]| [a-z0-9])"
            for found in re.finditer(alone, text):
                if not any(start <= found.start() < end for start, end, _ in places):
                    places.append((found.start(), found.end(), known))
        places.sort()
        rows = []
        for number, (_, end, known) in enumerate(places):
            stop = places[number + 1][0] if number + 1 < len(places) else min(len(text), end + 900)
            said = text[end:stop]
            should = _SHOULD.search(said)
            output = _OUTPUT.search(said)
            given = output[1].strip() if output else None
            right = should[1].strip() if should else given if given and "wrong" not in said else ""
            rows.append((known, given, right or ""))
        return rows

    async def _advise(self, prompt: Prompt, options: dict[str, Any]) -> str:
        """Induce an instruction from rows, improve one by critiques, or criticise one row: one call of the model."""
        from promptgrad.data import pocket

        rows = self.shown(prompt.user)
        now = self._words(_advice.current(prompt))
        wrong = [row for row in rows if row[2] and row[1] != row[2]]
        label = _SHOULD.search(prompt.user)
        critiques = self._words(prompt.sections.get("critiques", ""))
        writes = prompt.form in ("tags", "fence") or any("instruction" in asked.name for asked in prompt.asked)
        text, critique = now, ""
        if not writes and (wrong or label) and len(rows) <= 1:
            row = (wrong or rows or [("", None, "")])[0]
            told = (row[2] or (label[1] if label else "")).strip()
            if row[0]:
                given = f"[[instruction]] {now} [[text]] {row[0]} [[answer]] {row[1] or ''} [[feedback]]"
                user = f"{given} the answer should be {told} [[critique]]"
                critique = await self._ask(pocket.CRITIQUE_INSTRUCTION, user, options)
                critique = f"{critique}. The answer should be {told}."
            else:
                critique = f"The answer should be {told}."
        elif labelled := [row for row in rows if row[2]]:
            parts = " ".join(f"[[text]] {row[0]} [[answer]] {row[2]}" for row in labelled[:_MOST])
            text = critique = await self._ask(pocket.INDUCT_INSTRUCTION, f"{parts} [[instruction]]", options)
        elif writes and critiques:
            user = f"[[instruction]] {now} [[critique]] {critiques} [[instruction]]"
            text = critique = await self._ask(pocket.IMPROVE_INSTRUCTION, user, options)
        blame = bool(wrong or label)
        return _advice.write(prompt, Advice(text or "do the task", critique or "The answer is right.", blame))
