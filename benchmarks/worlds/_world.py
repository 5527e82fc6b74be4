"""`World`: data, a metric, a start and a simulated LM, all drawn from one seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from worlds._noise import digest
from worlds._prompt import Prompt
from worlds._server import Call, Server

if TYPE_CHECKING:
    from promptgrad import Example, Score

STUDENT, WRITER, CRITIC = "student", "writer", "critic"


class World:
    """A task with a simulated LM that can be asked for everything an optimizer asks for. It is no real LM.

    The same seed gives the same world in every process. At temperature 0 the same prompt has the same reply; above it,
    the n-th time that a prompt is sent has a reply of its own, whatever is sent besides.

    Args:
        seed: Draws everything. By agreement 0 to 99 are for results that are reported, 1000 and up for development.
        train: Number of training rows.
        val: Number of validation rows.
        test: Number of rows kept for the end.
    """

    name = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    start: str = ""
    """The instruction to begin with; `starts` where there are several modules."""

    def __init__(self, seed: int, *, train: int = 40, val: int = 40, test: int = 1000) -> None:
        self.seed = seed
        self.sizes = {"train": train, "val": val, "test": test}
        self._asked: Counter[str] = Counter()

    def rng(self, *path: object) -> random.Random:
        """A generator of its own for each path."""
        return random.Random("/".join(map(str, (self.name, self.seed, *path))))

    # -- data ---------------------------------------------------------------------------------------------------

    def row(self, number: int, rng: random.Random) -> dict[str, Any]:
        """Draw one row: inputs and labels."""
        raise NotImplementedError

    @cached_property
    def rows(self) -> dict[str, tuple[dict[str, Any], ...]]:
        """The rows as plain dicts: "train", "val", "test"."""
        numbers = iter(range(1001, 10**6))
        return {
            part: tuple(self.row(next(numbers), rng) for _ in range(size))
            for part, size in self.sizes.items()
            for rng in [self.rng("rows", part)]
        }

    def examples(self, part: str) -> list[Example]:
        """The rows of one part as `promptgrad.Example`s."""
        from promptgrad import Example

        return [Example(row).with_inputs(*self.inputs) for row in self.rows[part]]

    @cached_property
    def train(self) -> list[Example]:
        """The training rows."""
        return self.examples("train")

    @cached_property
    def val(self) -> list[Example]:
        """The validation rows."""
        return self.examples("val")

    @cached_property
    def test(self) -> list[Example]:
        """Fresh rows, for the end."""
        return self.examples("test")

    @property
    def starts(self) -> dict[str, str]:
        """The instruction of each module to begin with, by its name in `program`."""
        return {"": self.start}

    # -- judging ------------------------------------------------------------------------------------------------

    def judge(self, row: Any, answer: str) -> tuple[float, str]:
        """The score of an answer, 0 or 1, and the feedback."""
        raise NotImplementedError

    def metric(self, example: Any, output: Any, *_: Any) -> Score:
        """The metric: a score with its feedback. `example` is a row, `output` a prediction, a mapping or a text."""
        from promptgrad import Score

        value, feedback = self.judge(example, value_of(output, self.outputs[-1]))
        return Score(value, feedback=feedback)

    # -- the program and its LMs ----------------------------------------------------------------------------------

    def program(self, url: str) -> Any:
        """The program that starts here, as a `promptgrad.nn.Module` on the student."""
        from promptgrad import nn

        form = f"{', '.join(self.inputs)} -> {', '.join(self.outputs)}"
        module = nn.Predict(form, instruction=self.start)
        return module.to(self.lm(url))

    def lm(self, url: str, model: str = STUDENT, **config: Any) -> Any:
        """One of the models "student", "writer" and "critic" as a `promptgrad.LM`."""
        from promptgrad import LM

        return LM(f"openai/{model}", base_url=url, api_key="none", **config)

    def serve(self, *, latency: float = 0.0, budget: int | None = None, record: bool = False) -> Server:
        """The LM as an OpenAI-compatible server; see `Server`. Models: "student", "writer", "critic"."""
        return Server(self.answer, latency=latency, budget=budget, record=record)

    def answer(self, call: Call) -> Any:
        """The reply to one call, of any model: a text, or an awaitable of one.

        A call that asks for outputs of the program is the student's; so is one to the student that asks for no field.
        Everything else is answered by the writer or critic, from what the prompt shows.
        """
        prompt = Prompt(call.messages)
        drawn: tuple[object, ...] = ()
        if call.temperature > 0:
            key = digest(call.model, *(message["content"] for message in call.messages))
            drawn = (key, self._asked[key])
            self._asked[key] += 1
        names = {asked.name for asked in prompt.asked}
        if self.is_task(names) or (not names and call.model == STUDENT and prompt.form == "plain"):
            return self.act(prompt, drawn)
        return self.advise(prompt, call.temperature, drawn)

    def score_of_start(self, rows: int) -> float:
        """The mean score of the start on so many fresh rows, asked for without the wire."""
        total = 0.0
        for row in self.rows["test"][:rows]:
            text = "\n".join(str(row[name]) for name in self.inputs)
            for start in self.starts.values():
                messages = [{"role": "system", "content": start}, {"role": "user", "content": text}]
                text = self.answer(Call(STUDENT, messages, 0.0, {}))
            total += self.judge(row, text)[0]
        return total / rows

    def is_task(self, names: set[str]) -> bool:
        """Whether a prompt that asks for these fields is one of the program's own."""
        return self.outputs[-1] in names

    def act(self, prompt: Prompt, drawn: Sequence[object]) -> str:
        """The student's reply."""
        raise NotImplementedError

    def advise(self, prompt: Prompt, temperature: float, drawn: Sequence[object]) -> str:
        """The writer's or critic's reply."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.seed})"


def value_of(output: Any, name: str) -> str:
    """A field of a prediction of any framework, as text."""
    if isinstance(output, str):
        return str.__str__(output)
    value = output[name] if isinstance(output, Mapping) else getattr(output, name, None)
    return "" if value is None else str.__str__(value) if isinstance(value, str) else str(value)
